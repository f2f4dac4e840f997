"""``onnxopt quantize``, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from onnxopt.data.files import write_samples
from onnxopt.data.sample import InMemory, Sample
from onnxopt.ir.read import read_model
from tests.graphs import cnn, mlp, samples, saved


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with calibration and evaluation samples, and some that are no good."""
    folder = tmp_path_factory.mktemp("quantize")
    saved(cnn(), folder / "cnn.onnx")
    write_samples(samples(cnn(), 24, seed=1), folder / "data" / "calibration")
    write_samples(samples(cnn(), 24, seed=2), folder / "data" / "evaluation")
    nan = np.full((2, 3, 8, 8), np.nan, np.float32)
    write_samples(InMemory((Sample("nan", {"image": nan}),)), folder / "nan" / "calibration")
    write_samples(samples(cnn(), 6, seed=2), folder / "nan" / "evaluation")
    return folder


def run(folder: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ONNXOPT_CACHE": str(folder / "cache"), "COLUMNS": "200"}
    command = [sys.executable, "-m", "onnxopt", "quantize", *words, "--effort", "quick"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=environment, timeout=300, check=False
    )
    assert done.returncode == code, done.stderr
    return done


def test_a_scheme_is_applied_measured_and_written(folder: Path) -> None:
    told = run(folder, "cnn.onnx", "--data", "data", "--scheme", "int8", "--out", "int8.onnx").stdout
    assert "rewrite > quantize-static in ort" in told
    assert "wrote int8.onnx" in told
    after = read_model(folder / "int8.onnx")
    assert "QuantizeLinear" in after.operators
    assert after.signature == cnn().signature


def test_auto_tells_what_was_tried(folder: Path) -> None:
    told = run(folder, "cnn.onnx", "--data", "data", "--out", "auto.onnx", "--json").stdout
    record = json.loads(told)
    names = [candidate["name"] for candidate in record["candidates"]]
    assert names[0] == "input"
    assert any(name.endswith("int8 in ort") for name in names)
    assert read_model(folder / "auto.onnx").signature == cnn().signature


def test_where_the_budget_is_missed_nothing_is_written(folder: Path) -> None:
    words = ("cnn.onnx", "--data", "data", "--scheme", "int8", "--min-sqnr", "90", "--out", "close.onnx")
    done = run(folder, *words, code=3)
    assert "the result loses too much" in done.stderr
    assert not (folder / "close.onnx").exists()


def test_for_another_machine_accuracy_is_told_and_speed_is_not(folder: Path) -> None:
    words = ("cnn.onnx", "--data", "data", "--scheme", "int8", "--target", "arm64-dot", "--out", "arm.onnx")
    told = run(folder, *words).stdout
    assert "rewrite > quantize-static in ort: speed was not measured" in told
    assert "note: int8 for arm64-dot: uint8 activations" in told
    assert "faster" not in told
    assert read_model(folder / "arm.onnx").signature == cnn().signature


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("cnn.onnx", "--out", "x.onnx", "--scheme", "int9"), 2, "there is no scheme 'int9'"),
        (("cnn.onnx", "--out", "x.onnx", "--runtime", "tensorrt"), 2, "target 'local' has no runtime 'tensorrt'"),
        (("cnn.onnx", "--out", "x.onnx", "--target", "x86-avx2"), 2, "speed on 'x86-avx2' cannot be measured"),
        (("cnn.onnx", "--out", "x.onnx", "--target", "x86-avx3"), 2, "did you mean 'x86-avx2'?"),
        (("none.onnx", "--out", "x.onnx"), 2, "none.onnx"),
        (("cnn.onnx", "--data", "nan", "--scheme", "int8", "--out", "x.onnx"), 1, "NaN"),
        (("cnn.onnx", "--data", "data", "--out", "cnn.onnx"), 2, "cnn.onnx"),
    ],
)
def test_bad_input_is_told_and_nothing_is_written(folder: Path, words: tuple[str, ...], code: int, text: str) -> None:
    before = (folder / "cnn.onnx").read_bytes()
    assert text in run(folder, *words, code=code).stderr
    assert not (folder / "x.onnx").exists()
    assert (folder / "cnn.onnx").read_bytes() == before


def test_every_pass_is_a_command_that_tells_what_it_left(folder: Path) -> None:
    saved(mlp(width=640), folder / "mlp.onnx")
    environment = {**os.environ, "ONNXOPT_CACHE": str(folder / "cache"), "COLUMNS": "200"}
    words = ["quantize-weights", "mlp.onnx", "--bits", "8", "--out", "weights.onnx", "--explain"]
    command = [sys.executable, "-m", "onnxopt", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "com.microsoft::MatMulNBits" in read_model(folder / "weights.onnx").operators
    assert "too few to be worth it" in done.stdout


def test_a_quantized_model_is_not_quantized_again(folder: Path) -> None:
    run(folder, "cnn.onnx", "--data", "data", "--scheme", "int8", "--out", "once.onnx")
    done = run(folder, "once.onnx", "--data", "data", "--scheme", "int8", "--out", "twice.onnx", code=1)
    assert "the model is quantized already" in done.stderr
