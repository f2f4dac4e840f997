"""The passes ``cast-float16`` and ``cast-bfloat16`` in computing mode: what leaves the range, masks, sums, types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
from onnx.reference import ReferenceEvaluator

from onnxopt.context import Context, Event, Missed
from onnxopt.data.sample import InMemory, Sample, Samples
from onnxopt.evaluate.drift import compare_outputs
from onnxopt.ir.model import Model
from onnxopt.passes import make_pass
from tests.graphs import answers, from_text, samples

F32 = np.float32
FLOAT, HALF = onnx_ir.DataType.FLOAT, onnx_ir.DataType.FLOAT16
HEADER = '<ir_version: 8, opset_import: ["" : 17]> g '


def _cast(model: Model, **options: Any) -> Model:
    return make_pass("cast-float16", {"mode": "compute", **options})(model, Context.of())


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(F32)


def _type_of(model: Model, made: str) -> onnx_ir.DataType | None:
    """Return the type in which a tensor is computed."""
    producers = {value.name: node for node in model.graph.graph for value in node.outputs}
    given = producers[made].inputs[0]
    return None if given is None else given.dtype


def _told(model: Model, data: Samples | None, folder: Path, name: str = "cast-float16") -> tuple[Model, dict[str, str]]:
    """Return the model computing in sixteen bits, and why nodes stayed, by what they make."""
    told: list[Event] = []
    ctx = Context.of(data=data, scratch=folder, emit=told.append)
    after = make_pass(name, {"mode": "compute"})(model, ctx)
    made = {node.name: node.outputs[0].name or "" for node in model.graph.graph}
    return after, {made.get(event.node, ""): event.reason for event in told if isinstance(event, Missed)}


def _reference(model: Model, feeds: Any) -> dict[str, np.ndarray]:
    """Return what ONNX's own evaluator computes: ONNX Runtime lacks most of these kernels for CPUs, and drops Casts."""
    names = [output.name for output in model.signature.outputs]
    return dict(zip(names, ReferenceEvaluator(onnx_ir.to_proto(model.graph)).run(names, dict(feeds)), strict=True))


def _reference_sqnr(before: Model, after: Model, data: Samples) -> float:
    found = compare_outputs((answers(before, one.feeds), _reference(after, one.feeds)) for one in data).sqnr_db
    assert found is not None
    return found


def _loud(size: float) -> Model:
    """Return two products between which numbers are of a size, all weights being near 1."""
    scale = np.full(32, np.sqrt(size), F32)
    text = """(float[n, 32] x) => (float[n, 32] y) {
        a = MatMul (x, w) b = Mul (a, s) c = Mul (b, s) d = Mul (c, t) e = Mul (d, t) y = MatMul (e, w)
    }"""
    return from_text(HEADER + text, {"w": _random(32, 32) / 6, "s": scale, "t": 1 / scale})


def test_numbers_that_overflow_stay_in_float32_where_samples_show_them(tmp_path: Path) -> None:
    model = _loud(1e5)
    data = samples(model, 4)
    assert not np.isfinite(_reference(_cast(model), data[0].feeds)["y"]).all()
    after, told = _told(model, data, tmp_path)
    assert _reference_sqnr(model, after, samples(model, 4, seed=9)) > 50
    assert list(told) == ["c", "d"]
    assert all(text.startswith("tensor 'c' reached ") for text in told.values())
    reached = float(told["c"].split()[3].rstrip(","))
    assert abs(reached) == pytest.approx(max(np.abs(_inside(model, one.feeds, "c")).max() for one in data), rel=1e-3)
    assert _type_of(after, "y_float16_made") == HALF


def _inside(model: Model, feeds: Any, name: str) -> np.ndarray:
    graph = model.graph.clone()
    graph.graph.outputs.append(next(v for node in graph.graph for v in node.outputs if v.name == name))
    return answers(Model(graph), feeds)[name]


@pytest.mark.parametrize(("size", "stays"), [(3000.0, False), (15000.0, True)])
def test_numbers_within_twice_the_range_stay(size: float, stays: bool, tmp_path: Path) -> None:
    """Four times 15000 still fits, yet an input that was not among the samples may be twice as large."""
    model = _loud(size)
    data = samples(model, 2)
    largest = max(np.abs(_inside(model, one.feeds, "c")).max() for one in data)
    assert largest < 65504
    assert (largest * 2 > 65504) == stays
    after, told = _told(model, data, tmp_path)
    assert bool(told) == stays
    assert _reference_sqnr(model, after, data) > 50


def test_numbers_too_small_for_all_their_bits_stay(tmp_path: Path) -> None:
    """Below 6.1e-5 float16 has ever fewer bits; bfloat16 has them all."""
    model = _loud(1e-7)
    data = samples(model, 4)
    blind = _cast(model, keep=())
    after, told = _told(model, data, tmp_path)
    assert _reference_sqnr(model, blind, data) < 20
    assert _reference_sqnr(model, after, data) > 50
    assert "is mostly below 6.1e-05, where float16 loses bits" in told["c"]
    assert _told(model, data, tmp_path, "cast-bfloat16")[1] == {}


