"""Warnings are seen by default, a few of them; all where asked for, none with --quiet, and JSON stays JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from onnxopt.cli.output import Settings
from onnxopt.cli.progress import Reporter
from onnxopt.context import Warned
from onnxopt.data.files import write_samples
from onnxopt.data.sample import InMemory, Sample
from tests.graphs import from_text, samples, saved


def _told(capsys: pytest.CaptureFixture[str], count: int, settings: Settings) -> list[str]:
    with Reporter(settings) as listen:
        for index in range(count):
            listen(Warned(f"tensor [{index}] is odd"))
            listen(Warned(f"tensor [{index}] is odd"))
    found = capsys.readouterr()
    assert found.out == ""
    return [line.strip() for line in found.err.splitlines()]


def test_one_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert _told(capsys, 1, Settings()) == ["1 warning:", "tensor [0] is odd"]


def test_of_many_the_first_three_are_told_and_how_to_see_all(capsys: pytest.CaptureFixture[str]) -> None:
    few = [f"tensor [{index}] is odd" for index in range(3)]
    assert _told(capsys, 5, Settings()) == ["5 warnings, of which the first:", *few, "--verbose tells all"]
    assert _told(capsys, 3, Settings()) == ["3 warnings:", *few]


def test_verbose_tells_each_as_it_comes_and_quiet_none(capsys: pytest.CaptureFixture[str]) -> None:
    verbose = _told(capsys, 5, Settings(verbose=True))
    assert set(verbose) == {f"warning: tensor [{index}] is odd" for index in range(5)}
    assert _told(capsys, 5, Settings(quiet=True)) == _told(capsys, 0, Settings()) == []


def test_they_are_told_even_if_the_command_fails(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with Reporter(Settings()) as listen:
            listen(Warned("it is odd"))
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert "it is odd" in capsys.readouterr().err


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A product, and samples that hold a mask."""
    folder = tmp_path_factory.mktemp("warnings")
    weight = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    model = from_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 8] x) => (float[n, 8] y) { y = MatMul (x, w) }',
        {"w": weight},
    )
    saved(model, folder / "model.onnx")
    feeds = np.ones((2, 8), np.float32)
    feeds[0, 0] = -3e38
    write_samples(InMemory((*samples(model, 3), Sample("odd", {"x": feeds}))), folder / "data")
    return folder


def _run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ONNXOPT_CACHE": str(folder / "cache"), "COLUMNS": "200"}
    command = [sys.executable, "-m", "onnxopt", "quantize-static", "model.onnx", "--data", "data", "--out", "q.onnx"]
    how = {"cwd": folder, "capture_output": True, "text": True, "env": environment, "timeout": 300}
    return subprocess.run([*command, *words], check=True, **how)


def test_a_command_tells_them_beside_its_result_and_again_from_the_cache(folder: Path) -> None:
    first, again = _run(folder, "--json"), _run(folder, "--json")
    assert [json.loads(done.stdout)["steps"][-1]["cached"] for done in (first, again)] == [False, True]
    for done in (first, again):
        head, text = done.stderr.splitlines()
        assert head == "1 warning:"
        assert text.strip().endswith("of 'x' are masks beyond 1e30; its range is that of the other values")
    quiet = _run(folder, "--quiet")
    assert "masks" not in quiet.stdout + quiet.stderr
