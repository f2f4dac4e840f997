"""Roundings of weights to blocks, held against plain numpy and each other, and the samples some of them look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest

from onnxopt.context import Context, Event, Missed
from onnxopt.data.sample import InMemory, Sample
from onnxopt.errors import DataError, PassError
from onnxopt.evaluate import gram
from onnxopt.ir.model import Model
from onnxopt.ir.weights import constant_tensor
from onnxopt.passes import make_pass
from onnxopt.quantize.awq import find_scales
from onnxopt.quantize.blocks import block_scheme, read_back
from onnxopt.quantize.roundings import Rounding, to_blocks
from tests.graphs import answers, from_text

F32 = np.float32
HEADER = '<ir_version: 8, opset_import: ["" : 17]> g '
SCHEME = block_scheme(4, 16, symmetric=False)
SIZE = 64

NORMED = (
    HEADER
    + """(float[n, 64] x) => (float[n, 64] y) {
        h = Mul (gain, x)
        a = MatMul (h, w)
        b = MatMul (h, v)
        c = Mul (a, b)
        y = MatMul (c, u)
    }"""
)


def _random(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(F32)


def _correlated(rows: int = 400, seed: int = 1) -> Any:
    """Return vectors that mostly lie in few directions, as activations do."""
    return _random(rows, 6, seed=seed) @ _random(6, SIZE, seed=seed + 1) + 0.1 * _random(rows, SIZE, seed=seed + 2)


def _loud(rows: int = 200, seed: int = 1) -> Any:
    """Return vectors with two inputs much larger than the others."""
    return _random(rows, SIZE, seed=seed) * np.where(np.isin(np.arange(SIZE), (3, 40)), 30, 1).astype(F32)


def _samples(*arrays: Any) -> InMemory:
    return InMemory(tuple(Sample(str(index), {"x": array}) for index, array in enumerate(arrays)))


def _normed(text: str = NORMED) -> Model:
    given = {name: _random(SIZE, SIZE, seed=seed) / 8 for seed, name in enumerate("wvu")}
    return from_text(text, {**given, "gain": np.linspace(0.5, 2, SIZE, dtype=F32)})


def _off(weight: Any, rounding: Rounding, x: Any) -> float:
    back = read_back(to_blocks(weight, SCHEME, rounding, x.T @ x), weight.shape[1])
    return float(np.square(x @ (back - weight).T).sum())


def test_gptq_makes_up_for_errors_where_inputs_go_together() -> None:
    weight, x = _random(24, SIZE), _correlated()
    assert _off(weight, "gptq", x) < 0.5 * _off(weight, "clipped", x)
    unseen = _correlated(seed=1)[::-1] * -0.7
    assert _off(weight, "gptq", unseen) < 0.5 * _off(weight, "clipped", unseen)


def test_gptq_rounds_to_the_nearest_where_inputs_have_nothing_in_common() -> None:
    weight = _random(24, SIZE)
    nearest, made = (to_blocks(weight, SCHEME, one, np.eye(SIZE, dtype=F32)) for one in ("clipped", "gptq"))
    assert np.array_equal(made.stored, nearest.stored)
    assert np.array_equal(made.scale, nearest.scale)


def test_gptq_bears_inputs_that_never_vary_and_blocks_that_are_not_whole() -> None:
    weight, x = _random(8, 40), _random(50, 40)
    x[:, 7] = 0
    assert _finite_off(weight, x)
    assert _finite_off(weight, np.zeros_like(x))


def _finite_off(weight: Any, x: Any) -> bool:
    back = read_back(to_blocks(weight, SCHEME, "gptq", x.T @ x), weight.shape[1])
    return back.shape == weight.shape and bool(np.abs(back - weight).max() < 1)


def test_clipped_counts_what_is_loud() -> None:
    weight, x = _random(24, SIZE), _loud()
    assert _off(weight, "awq", x) < 0.8 * _off(weight, "clipped", x)


def test_hqq_lowers_the_norm_it_is_for_and_leaves_what_lies_on_the_grid() -> None:
    weight = _random(24, SIZE)
    weight[::3, ::16] *= 4

    def norm(rounding: Rounding) -> float:
        return float((np.abs(read_back(to_blocks(weight, SCHEME, rounding), SIZE) - weight) ** 0.7).sum())

    assert norm("hqq") < 0.97 * norm("nearest")
    grid = np.arange(16, dtype=F32)[None] - 5
    assert np.allclose(read_back(to_blocks(grid, SCHEME, "hqq"), 16), grid, atol=1e-6)


def test_awq_finds_scales_where_inputs_differ_and_none_where_they_do_not() -> None:
    weight, x = _random(24, SIZE), _loud()
    scales = find_scales([weight], SCHEME, x.T @ x)
    assert scales[[3, 40]].min() > 1.5 * np.delete(scales, [3, 40]).max()
    assert np.array_equal(find_scales([weight], SCHEME, np.eye(SIZE)), np.ones(SIZE))


def test_grams_are_sums_of_products_group_by_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gram, "_MOST_BYTES", 1)
    model, data = _normed(), _samples(_random(3, SIZE), _random(5, SIZE, seed=9))
    values = {value.name: value for node in model.graph.graph for value in node.inputs if value is not None}
    asked = [(values[name], SIZE) for name in ("h", "c")]
    found = list(gram.find_grams(model.graph, asked, data, Context.of(scratch=tmp_path)))
    assert [list(one) for one in found] == [["h"], ["c"]]
    h = np.concatenate([sample.feeds["x"] for sample in data]) * np.linspace(0.5, 2, SIZE, dtype=F32)
    assert np.allclose(found[0]["h"], h.T @ h, rtol=1e-4, atol=1e-4)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    data = _samples(np.full((2, SIZE), np.nan, F32))
    with pytest.raises(DataError, match="tensor 'h' took no finite value in any sample"):
        make_pass("quantize-weights", {})(_normed(), Context.of(data=data, scratch=tmp_path))


def test_samples_decide_where_there_are_any_and_outputs_come_closer(tmp_path: Path) -> None:
    model, x = _normed(), _correlated()
    options = {"block": 16, "accuracy_level": 0}
    blind = make_pass("quantize-weights", options)(model, Context.of())
    asked = make_pass("quantize-weights", {**options, "rounding": "hqq"})(model, Context.of())
    seeing = make_pass("quantize-weights", options)(model, Context.of(data=_samples(x[:200]), scratch=tmp_path))
    made_up = InMemory(_samples(x).samples, made_up=True)
    unmoved = make_pass("quantize-weights", options)(model, Context.of(data=made_up, scratch=tmp_path))
    assert blind.digest == asked.digest == unmoved.digest != seeing.digest
    assert _wrong(model, seeing, x[200:]) < 0.5 * _wrong(model, blind, x[200:])


def test_awq_divides_the_gain_before_by_what_it_multiplies(tmp_path: Path) -> None:
    model, x = _normed(), _loud()
    made = {
        rounding: make_pass("quantize-weights", {"block": 16, "accuracy_level": 0, "rounding": rounding})(
            model, Context.of(data=_samples(x[:100]), scratch=tmp_path)
        )
        for rounding in ("awq", "clipped")
    }
    assert _wrong(model, made["awq"], x[100:]) < 0.8 * _wrong(model, made["clipped"], x[100:])
    assert made["awq"].operators == made["clipped"].operators
    divided = np.linspace(0.5, 2, SIZE) / _gain(made["awq"])
    assert divided[[3, 40]].min() > 1.5 * np.delete(divided, [3, 40]).max()
    assert np.array_equal(_gain(made["clipped"]), np.linspace(0.5, 2, SIZE, dtype=F32))


def test_awq_tells_where_it_cannot_scale(tmp_path: Path) -> None:
    text = NORMED.replace("c = Mul (a, b)", "d = Mul (a, b) c = Add (d, h)")
    told: list[Event] = []
    context = Context.of(data=_samples(_loud()), scratch=tmp_path, emit=told.append)
    after = make_pass("quantize-weights", {"rounding": "awq"})(_normed(text), context)
    assert {event.reason for event in told if isinstance(event, Missed)} == {
        "what it multiplies is read by other nodes too",
    }
    assert np.array_equal(_gain(after), np.linspace(0.5, 2, SIZE, dtype=F32))


@pytest.mark.parametrize("rounding", ["gptq", "awq"])
def test_without_samples_there_is_nothing_to_look_at(rounding: str) -> None:
    with pytest.raises(PassError, match="this step needs calibration data"):
        make_pass("quantize-weights", {"rounding": rounding})(_normed(), Context.of())


@pytest.mark.parametrize(("head_bits", "stored"), [(8, 1), (4, 2)])
def test_a_head_tied_to_its_embedding_is_stored_once(head_bits: int, stored: int) -> None:
    model = from_text(
        HEADER
        + """(int64[n, s] ids) => (float[n, s, 512] logits) {
            e = Gather (table, ids)
            t = Tanh (e)
            u = Transpose <perm = [1, 0]> (table)
            z = MatMul (t, u)
            logits = Softmax (z)
        }""",
        {"table": _random(512, SIZE)},
    )
    after = make_pass("quantize-weights", {"head_bits": head_bits})(model, Context.of())
    tensors = [value.const_value for value in after.graph.graph.initializers.values()]
    large = [one for one in tensors if one is not None and one.size >= 512 * SIZE // 2]
    assert len(large) == stored
    assert all(one.dtype == onnx_ir.DataType.UINT8 for one in large)
    feeds = {"ids": np.arange(12).reshape(2, 6) * 40}
    assert np.abs(answers(after, feeds)["logits"] - answers(model, feeds)["logits"]).max() < (head_bits == 4) + 0.05


def _gain(model: Model) -> Any:
    first = next(node for node in model.graph.graph if node.op_type == "Mul")
    tensor = constant_tensor(first.inputs[0])
    assert tensor is not None
    return tensor.numpy()


def _wrong(before: Model, after: Model, x: Any) -> float:
    one, other = (answers(model, {"x": x})["y"] for model in (before, after))
    return float(np.square(one - other).sum())
