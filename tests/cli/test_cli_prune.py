"""``onnxopt prune`` and ``onnxopt inspect --groups``, as people call them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from onnxopt.data.files import write_samples
from onnxopt.ir.read import read_model
from onnxopt.prune.lineage import dropped_blocks
from tests.graphs import attention_block, cnn, from_text, mlp, samples, saved


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("prune")
    saved(cnn(), made / "cnn.onnx")
    saved(mlp(width=64), made / "mlp.onnx")
    write_samples(samples(cnn(), 12, labels=True), made / "data")
    return made


def run(folder: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ONNXOPT_CACHE": str(folder / "cache"), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "onnxopt", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


def test_groups_are_told_with_their_width_and_what_is_left(folder: Path) -> None:
    told = run(folder, "inspect", "cnn.onnx", "--groups").stdout
    assert "w1" in told
    assert "1 groups; 100.0% of" in told
    record = json.loads(run(folder, "inspect", "cnn.onnx", "--groups", "--json").stdout)
    assert record["groups"][0]["width"] == 6
    assert "w2[1]" in record["groups"][0]["weights"]


def test_a_share_is_left_and_everything_about_it_told(folder: Path) -> None:
    words = ("prune", "cnn.onnx", "--macs", "50%", "--option", "align=1", "--data", "data", "--metric", "top1")
    told = run(folder, *words, "--out", "half.onnx", "--seconds", "0.2").stdout
    assert "multiply-accumulates" in told
    assert "wrote half.onnx" in told
    assert "top1" in told
    after = read_model(folder / "half.onnx")
    assert after.signature == cnn().signature
    assert after.graph.graph.initializers["w1"].shape[0] == 3


def test_a_size_is_reached_and_no_more_removed_than_it_asks_for(folder: Path) -> None:
    before = (folder / "mlp.onnx").stat().st_size
    words = ("prune", "mlp.onnx", "--size", f"{before - 800}B", "--option", "align=1", "--json")
    record = json.loads(run(folder, *words, "--out", "small.onnx", "--seconds", "0.2").stdout)
    assert record["size_after"] <= before - 800
    assert record["size_after"] > before - 1600
    assert record["size_after"] == (folder / "small.onnx").stat().st_size
    assert record["after"]["parameters"] < record["before"]["parameters"]


def test_zeros_make_the_compressed_file_smaller_and_nothing_else(folder: Path) -> None:
    words = ("prune", "mlp.onnx", "--method", "weights", "--params", "20%", "--json")
    record = json.loads(run(folder, *words, "--out", "sparse.onnx", "--seconds", "0.2").stdout)
    assert record["compressed_after"] < 0.7 * record["compressed_before"]
    assert record["size_after"] == pytest.approx(record["size_before"], rel=0.05)  # shapes are told
    assert record["after"]["parameters"] == record["before"]["parameters"]


def test_whole_blocks_go_and_the_rest_is_told(folder: Path) -> None:
    saved(attention_block(), folder / "block.onnx")
    write_samples(samples(attention_block(), 4), folder / "texts")
    words = ("prune", "block.onnx", "--method", "layers", "--macs", "5%", "--data", "texts", "--out", "shallow.onnx")
    told = run(folder, *words, "--seconds", "0.2")
    assert "0% of the multiply-accumulates are left, not 5%" in told.stderr
    assert dropped_blocks(read_model(folder / "shallow.onnx").graph) == ("a",)
    done = run(folder, "prune", "block.onnx", "--method", "layers", "--out", "none.onnx", code=1)
    assert "judges blocks on data, and none was given" in done.stderr
    assert not (folder / "none.onnx").exists()


def test_a_goal_out_of_reach_writes_nothing(folder: Path) -> None:
    done = run(folder, "prune", "mlp.onnx", "--size", "10B", "--out", "none.onnx", code=3)
    assert "pruned as far as it goes the model still has" in done.stderr
    assert not (folder / "none.onnx").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--macs", "50%", "--size", "1KB"), "there are several goals"),
        (("--macs", "0%"), "leaves nothing or everything"),
        (("--params", "100%"), "leaves nothing or everything"),
        (("--macs", "-1"), "is not a share"),
        (("--method", "rows"), "there is no method 'rows'"),
        (("--method", "weights", "--size", "1KB"), "leaves zeros"),
        (("--method", "n-m", "--params", "50%"), "leaves n of every m"),
        (("--method", "low-rank", "--params", "50%"), "counts multiply-accumulates"),
        (("--recover", "match-statistics", "--no-recover"), "--recover and --no-recover"),
        (("--recover", "match-statistics"), "recovers on samples, and there are none"),
        (("--macs", "50%", "--option", "keep=0.9"), "there is a goal, and the option keep as well"),
        (("--latency", "0ms"), "a goal of nothing"),
    ],
)
def test_wrong_use_is_told(folder: Path, words: tuple[str, ...], text: str) -> None:
    done = run(folder, "prune", "cnn.onnx", *words, "--out", "x.onnx", code=2)
    assert text in done.stderr
    assert not (folder / "x.onnx").exists()


def test_a_pruned_model_is_compared_with_its_original_layer_by_layer(folder: Path) -> None:
    words = ("--macs", "50%", "--option", "align=1", "--rounds", "2", "--schedule", "linear")
    run(folder, "prune", "mlp.onnx", *words, "--out", "rounds.onnx", "--seconds", "0.2")
    told = run(folder, "compare", "mlp.onnx", "rounds.onnx", "--layers").stdout
    assert "32 of 64" in told
    assert "4 of 4" in told
    assert "most is lost at" in told
    record = json.loads(run(folder, "compare", "mlp.onnx", "rounds.onnx", "--layers", "--json").stdout)
    assert [one["tensor"] for one in record["layers"]] == ["hidden", "logits"]
    assert record["layers"][0]["sqnr_db"] > 100 > record["layers"][1]["sqnr_db"]
    done = run(folder, "compare", "mlp.onnx", "cnn.onnx", "--layers", code=1)
    assert "the two models have other inputs: x: float32" in done.stderr


def test_rounds_without_a_goal_are_refused(folder: Path) -> None:
    done = run(folder, "prune", "mlp.onnx", "--rounds", "3", "--out", "x.onnx", code=2)
    assert "rounds come to a goal, and there is none" in done.stderr
    done = run(folder, "prune", "mlp.onnx", "--macs", "50%", "--schedule", "cubical", "--out", "x.onnx", code=2)
    assert "did you mean 'cubic'?" in done.stderr


def test_what_cannot_be_measured_is_not_written(folder: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
        g (double[1, 3, 8, 8] x) => (double[1, 5, 4, 4] y) { h = Conv (x, w1) r = Relu (h) y = Conv (r, w2) }"""
    saved(from_text(text, {"w1": np.ones((8, 3, 3, 3)), "w2": np.ones((5, 8, 3, 3))}), folder / "double.onnx")
    done = run(folder, "prune", "double.onnx", "--macs", "50%", "--out", "half-double.onnx", code=1)
    assert "Traceback" not in done.stderr
    assert not (folder / "half-double.onnx").exists()


def test_a_goal_that_is_kept_already_is_told(folder: Path) -> None:
    done = run(folder, "prune", "mlp.onnx", "--size", "1GB", "--out", "same.onnx", "--seconds", "0.2")
    assert "nothing is removed" in done.stderr
    assert read_model(folder / "same.onnx").digest == read_model(folder / "mlp.onnx").digest


def test_zeros_are_told(folder: Path) -> None:
    words = ("prune", "mlp.onnx", "--method", "weights", "--params", "20%", "--out", "zeros.onnx", "--seconds", "0.2")
    assert "of the parameters, 0.0% before" in run(folder, *words).stdout
