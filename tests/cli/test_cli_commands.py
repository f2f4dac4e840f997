"""The commands, as a user runs them."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

import onnxopt
from onnxopt.data.files import write_samples
from onnxopt.registry import names
from tests.graphs import answers, cnn, mlp, samples, saved
from tests.signals import listen_to_ctrl_c


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    saved(cnn(), folder / "cnn.onnx")
    write_samples(samples(cnn(), 5, seed=1), folder / "data" / "calibration")
    write_samples(samples(cnn(), 6, seed=2), folder / "data" / "evaluation")
    return folder


def run(folder, *words, code=0):
    environment = {**os.environ, "ONNXOPT_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "onnxopt", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == code, done.stderr
    return done.stdout


OPTIMIZE = ("optimize", "cnn.onnx", "--data", "data", "--runtime", "ort", "--effort", "quick")


def test_optimize_writes_a_result_that_opens(folder):
    told = run(folder, *OPTIMIZE, "--out", "fast")
    assert "candidate" in told
    assert {file.name for file in (folder / "fast").iterdir()} == {
        "model.onnx",
        "engine.json",
        "run.json",
        "recipe.lock.yaml",
        "report.html",
    }
    feeds = dict(samples(cnn(), 1, seed=5).read(0).feeds)
    with onnxopt.open_engine(folder / "fast") as engine:
        scores = engine.run(feeds)["scores"]
    assert scores.shape == (2, 5)
    record = json.loads((folder / "fast" / "run.json").read_text())
    assert record["best"]["status"] in ("best", "baseline")
    assert record["baseline"]["latency"]["p50"] > 0


def test_the_same_again_comes_from_the_cache(folder):
    run(folder, *OPTIMIZE)
    again = json.loads(run(folder, *OPTIMIZE, "--json"))
    steps = [step for candidate in again["candidates"] for step in candidate["steps"]]
    assert steps
    assert all(step["cached"] and step["reason"] == "cached" for step in steps)


def test_the_lock_of_a_result_runs(folder):
    run(folder, *OPTIMIZE, "--out", "fast")
    told = run(folder, "run", "fast/recipe.lock.yaml", "--explain", "--effort", "quick")
    assert "why" in told


def test_a_tampered_result_does_not_open(folder):
    run(folder, *OPTIMIZE, "--out", "tampered")
    with (folder / "tampered" / "model.onnx").open("ab") as stream:
        stream.write(b"\x00")
    with pytest.raises(onnxopt.OnnxoptError, match="not the file that was proved"):
        onnxopt.open_engine(folder / "tampered")


def test_a_folder_without_a_result_is_told(folder):
    with pytest.raises(onnxopt.OnnxoptError, match="holds no result"):
        onnxopt.open_engine(folder)


def test_a_missed_bound_is_exit_code_3_and_loses_nothing(folder):
    told = run(folder, *OPTIMIZE, "--max-size", "10B", "--out", "small", code=3)
    assert "candidate" in told
    assert (folder / "small" / "model.onnx").exists()


def test_inspect(folder):
    found = json.loads(run(folder, "inspect", "cnn.onnx", "--json"))
    assert found["operators"]["Conv"] == 2
    assert found["parameters"] == sum(t.size for t in (np.empty(n) for n in (162, 6, 6, 6, 6, 270, 5)))
    assert "image: float32[batch,3,8,8]" in run(folder, "inspect", "cnn.onnx")


def test_profile_and_compare(folder):
    run(folder, "remove-unused", "cnn.onnx", "--out", "same.onnx")
    found = json.loads(run(folder, "profile", "cnn.onnx", "--vs", "same.onnx", "--seconds", "0.2", "--json"))
    assert found["speedup"]["low"] <= found["speedup"]["ratio"] <= found["speedup"]["high"]
    assert len(found["timing"]["samples"]) > 10
    compared = json.loads(run(folder, "compare", "cnn.onnx", "same.onnx", "--data", "data", "--json"))
    assert compared["drift"]["outputs"][0]["sqnr_db"] == 200.0
    assert compared["samples"] == 6


def test_evaluate_against_a_reference(folder):
    run(folder, "quantize-static", "cnn.onnx", "--data", "data", "--out", "int8.onnx")
    words = ("evaluate", "int8.onnx", "--data", "data", "--metric", "sqnr", "--reference", "cnn.onnx", "--json")
    found = json.loads(run(folder, *words))
    assert 10 < found["score"]["value"] < 60
    assert found["drift"]["outputs"][0]["sqnr_db"] == pytest.approx(found["score"]["value"])


def test_bucket_shapes_writes_a_model_for_each_size(folder):
    words = ("bucket-shapes", "cnn.onnx", "--dims", "batch=1,3", "--data", "data", "--out", "buckets", "--json")
    told = json.loads(run(folder, *words))
    assert [one["path"] for one in told] == ["buckets/cnn-batch1.onnx", "buckets/cnn-batch3.onnx"]
    for size, one in zip((1, 3), told, strict=True):
        assert 0 <= max(step["verification"] for step in one["steps"]) < 1e-3
        model = onnxopt.read_model(folder / one["path"])
        assert model.signature.inputs[0].shape == (size, 3, 8, 8)
        assert "BatchNormalization" not in model.operators
        feeds = {"image": np.random.default_rng(size).random((size, 3, 8, 8), np.float32)}
        want, have = (answers(one, feeds)["scores"] for one in (cnn(), model))
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)
    assert "cnn-batch3.onnx" in run(folder, *words[:-1])


def test_data_writes_the_exchange_format(folder):
    np.savez(folder / "stacked.npz", image=np.random.default_rng(0).random((4, 3, 8, 8)).astype(np.float32))
    run(folder, "data", "stacked.npz", "--model", "cnn.onnx", "--out", "written")
    with np.load(folder / "written" / "00003.npz") as archive:
        assert archive["image"].shape == (1, 3, 8, 8)


@pytest.mark.parametrize("name", names("passes"))
def test_every_pass_has_a_command_with_help_on_every_option(folder, name):
    entry = json.loads(run(folder, "passes", name, "--json"))[0]
    shown = " ".join(run(folder, name, "--help").split())
    for option in entry["options"]:
        assert f"--{option['name'].replace('_', '-')}"[:12] in shown
        assert option["text"]


@pytest.mark.parametrize("words", [("passes",), ("targets",), ("doctor",), ("cache", "info"), ("zoo", "list")])
def test_commands_about_the_installation_print_tables_and_json(folder, words):
    assert len(run(folder, *words).splitlines()) >= 3 or words == ("cache", "info")
    assert json.loads(run(folder, *words, "--json"))


def test_the_cache_can_be_emptied(folder):
    run(folder, "remove-unused", "cnn.onnx", "--out", "same.onnx", "--cache", "other")
    assert json.loads(run(folder, "cache", "info", "--cache", "other", "--json"))["entries"] > 0
    run(folder, "cache", "clear", "--yes", "--cache", "other")
    assert json.loads(run(folder, "cache", "info", "--cache", "other", "--json"))["entries"] == 0


def test_interrupted_it_says_so_and_goes_on(folder):
    environment = {**os.environ, "ONNXOPT_CACHE": str(folder / "interrupted")}
    command = [sys.executable, "-m", "onnxopt", *OPTIMIZE, "-v"]
    process = subprocess.Popen(
        command, cwd=folder, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=listen_to_ctrl_c
    )
    while "verify rewrite" not in process.stderr.readline():
        time.sleep(0.01)
    process.send_signal(2)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command to go on" in told
    assert "Traceback" not in told
    again = run(folder, *OPTIMIZE, "--json", "--cache", "interrupted")
    steps = [step for candidate in json.loads(again)["candidates"] for step in candidate["steps"]]
    assert any(step["cached"] for step in steps)


HEAVY = ("onnx", "onnxruntime", "numpy", "torch", "openvino", "onnx_ir", "pydantic_core._nothing")


def test_help_loads_nothing_heavy():
    program = "import sys\nsys.argv = ['onnxopt', '--help']\nfrom onnxopt.cli.main import main\n"
    program += f"try:\n    main()\nexcept SystemExit:\n    pass\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip().endswith("[]")
    assert "optimize" in done.stdout


def test_importing_the_package_loads_nothing_heavy():
    program = f"import sys, onnxopt\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_help_shows_examples(folder):
    for words in (("optimize",), ("run",), ("export",), ("data",), ("compare",), ("rewrite",)):
        assert "Example" in run(folder, *words, "--help")


def test_global_options_may_stand_anywhere(folder):
    before = run(folder, "-q", "inspect", "cnn.onnx")
    after = run(folder, "inspect", "cnn.onnx", "-q")
    assert before == after


def test_completion_is_offered(folder):
    environment = {**os.environ, "_ONNXOPT_COMPLETE": "complete_bash", "COMP_WORDS": "onnxopt opt", "COMP_CWORD": "1"}
    program = "from onnxopt.cli.main import app; app(prog_name='onnxopt')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=60)
    assert "optimize" in done.stdout


def test_the_result_of_mlp_is_read_with_its_own_names(folder):
    saved(mlp(), folder / "mlp.onnx")
    assert "y: float32[batch,4]" in run(folder, "inspect", "mlp.onnx")


def test_the_version_is_told(folder):
    assert run(folder, "--version") == f"onnxopt {onnxopt.__version__}\n"
