"""``onnxopt explain``, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from onnxopt.context import Context
from onnxopt.data.files import write_samples
from onnxopt.passes import make_pass
from tests.graphs import cnn, from_text, samples, saved


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with samples, and one that has no layer."""
    folder = tmp_path_factory.mktemp("explain")
    saved(cnn(), folder / "cnn.onnx")
    write_samples(samples(cnn(), 24, seed=1), folder / "data")
    nothing = from_text('<ir_version: 8, opset_import: ["" : 17]> g (float[n] x) => (float[n] y) { y = Relu (x) }')
    saved(nothing, folder / "relu.onnx")
    return folder


def run(folder: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ONNXOPT_CACHE": str(folder / "cache"), "COLUMNS": "200"}
    command = [sys.executable, "-m", "onnxopt", "explain", *words]
    how = {"cwd": folder, "capture_output": True, "text": True, "env": environment, "timeout": 300}
    done = subprocess.run(command, check=False, **how)
    assert done.returncode == code, done.stderr
    return done


def test_it_lists_the_layers_and_tells_the_whole(folder: Path) -> None:
    told = run(folder, "cnn.onnx", "--data", "data", "--worst", "1").stdout
    assert "with all layers rounded, the lowest output keeps" in told
    assert told.count("Conv") >= 2


def test_as_json_it_has_every_layer_with_its_figures(folder: Path) -> None:
    found = json.loads(run(folder, "cnn.onnx", "--data", "data", "--json").stdout)
    assert len(found["layers"]) == 2
    for layer in found["layers"]:
        assert layer["sqnr_db"] > 20
        assert layer["cause"]
        assert layer["restored_db"] > found["sqnr_db"] - 1
    assert len(found["portability"]["layers"]) == 2


@pytest.fixture(scope="module")
def quantized(folder: Path) -> str:
    """A file of the model in 8 bits."""
    model = make_pass("quantize-static")(cnn(), Context.of(data=samples(cnn(), 8, seed=1), scratch=folder))
    saved(model, folder / "int8.onnx")
    return "int8.onnx"


def test_of_a_quantized_model_it_tells_what_other_cpus_compute(folder: Path, quantized: str) -> None:
    told = run(folder, quantized, "--data", "data").stdout
    assert "on x86 CPUs without VNNI" in told
    assert "8 bits save" not in told
    found = json.loads(run(folder, quantized, "--data", "data", "--json").stdout)
    assert found["sqnr_db"] is None
    assert found["layers"] == []
    assert [layer["operator"] for layer in found["portability"]["layers"]] == ["Conv", "Conv"]
    assert all(layer["narrow_db"] > 20 for layer in found["portability"]["layers"])


def test_a_page_is_written_where_it_is_asked_for(folder: Path, quantized: str) -> None:
    told = run(folder, "cnn.onnx", "--data", "data", "--worst", "0", "--report", "layers.html").stdout
    assert "wrote layers.html" in told
    assert "Noise against time saved" in (folder / "layers.html").read_text()
    assert "end it in .html" in run(folder, quantized, "--report", "layers.txt", code=2).stderr


def test_made_up_inputs_are_told(folder: Path) -> None:
    assert "the inputs are made up" in run(folder, "cnn.onnx", "--worst", "0").stdout


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("none.onnx",), 2, "there is no file none.onnx"),
        (("relu.onnx",), 1, "there is nothing to quantize"),
        (("cnn.onnx", "--option", "bits=3"), 2, "there is no option 'bits'"),
        (("cnn.onnx", "--data", "nowhere"), 2, "there is no data at nowhere"),
    ],
)
def test_bad_input_is_told(folder: Path, words: tuple[str, ...], code: int, text: str) -> None:
    assert text in run(folder, *words, code=code).stderr
