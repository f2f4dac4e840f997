"""The pass ``quantize-dynamic``: what is written, that ONNX Runtime fuses it, its numbers, and what stays in float."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

from onnxopt.context import Context, Event, Missed
from onnxopt.errors import PassError, UsageError
from onnxopt.ir.model import Model
from onnxopt.passes import make_pass
from tests.graphs import answers, from_text, node_lines

F32 = np.float32
HEADER = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]> g '
SHARED = """(float[2, 20, 64] x) => (float[2, 20, 64] y) {
    q = MatMul (x, wq)
    k = MatMul (x, wk)
    b = Add (bias, k)
    y = Mul (q, b)
}"""


def _random(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(F32)


def _quantized(model: Model, told: list[Missed] | None = None, **options: Any) -> Model:
    def tell(event: Event) -> None:
        if told is not None and isinstance(event, Missed):
            told.append(event)

    return make_pass("quantize-dynamic", options)(model, Context.of(emit=tell))


def _sqnr(wanted: Any, got: Any) -> float:
    assert np.ptp(wanted) > 0
    return float(10 * np.log10(np.var(wanted) / np.square(got - wanted).mean()))


def _fused(model: Model, folder: Path) -> Counter[str]:
    """Return the operators ONNX Runtime executes."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(
        onnx_ir.to_proto(model.graph).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


def _shared() -> Model:
    return from_text(HEADER + SHARED, {"wq": _random(64, 64), "wk": _random(64, 64, seed=1), "bias": _random(64)})


def test_the_text_of_a_quantized_model() -> None:
    """One activation is rounded for both products, and the bias moves behind the second as the runtime wants it."""
    after = _quantized(_shared())
    assert node_lines(after) == [
        "x_quantized, x_scale, x_zero_point = DynamicQuantizeLinear (x)",
        "q.MatMulInteger = MatMulInteger (x_quantized, wq_quantized, x_zero_point)",
        "q.Mul.scale = Mul (x_scale, wq_scale)",
        "q.Cast = Cast (q.MatMulInteger)",
        "q = Mul (q.Cast, q.Mul.scale)",
        "k.MatMulInteger = MatMulInteger (x_quantized, wk_quantized, x_zero_point)",
        "k.Mul.scale = Mul (x_scale, wk_scale)",
        "k.Cast = Cast (k.MatMulInteger)",
        "k = Mul (k.Cast, k.Mul.scale)",
        "b = Add (k, bias)",
        "y = Mul (q, b)",
    ]


def test_what_is_written_is_what_the_runtime_fuses(tmp_path: Path) -> None:
    assert _fused(_quantized(_shared()), tmp_path) == {
        "DynamicQuantizeLinear": 1,
        "MatMulIntegerToFloat": 2,
        "Mul": 1,
    }
    alone = from_text(
        HEADER + "(float[40, 64] x) => (float[40, 64] y) { h = Gemm <transB = 1> (x, w, b) y = Relu (h) }",
        {"w": _random(64, 64), "b": _random(64)},
    )
    assert _fused(_quantized(alone), tmp_path) == {"DynamicQuantizeMatMul": 1, "Relu": 1}


def test_numbers_are_those_of_the_reference_evaluator() -> None:
    model = _shared()
    after = _quantized(model)
    feeds = {"x": _random(2, 20, 64, seed=5)}
    (wanted,) = ReferenceEvaluator(onnx_ir.to_proto(after.graph)).run(None, feeds)
    np.testing.assert_allclose(answers(after, feeds)["y"], wanted, rtol=1e-4, atol=1e-3)
    assert 30 < _sqnr(answers(model, feeds)["y"], wanted) < 60


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ("y = MatMul (x, w)", (64, 96)),
        ("t = Transpose <perm = [1, 0]> (w) y = MatMul (x, t) z = Gather (w, rows)", (96, 64)),
        ("y = Gemm (x, w, b)", (64, 96)),
        ("y = Gemm <transB = 1> (x, w, row)", (96, 64)),
        ("t = Transpose (w) y = Gemm <transB = 1> (x, t, c)", (64, 96)),
        ("c1 = Abs (b) y = Gemm (x, w, c1)", (64, 96)),
    ],
    ids=["matmul", "tied", "gemm", "turned", "turned-twice", "computed-bias"],
)
@pytest.mark.parametrize("per_channel", [True, False])
def test_every_way_to_hold_a_matrix(body: str, shape: tuple[int, int], per_channel: bool) -> None:
    outputs = "(float[40, 96] y, float[2, 64] z)" if "z =" in body else "(float[40, 96] y)"
    given = {"w": _random(*shape), "b": _random(96), "row": _random(1, 96), "c": _random(40, 96)}
    used = {name: array for name, array in given.items() if f"{name}," in body or f"{name})" in body}
    model = from_text(f"{HEADER}(float[40, 64] x) => {outputs} {{ {body} }}", used | {"rows": np.array([1, 3])})
    after = _quantized(model, per_channel=per_channel)
    assert after.operators["MatMulInteger"] == 1
    assert not {"MatMul", "Gemm"} & after.operators.keys()
    feeds = {"x": _random(40, 64, seed=7)}
    assert 35 < _sqnr(answers(model, feeds)["y"], answers(after, feeds)["y"]) < 60


