"""Whatever is done to a file: it is refused in the words of onnxopt, or what is read from it is a whole model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxopt.errors import ModelError, OnnxoptError
from onnxopt.ir.check import check_structure
from onnxopt.ir.model import Model
from onnxopt.ir.read import read_model
from onnxopt.ir.write import write_model
from tests.graphs import cnn, from_text, mlp, saved

BRANCHES = from_text(
    """<ir_version: 8, opset_import: ["" : 17]>
    branches (bool c, float[n] x) => (float[n] y) {
        y = If (c) <then_branch = t () => (float[n] a) { k = Constant <value = float[3] {1, 2, 3}> () a = Add (x, k) },
                    else_branch = e () => (float[n] b) { b = Mul (x, w) }>
    }""",
    {"w": np.arange(3, dtype=np.float32)},
)
FUNCTION = from_text(
    """<ir_version: 8, opset_import: ["" : 17, "me" : 1]>
    function (float[n] x) => (float[n] y) { y = me.Twice (x) }
    <domain: "me", opset_import: ["" : 17]> Twice (a) => (b) { b = Add (a, a) }"""
)
MODELS = {"mlp": mlp(width=3), "cnn": cnn(), "branches": BRANCHES, "function": FUNCTION}
FUNCTIONS_LAST = {"function"}
"""Cut just before its functions, such a file is a whole model without them, and nothing tells that they are gone."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damage")


def _bytes(name: str, folder: Path) -> bytes:
    return saved(MODELS[name], folder / f"{name}.onnx").read_bytes()


def _attempt(path: Path) -> Model | OnnxoptError:
    try:
        return read_model(path)
    except OnnxoptError as error:
        return error


def _refused_or_whole(content: bytes, folder: Path) -> None:
    """Fail unless the content is refused, or makes a model that can be used and written."""
    path = folder / "damaged.onnx"
    path.write_bytes(content)
    result = _attempt(path)
    if isinstance(result, OnnxoptError):
        assert result.hint
        assert str(path) in f"{result.what} {result.where}"
        return
    check_structure(result.graph, "damaged")
    assert len(result.signature.outputs) >= 1
    (written,) = write_model(result, folder / "again.onnx")
    assert read_model(written).digest == result.digest


@pytest.mark.parametrize("name", sorted(MODELS.keys() - FUNCTIONS_LAST))
def test_no_cut_file_is_taken(name: str, folder: Path) -> None:
    whole = _bytes(name, folder)
    path = folder / "cut.onnx"

    for length in range(0, len(whole), max(1, len(whole) // 200)):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError):
            read_model(path)


def test_no_cut_external_data_is_taken(folder: Path) -> None:
    path, data = write_model(mlp(), folder / "outside.onnx", external_above=0)
    whole = data.read_bytes()

    for length in range(0, len(whole), 16):
        data.write_bytes(whole[:length])
        with pytest.raises(ModelError, match="bytes at offset"):
            read_model(path)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(MODELS)),
    flips=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_changed_bytes(name: str, flips: list[tuple[int, int]], folder: Path) -> None:
    content = bytearray(_bytes(name, folder))
    for place, byte in flips:
        content[place % len(content)] = byte

    _refused_or_whole(bytes(content), folder)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(MODELS)),
    start=st.integers(0, 1 << 20),
    removed=st.integers(0, 40),
    inserted=st.binary(max_size=8),
)
def test_removed_and_inserted_bytes(name: str, start: int, removed: int, inserted: bytes, folder: Path) -> None:
    content = _bytes(name, folder)
    start %= len(content)

    _refused_or_whole(content[:start] + inserted + content[start + removed :], folder)