ATTENTION = """(float[n, 8, 16] x, bool[n, 1, 8] hidden) => (float[n, 8, 16] y) {
    t = Transpose <perm = [0, 2, 1]> (x)
    s = MatMul (x, t)
    m = Where (hidden, mask, zero)
    v = Add (s, m)
    p = Softmax <axis = -1> (v)
    q = MatMul (p, x)
    y = MatMul (q, w)
}"""


@pytest.mark.parametrize("name", ["cast-float16", "cast-bfloat16"])
@pytest.mark.parametrize("mask", [float(np.finfo(F32).min), -1e38, -np.inf], ids=["lowest", "-1e38", "-inf"])
def test_masks_of_a_softmax_are_softened(name: str, mask: float, tmp_path: Path) -> None:
    weights = {"mask": np.array(mask, F32), "zero": np.array(0, F32), "w": _random(16, 16)}
    model = from_text(HEADER + ATTENTION, weights)
    random, hidden = np.random.default_rng(1), np.zeros((2, 1, 8), bool)
    hidden[:, :, 5:] = True
    feeds = {"x": random.standard_normal((2, 8, 16)).astype(F32), "hidden": hidden}
    data = InMemory((Sample("", feeds),))
    after, told = _told(model, None, tmp_path, name)
    assert told == {"p": "Softmax is kept in float32"}
    assert _reference_sqnr(model, after, data) > (50 if name == "cast-float16" else 20)
    numbers = [v.const_value.numpy() for v in after.graph.graph.initializers.values() if v.const_value is not None]
    assert all(np.isfinite(array.astype(F32)).all() for array in numbers) or mask == -np.inf


def test_a_row_in_which_all_is_masked_stays_finite() -> None:
    weights = {"mask": np.array(np.finfo(F32).min, F32), "zero": np.array(0, F32), "w": _random(16, 16)}
    after = _cast(from_text(HEADER + ATTENTION, weights))
    feeds = {"x": _random(2, 8, 16) * F32(8), "hidden": np.ones((2, 1, 8), bool)}
    assert np.isfinite(_reference(after, feeds)["y"]).all()


def test_masks_that_come_as_an_input_stay_in_float32(tmp_path: Path) -> None:
    """No constant can be softened, and as -inf a row in which all is masked would become NaN."""
    text = """(float[n, 8, 8] s, float[n, 1, 8] mask) => (float[n, 8, 8] y) {
        t = MatMul (s, w) v = Add (t, mask) y = Softmax <axis = -1> (v)
    }"""
    model = from_text(HEADER + text, {"w": _random(8, 8)})
    feeds = {"s": _random(2, 8, 8), "mask": np.where(np.arange(8) < 6, 0, np.finfo(F32).min).astype(F32)[None, None]}
    _, told = _told(model, InMemory((Sample("", {**feeds, "mask": np.repeat(feeds["mask"], 2, 0)}),)), tmp_path)
    assert told["v"] == "tensor 'mask' took masks beyond 1e+30, which are infinite in float16"
    assert "t" not in told


def test_a_large_constant_that_is_no_mask_stays(tmp_path: Path) -> None:
    text = "(float[n, 8] x) => (float[n, 8] y) { a = Mul (x, big) b = Tanh (a) y = MatMul (b, w) }"
    weights = {"big": np.full(8, np.finfo(F32).min, F32), "w": _random(8, 8)}
    after, told = _told(from_text(HEADER + text, weights), None, tmp_path)
    assert told == {"a": "constant 'big' does not fit float16"}
    assert after.graph.graph.initializers["big"].dtype == FLOAT


def test_what_an_attribute_types_stays() -> None:
    """ConstantOfShape and Cast make what their attribute says."""
    model = from_text(
        HEADER
        + """(float[n, 32] x, int64[n, 32] k) => (float[n, 32] y) {
            d = Shape (x)
            z = ConstantOfShape (d)
            c = Cast <to = 1> (k)
            a = Add (x, z)
            b = Add (a, c)
            y = MatMul (b, w)
        }""",
        {"w": _random(32, 32)},
    )
    after = _cast(model)
    data = InMemory((Sample("", {"x": _random(2, 32), "k": np.arange(64).reshape(2, 32)}),))
    assert _reference_sqnr(model, after, data) > 50


def test_sums_of_many_numbers_stay_in_float32() -> None:
    text = "(float[n, 32] x) => (float[n, 1] y) { a = MatMul (x, w) y = ReduceSum (a, axes) }"
    model = from_text(HEADER + text, {"w": _random(32, 32), "axes": np.array([1])})
    assert _type_of(_cast(model), "y") == FLOAT