def test_a_weight_read_twice_is_stored_once() -> None:
    body = "(float[40, 64] x) => (float[40, 64] y) { h = MatMul (x, w) a = Tanh (h) y = MatMul (a, w) }"
    after = _quantized(from_text(HEADER + body, {"w": _random(64, 64)}))
    assert {name: value.dtype for name, value in after.graph.graph.initializers.items()} == {
        "w_quantized": onnx_ir.DataType.INT8,
        "w_scale": onnx_ir.DataType.FLOAT,
    }


def test_seven_bits_do_not_saturate() -> None:
    after = _quantized(_shared(), reduce_range=True)
    stored = [v.const_value.numpy() for v in after.graph.graph.initializers.values() if v.const_value is not None]
    assert max(int(np.abs(array).max()) for array in stored if array.dtype == np.int8) == 63


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("z = MatMul (x, small)", "its weight is 64 x 16: too small to be faster in 8 bits"),
        ("z = Gemm (few, medium)", "its weight is 64 x 128: too small to be faster in 8 bits for less than 16 rows"),
        ("h = Abs (x) z = MatMul (x, h)", "its weight is computed"),
        ("z = MatMul (w, x)", "its first input is a weight"),
        ("z = Gemm <alpha = 2.0> (x, w)", "its first input is turned, or its product or its bias is scaled"),
        ("z = MatMul (x, wide)", "its weight is float of rank 3"),
        ("z = MatMul (x, broken)", "its weight has infinite or undefined numbers"),
        ("s = Unsqueeze (x, one) z = Conv (s, kernel)", "ONNX Runtime's ConvInteger is several times slower"),
    ],
)
def test_what_stays_in_float_is_told_with_the_reason(body: str, reason: str) -> None:
    given = {
        "small": _random(64, 16),
        "medium": _random(64, 128),
        "w": _random(64, 64),
        "wide": _random(2, 64, 64),
        "broken": np.full((64, 64), np.inf, F32),
        "one": np.array([0]),
        "kernel": _random(8, 64, 3),
    }
    used = {name: array for name, array in given.items() if f"{name}," in body or f"{name})" in body}
    text = f"{HEADER}(float[64, 64] x, float[n, 64] few) => (float[64, 64] y, float z) {{ y = MatMul (x, v) {body} }}"
    told: list[Missed] = []
    after = _quantized(from_text(text, used | {"v": _random(64, 64, seed=1)}), told)
    assert after.operators["MatMulInteger"] == 1
    assert [event.reason[: len(reason)] for event in told] == [reason]


def test_a_layer_whose_weight_loses_too_much_stays_in_float() -> None:
    """One huge number in a channel takes all steps; with a scale a channel it is only that channel's loss."""
    weight = _random(64, 64)
    weight[0] *= 1e4
    model = from_text(
        HEADER + "(float[40, 64] x) => (float[40, 64] y) { h = MatMul (x, w) a = Tanh (h) y = MatMul (a, v) }",
        {"w": weight / F32(100) + np.eye(64, dtype=F32), "v": np.sign(_random(64, 64))},
    )
    told: list[Missed] = []
    after = _quantized(model, told, min_sqnr=100.0)
    assert after.operators["MatMulInteger"] == 1
    assert len(told) == 1
    assert "dB when it is rounded, and 100 are asked for" in told[0].reason
    assert _quantized(model, min_sqnr=20.0).operators["MatMulInteger"] == 2


def test_nodes_can_be_left_and_unknown_ones_are_an_error() -> None:
    first = _shared().graph.graph[0].name or ""
    told: list[Missed] = []
    assert _quantized(_shared(), told, skip=(first,)).operators["MatMulInteger"] == 1
    assert [(event.node, event.reason) for event in told] == [(first, "it was asked to be left")]
    with pytest.raises(UsageError, match="there is no node 'nowhere' to leave in float"):
        _quantized(_shared(), skip=("nowhere",))


def test_nothing_that_gains_is_refused_with_the_reasons() -> None:
    model = from_text(HEADER + "(float[n, 8] x) => (float[n, 8] y) { y = MatMul (x, w) }", {"w": _random(8, 8)})
    with pytest.raises(PassError, match="nothing to quantize: MatMul: its weight is 8 x 8: too small"):
        _quantized(model)


