"""Models rarer than what exporters write, and plausible: shared tensors, empty ones, odd biases, taken names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxopt.compile.ort import OnnxRuntime
from onnxopt.context import Context, Event, Missed
from onnxopt.data.sample import InMemory, Sample
from onnxopt.errors import EngineError
from onnxopt.evaluate.drift import compare_outputs
from onnxopt.explain.portability import find_saturation
from onnxopt.ir.model import Model
from onnxopt.passes import make_pass
from onnxopt.targets.target import local_target
from tests.graphs import answers, from_text, saved

F32 = np.float32
HEADER = '<ir_version: 8, opset_import: ["" : 17]> g '


def _random(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(F32)


def _fed(count: int = 6, **shapes: tuple[int, ...]) -> InMemory:
    made = ({name: _random(*shape, seed=index) for name, shape in shapes.items()} for index in range(count))
    return InMemory(tuple(Sample(str(index), feeds) for index, feeds in enumerate(made)))


def _changed(name: str, model: Model, data: InMemory, folder: Path, told: list[Event] | None = None, **options: Any):
    emit = (lambda _: None) if told is None else told.append
    return make_pass(name, options)(model, Context.of(data=data, scratch=folder, emit=emit))


def _sqnr(before: Model, after: Model, data: InMemory) -> float:
    found = compare_outputs((answers(before, one.feeds), answers(after, one.feeds)) for one in data)
    assert found.sqnr_db is not None
    return found.sqnr_db


LOOP = (
    HEADER
    + "(float[8, 256] x) => (float[8, 256] y, float[8, 256] z) { h = Relu (x) n = Constant <value = int64 {3}> ()"
    " t = Cast <to = 9> (n)"
    " y = Loop (n, t, h) <body = inner (int64 i, bool c, float[8, 256] s) => (bool c2, float[8, 256] s2)"
    " { c2 = Identity (c) s1 = MatMul (h, v) s2 = Add (s, s1) }> z = MatMul (h, w) }"
)


@pytest.mark.parametrize("name", ["quantize-dynamic", "quantize-weights"])
def test_a_tensor_read_in_a_loop_and_behind_it_has_one_name_in_each(name: str, tmp_path: Path) -> None:
    model = from_text(LOOP, {"v": 0.01 * _random(256, 256), "w": _random(256, 256, seed=1)})
    data = _fed(x=(8, 256))
    after = _changed(name, model, data, tmp_path)
    engine = OnnxRuntime().compile(saved(after, tmp_path / "after.onnx"), local_target())
    given = data[0].feeds
    found = compare_outputs([(answers(model, given), engine.run(given))])
    assert found.sqnr_db is not None
    assert found.sqnr_db > 15


def test_a_layer_whose_tensors_had_no_elements_stays_in_float(tmp_path: Path) -> None:
    model = from_text(
        HEADER + "(float[n, 64] x, int64[k] i) => (float[k, 64] y, float[n, 64] q)"
        "{ t = Gather (x, i) y = MatMul (t, v) q = MatMul (x, w) }",
        {"v": _random(64, 64), "w": _random(64, 64, seed=1)},
    )
    empty = InMemory(tuple(Sample(s.name, {**s.feeds, "i": np.zeros(0, np.int64)}) for s in _fed(x=(4, 64))))
    told: list[Event] = []
    after = _changed("quantize-static", model, empty, tmp_path, told)
    full = InMemory((Sample("full", {"x": _random(4, 64), "i": np.array([1, 2])}),))
    assert _sqnr(model, after, full) > 30
    assert any("no elements in any sample" in one.reason for one in told if isinstance(one, Missed))
    for name in ("smooth-activations", "correct-bias"):
        assert _changed(name, model, empty, tmp_path).signature == model.signature


@pytest.mark.parametrize(
    ("body", "bias", "shape"),
    [
        ("a = MatMul (x, w) b = Add (a, c) e = Relu (b) y = MatMul (e, v)", (64,), (4, 64)),
        ("a = MatMul (x, w) b = Add (a, c) e = Relu (b) y = MatMul (e, v)", (1, 1, 64), (1, 4, 64)),
        ("a = Gemm (x, w, c) e = Relu (a) y = MatMul (e, v)", (4, 64), (4, 64)),
    ],
)
def test_a_bias_is_corrected_in_its_own_shape(
    body: str, bias: tuple[int, ...], shape: tuple[int, ...], tmp_path: Path
) -> None:
    weights = {"w": _random(64, 64), "v": _random(64, 64, seed=2), "c": _random(*bias, seed=3)}
    model = from_text(HEADER + f"(float[4, 64] x) => (float{list(shape)} y) {{" + body + "}", weights)
    data = _fed(x=(4, 64))
    after = _changed("correct-bias", model, data, tmp_path)
    assert answers(after, data[0].feeds)["y"].shape == shape
    assert _sqnr(model, after, data) > 15


def test_the_mean_of_a_tensor_two_layers_read_along_other_axes_corrects_one_alone(tmp_path: Path) -> None:
    body = "b = Relu (x) y = Conv (b, v, c) d = MatMul (b, u) z = Add (d, c)"
    weights = {"v": _random(8, 8, 1, 1), "u": _random(8, 8, seed=1), "c": _random(8, seed=2)}
    model = from_text(
        HEADER + "(float[n, 8, 8, 8] x) => (float[n, 8, 8, 8] y, float[n, 8, 8, 8] z) {" + body + "}", weights
    )
    told: list[Event] = []
    _changed("correct-bias", model, _fed(x=(2, 8, 8, 8)), tmp_path, told)
    assert any("another layer's axis" in one.reason for one in told if isinstance(one, Missed))


def test_a_mask_of_minus_infinity_is_no_reason_to_refuse_sixteen_bits(tmp_path: Path) -> None:
    model = from_text(
        HEADER + "(float[4, 64] x) => (float[4, 4] y) { h = MatMul (x, w) k = Transpose <perm = [1, 0]> (h)"
        " a = MatMul (h, k) z = Expand (ninf, s) t = Trilu <upper = 1> (z, one) c = Add (a, t)"
        " y = Softmax <axis = -1> (c) }",
        {
            "w": 0.1 * _random(64, 64),
            "ninf": np.full(1, -np.inf, F32),
            "s": np.array([4, 4]),
            "one": np.array(1),
        },
    )
    data = _fed(x=(4, 64))
    assert _sqnr(model, _changed("cast-float16", model, data, tmp_path, mode="compute"), data) > 40


@pytest.mark.parametrize(
    "text",
    [
        "(int64[n] i) => (float[n, 64] y) { e = Gather (w, i) a = MatMul (e, v) b = Relu (a) y = MatMul (b, u) }",
        "(float[n, 64] x) => (float[n, 64] y, float[n, 64] h)"
        "{ h = MatMul (x, w) a = MatMul (h, v) b = Relu (a) y = MatMul (b, u) }",
    ],
    ids=["an embedding", "an output that is read on"],
)
def test_weights_behind_what_is_stored_in_blocks_itself_are_rounded_by_samples(text: str, tmp_path: Path) -> None:
    model = from_text(HEADER + text, {name: _random(64, 64, seed=seed) for seed, name in enumerate("wvu")})
    given = [{"i": np.arange(9) * 7 % 64}] * 4 if "i)" in text else [s.feeds for s in _fed(x=(8, 64))]
    data = InMemory(tuple(Sample(str(index), feeds) for index, feeds in enumerate(given)))
    after = _changed("quantize-weights", model, data, tmp_path, accuracy_level=0)
    assert _sqnr(model, after, data) > 12


def test_saturation_of_a_layer_that_read_nothing_is_none(tmp_path: Path) -> None:
    model = from_text(HEADER + "(float[n, 64] x) => (float[n, 64] y) { y = MatMul (x, w) }", {"w": _random(64, 64)})
    quantized = _changed("quantize-static", model, _fed(x=(4, 64)), tmp_path)
    found = find_saturation(quantized, _fed(2, x=(0, 64)), Context.of(scratch=tmp_path))
    assert [layer.share for layer in found.layers] == [0]


@pytest.mark.parametrize(
    ("name", "options"), [("smooth-activations", {"insert": True, "alpha": 0.5}), ("cast-float16", {"mode": "compute"})]
)
def test_a_name_that_is_taken_is_not_taken_twice(name: str, options: Any, tmp_path: Path) -> None:
    weights = {"w": _random(64, 64), "x_smoothed_factor": _random(64, seed=1), "w_float16": _random(64, seed=2)}
    body = "a = MatMul (x, w) b = Add (a, x_smoothed_factor) y = Add (b, w_float16)"
    model = from_text(HEADER + "(float[4, 64] x) => (float[4, 64] y) {" + body + "}", weights)
    data = _fed(x=(4, 64))
    assert _sqnr(model, _changed(name, model, data, tmp_path, **options), data) > 40


def test_a_bias_that_stands_first_does_not_hide_the_layer_it_belongs_to(tmp_path: Path) -> None:
    weights = {"w": _random(8, 8) * np.linspace(0.1, 9, 8, dtype=F32), "c": _random(8), "v": _random(8, 8, seed=1)}
    body = "a = MatMul (x, w) b = Add (c, a) e = Relu (b) y = MatMul (e, v)"
    model = from_text(HEADER + "(float[n, 8] x) => (float[n, 8] y) {" + body + "}", weights)
    after = _changed("equalize-layers", model, _fed(x=(4, 8)), tmp_path)
    assert after.digest != model.digest
    assert _sqnr(model, after, _fed(x=(4, 8))) > 100


def test_a_sample_that_does_not_fit_is_told_with_its_place(tmp_path: Path) -> None:
    model = from_text(HEADER + "(float[n, 64] x) => (float[n, 64] y) { y = MatMul (x, w) }", {"w": _random(64, 64)})
    data = InMemory((*_fed(x=(4, 64)), Sample("odd", {"x": _random(4, 63)})))
    with pytest.raises(EngineError, match=r"samples \d to 7 of 7"):
        _changed("quantize-static", model, data, tmp_path)


def test_a_weight_that_several_layers_read_stays_one(tmp_path: Path) -> None:
    body = "a = MatMul (x, w) b = Relu (a) y = MatMul (b, w)"
    model = from_text(HEADER + "(float[4, 64] x) => (float[4, 64] y) {" + body + "}", {"w": _random(64, 64)})
    told: list[Event] = []
    after = _changed("round-weights", model, _fed(x=(4, 64)), tmp_path, told)
    assert len(after.graph.graph.initializers) == 1
    assert {one.reason for one in told if isinstance(one, Missed)} == {
        "its weight is read by other layers too, and stays one"
    }
