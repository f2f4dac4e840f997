"""``onnxopt rewrite``: what it tells of its rules."""

import json
import subprocess
import sys

import pytest

from tests.cli.test_cli_commands import run
from tests.graphs import cnn, saved


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rewrite")
    saved(cnn(), folder / "cnn.onnx")
    return folder


def test_explain_tells_where_rules_fired_and_nearly_did(folder):
    for _ in ("made", "cached"):
        told = run(folder, "rewrite", "cnn.onnx", "--out", "small.onnx", "--explain")
        assert "fired at" in told
        assert "scale-into-layer" in told
        assert "1 nodes, 72 bytes fewer" in told


def test_explain_is_json_too(folder):
    told = json.loads(run(folder, "rewrite", "cnn.onnx", "--out", "small.onnx", "--explain", "--json"))
    assert [fired["rule"] for fired in told["rules"]["fired"]] == ["scale-into-layer"]
    assert told["nodes"] == 5
    assert "rules" not in json.loads(run(folder, "rewrite", "cnn.onnx", "--out", "small.onnx", "--json"))


def test_one_rule_alone_is_explained(folder):
    told = run(folder, "rewrite", "cnn.onnx", "--out", "small.onnx", "--rule", "layer-norm")
    assert "no rule fired" in told
    assert "scale-into-layer" not in told


@pytest.mark.parametrize("words", [("--rule", "layer-nrm"), ("--only", "layer-nrm"), ("--skip", "layer-nrm")])
def test_an_unknown_rule_is_an_error_with_a_suggestion(folder, words):
    command = [sys.executable, "-m", "onnxopt", "rewrite", "cnn.onnx", "--out", "none.onnx", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode in (1, 2)
    assert "did you mean 'layer-norm'?" in done.stderr
    assert not (folder / "none.onnx").exists()


def test_rules_can_be_left_out(folder):
    told = json.loads(run(folder, "rewrite", "cnn.onnx", "--out", "small.onnx", "--skip", "affine", "--json"))
    assert told["nodes"] == 6