def test_products_in_branches_are_quantized_and_in_functions_told() -> None:
    text = """(bool c, float[40, 64] x) => (float[40, 64] y) {
        y = If (c) <
            then_branch = t () => (float[40, 64] a) { a = MatMul (x, w) },
            else_branch = e () => (float[40, 64] b) { h = MatMul (x, w) b = Neg (h) }
        >
    }"""
    model = from_text(HEADER + text, {"w": _random(64, 64)})
    after = _quantized(model)
    for choice in (True, False):
        feeds = {"c": np.array(choice), "x": _random(40, 64, seed=2)}
        assert 35 < _sqnr(answers(model, feeds)["y"], answers(after, feeds)["y"]) < 60
    assert "MatMul" not in after.operators
    function = """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        g (float[40, 64] x) => (float[40, 64] y) { h = MatMul (x, v) y = own.f (h) }
        <domain: "own", opset_import: ["" : 17]> f (a) => (b) {
            w = Constant <value_floats = [1.0]> ()
            b = MatMul (a, w)
        }"""
    told: list[Missed] = []
    _quantized(from_text(function, {"v": _random(64, 64)}), told)
    assert [event.reason for event in told] == ["it is in a function; rewrite the model first"]


LSTM = '(float[s, n, 16] x) => (float[a, b, c, d] y) { y = LSTM <hidden_size = 32, direction = "%s"%s> (x, w, r, b) }'


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_lstm_is_quantized_where_asked_for(direction: str, per_channel: bool) -> None:
    model = _lstm(direction)
    after = _quantized(model, ops=["LSTM"], per_channel=per_channel)
    assert after.operators == {"com.microsoft::DynamicQuantizeLSTM": 1}
    feeds = {"x": _random(12, 3, 16, seed=4)}
    assert 30 < _sqnr(answers(model, feeds)["y"], answers(after, feeds)["y"]) < 60


def test_lstm_stays_where_it_is_not_asked_for_or_has_another_layout() -> None:
    with pytest.raises(PassError, match="LSTM: DynamicQuantizeLSTM knows no layout with the batch first"):
        _quantized(_lstm("forward", ", layout = 1"), ops=["LSTM"])
    text = "(float[s, n, 16] x, float[40, 64] v) => (float[a, b, c, d] y, float[40, 64] z)"
    body = "{ y = LSTM <hidden_size = 32> (x, w, r) z = MatMul (v, m) }"
    told: list[Missed] = []
    weights = {"w": _random(1, 128, 16), "r": _random(1, 128, 32), "m": _random(64, 64)}
    assert _quantized(from_text(HEADER + text + body, weights), told).operators["LSTM"] == 1
    assert [event.reason.split(";")[0] for event in told] == ["it costs much accuracy in speech models"]


def _lstm(direction: str, more: str = "") -> Model:
    count = 2 if direction == "bidirectional" else 1
    weights = {"w": _random(count, 128, 16) / 6, "r": _random(count, 128, 32) / 6, "b": _random(count, 256) / 6}
    return from_text(HEADER + LSTM % (direction, more), weights)


def test_embeddings_keep_a_scale_a_row_where_asked_for() -> None:
    rows = _random(100, 48) * np.exp(_random(100, 1, seed=1) * 2)
    text = HEADER + "(int64[n, s] tokens) => (float[n, s, 48] y) { y = Gather (w, tokens) }"
    model = from_text(text, {"w": rows})
    after = _quantized(model, ops=["Gather"])
    places = np.arange(100).reshape(4, 25)
    off = np.abs(answers(after, {"tokens": places})["y"].reshape(100, 48) - rows)
    steps = np.abs(rows).max(1, keepdims=True) / 127
    assert 0.4 < (off / steps).max() <= 0.5001
    assert sum(value.const_value.nbytes for value in after.graph.graph.initializers.values()) < 0.3 * rows.nbytes  # type: ignore[union-attr]


@pytest.mark.parametrize("mask", [True, False])
def test_attention_becomes_qattention(mask: bool) -> None:
    model, feeds = _attention("m" if mask else "")
    after = _quantized(model)
    assert after.operators == {"DynamicQuantizeLinear": 1, "com.microsoft::QAttention": 1}
    assert 25 < _sqnr(answers(model, feeds)["y"], answers(after, feeds)["y"]) < 60


def test_attention_with_a_bias_on_its_scores_stays() -> None:
    with pytest.raises(PassError, match="Attention: QAttention takes no bias on scores"):
        _quantized(_attention(", , scores", "float[2, 4, 10, 10] scores")[0])


def _attention(more: str, declared: str = "int32[2, 10] m") -> tuple[Model, Mapping[str, Any]]:
    text = f"""(float[2, 10, 64] x, {declared}) => (float[2, 10, 64] y) {{
        y = com.microsoft.Attention <num_heads = 4> (x, w, b{", " + more if more else ""})
    }}"""
    mask = (np.arange(10) < np.array([[10], [6]])).astype(np.int32)
    return from_text(HEADER + text, {"w": _random(64, 192) / 8, "b": _random(192)}), {
        "x": _random(2, 10, 64, seed=3),
        "m": mask,
    }
