"""The passes ``cast-float16`` and ``cast-bfloat16``: what is stored and computed in sixteen bits, and what is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest

from onnxopt.context import Context
from onnxopt.data.sample import InMemory, Sample, Samples
from onnxopt.errors import PassError
from onnxopt.evaluate.drift import compare_outputs
from onnxopt.ir.check import checker_complaint
from onnxopt.ir.model import Model
from onnxopt.passes import make_pass
from tests.graphs import answers, cnn, from_text, mlp, node_lines, samples, saved

F32 = np.float32
FLOAT, HALF = onnx_ir.DataType.FLOAT, onnx_ir.DataType.FLOAT16
HEADER = '<ir_version: 8, opset_import: ["" : 17]> g '


def _cast(model: Model, name: str = "cast-float16", **options: Any) -> Model:
    return make_pass(name, options)(model, Context.of())


def _sqnr(before: Model, after: Model, data: Samples | None = None) -> float:
    pairs = ((answers(before, one.feeds), answers(after, one.feeds)) for one in data or samples(before, 4))
    found = compare_outputs(pairs).sqnr_db
    assert found is not None
    return found


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(F32)


def _types(model: Model) -> dict[str, onnx_ir.DataType | None]:
    """Return the type each operator but Cast computes in."""
    nodes = [node for node in model.graph.graph if node.op_type != "Cast"]
    return {node.outputs[0].name or "": node.inputs[0].dtype for node in nodes if node.inputs[0] is not None}


@pytest.mark.parametrize(("name", "decibels"), [("cast-float16", 60), ("cast-bfloat16", 40)])
def test_storage_halves_the_file_and_computes_in_float32(name: str, decibels: float, tmp_path: Path) -> None:
    model = from_text(
        HEADER + "(float[n, 64] x) => (float[n, 64] y) { a = MatMul (x, w) b = Relu (a) y = MatMul (b, v) }",
        {"w": _random(64, 64), "v": _random(64, 64)},
    )
    after = _cast(model, name)
    sizes = [saved(one, tmp_path / f"{one.digest}.onnx").stat().st_size for one in (after, model)]
    assert sizes[0] < 0.55 * sizes[1]
    assert {node.op_type for node in after.graph.graph} == {"Cast", "MatMul", "Relu"}
    assert after.operators["Cast"] == 2
    assert decibels < _sqnr(model, after) < 100


def test_small_weights_stay_as_they_are_in_storage() -> None:
    after = _cast(cnn())
    assert {name: value.dtype for name, value in after.graph.graph.initializers.items() if "w" in name} == {
        "w1": FLOAT,
        "w2_float16": HALF,
    }


@pytest.mark.parametrize("build", [cnn, lambda: mlp(width=64)], ids=["cnn", "mlp"])
def test_compute_moves_operators_and_keeps_the_interface(build: Callable[[], Model]) -> None:
    model = build()
    after = _cast(model, mode="compute", keep=())
    assert after.signature == model.signature
    assert set(_types(after).values()) == {HALF}
    assert after.operators["Cast"] == 2
    assert 55 < _sqnr(model, after) < 100


def test_bfloat16_computes_in_bfloat16() -> None:
    """No ONNX Runtime kernel for the CPU takes it, so the model is only checked."""
    after = _cast(mlp(), "cast-bfloat16", mode="compute", keep=())
    assert set(_types(after).values()) == {onnx_ir.DataType.BFLOAT16}
    assert checker_complaint(after.graph) is None


@pytest.mark.parametrize("keep", [("Softmax",), ("node_3",)], ids=["by-operator", "by-name"])
def test_what_is_named_stays_in_float32(keep: tuple[str, ...]) -> None:
    model = mlp(width=64)
    after = _cast(model, mode="compute", keep=keep)
    types = _types(after)
    assert types.pop("y") == FLOAT
    assert set(types.values()) == {HALF}
    assert _sqnr(model, after) > 55


def test_a_node_kept_in_the_middle_gets_casts_on_both_sides() -> None:
    after = _cast(mlp(width=64), mode="compute", keep=("Relu",))
    assert [node.op_type for node in after.graph.graph] == [
        "Cast",
        "Gemm",
        "Cast",
        "Relu",
        "Cast",
        "Gemm",
        "Softmax",
        "Cast",
    ]


def test_coordinates_stay_in_float32() -> None:
    model = from_text(
        HEADER
        + """(float[n, 3, 4, 4] x) => (float[n, 3, a, b] y) {
            c = Conv <pads = [1, 1, 1, 1]> (x, w)
            u = Resize <mode = "linear"> (c, , scales)
            y = Conv <pads = [1, 1, 1, 1]> (u, w)
        }""",
        {"w": _random(3, 3, 3, 3), "scales": np.array([1, 1, 2, 2], F32)},
    )
    after = _cast(model, mode="compute")
    assert _types(after)["u"] == FLOAT
    assert _sqnr(model, after) > 55


@pytest.mark.parametrize(
    ("mode", "factor"), [("storage", 1e5), ("compute", 1e5), ("compute", 1e-12)], ids=["storage", "large", "epsilon"]
)
def test_weights_that_do_not_fit_stay(mode: str, factor: float) -> None:
    """Beyond 65504 float16 is infinite; an epsilon of 1e-12 would become zero."""
    model = from_text(
        HEADER + "(float[n, 32] x) => (float[m, n, 32] y) { a = MatMul (x, w) b = Mul (a, v) y = Div (b, v) }",
        {"w": _random(32, 32), "v": np.full((16, 1, 32), factor, F32)},
    )
    after = _cast(model, mode=mode)
    assert {name: value.dtype for name, value in after.graph.graph.initializers.items()} == {
        "v": FLOAT,
        "w_float16": HALF,
    }
    assert _sqnr(model, after) > 55


def test_bfloat16_has_room_for_large_weights() -> None:
    model = from_text(
        HEADER + "(float[n, 32] x) => (float[n, 32] y) { y = MatMul (x, w) }", {"w": _random(32, 32) * F32(1e30)}
    )
    assert "w_bfloat16" in _cast(model, "cast-bfloat16").graph.graph.initializers


def test_integers_and_outputs_read_twice() -> None:
    model = from_text(
        HEADER
        + """(float[n, 32] x) => (float[n, 32] a, float[n, 32] y, int64[n] best, float[n, 32] copy) {
            a = MatMul (x, w)
            y = Relu (a)
            best = ArgMax <axis = 1, keepdims = 0> (y)
            copy = Identity (x)
        }""",
        {"w": _random(32, 32)},
    )
    after = _cast(model, mode="compute")
    assert after.signature == model.signature
    feeds = samples(model, 1)[0].feeds
    want, have = answers(model, feeds), answers(after, feeds)
    np.testing.assert_array_equal(have["best"], want["best"])
    np.testing.assert_allclose(have["copy"], want["copy"], rtol=1e-3)
    assert _sqnr(model, after) > 55


BRANCHES = """(bool c, float[n, 32] x) => (float[n, 32] z) {
    h = MatMul (x, w)
    y = If (c) <
        then_branch = t () => (float[n, 32] a) { a = MatMul (h, v) },
        else_branch = e () => (float[n, 32] b) { b = Neg (h) }
    >
    z = Relu (y)
}"""
LOOP = """(int64 c, float[n, 32] x) => (float[n, 32] z) {
    h = MatMul (x, w)
    y = Loop (c, , h) <body = b (int64 i, bool g, float[n, 32] s) => (bool g_out, float[n, 32] s_out) {
        g_out = Identity (g)
        s_out = MatMul (s, v)
    }>
    z = Relu (y)
}"""


@pytest.mark.parametrize("mode", ["storage", "compute"])
@pytest.mark.parametrize("text", [BRANCHES, LOOP], ids=["if", "loop"])
def test_what_branches_and_loops_return_stays_in_float32(text: str, mode: str) -> None:
    model = from_text(HEADER + text, {"w": _random(32, 32), "v": _random(32, 32)})
    dtype = model.signature.input("c").dtype
    data = InMemory(tuple(Sample("", {"c": np.array(i, dtype), "x": _random(2, 32)}) for i in range(3)))
    after = _cast(model, mode=mode)
    assert after.graph.graph.initializers["w_float16"].dtype == HALF
    assert _sqnr(model, after, data) > 45


def test_a_model_of_sixteen_bits_is_refused() -> None:
    with pytest.raises(PassError, match="there is nothing to cast: the model has no float32 weights"):
        _cast(_cast(mlp(), mode="compute"))


def test_the_text_of_a_cast_model() -> None:
    model = from_text(HEADER + "(float[n, 32] x) => (float[n, 32] y) { y = MatMul (x, w) }", {"w": _random(32, 32)})
    assert node_lines(_cast(model))[1:] == ["y = MatMul (x, val_0)"]
    assert node_lines(_cast(model, mode="compute")) == [
        "x_float16 = Cast (x)",
        "y_float16_made = MatMul (x_float16, w_float16)",
        "y = Cast (y_float16_made)",
    ]
