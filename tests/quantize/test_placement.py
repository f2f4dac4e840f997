"""What is rounded and what is not, and how it is written: the graph before, the graph after, and the numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest

from onnxopt.context import Context, Event, Missed
from onnxopt.data.sample import InMemory, Sample
from onnxopt.errors import PassError, UsageError
from onnxopt.evaluate.drift import compare_outputs
from onnxopt.ir.model import Model
from onnxopt.passes import make_pass
from onnxopt.targets.kernels import kernels
from tests.graphs import answers, cnn, from_text, node_lines, samples

F32 = np.float32
HEADER = '<ir_version: 8, opset_import: ["" : 17]> g '
CNN = "(float[n, 3, 8, 8] x) => (float[n, 4, 8, 8] y)"


def _random(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(F32)


def _quantized(model: Model, folder: Path, told: list[Event] | None = None, **options: Any) -> Model:
    emit = (lambda _: None) if told is None else told.append
    ctx = Context.of(data=samples(model, 8), scratch=folder, emit=emit)
    return make_pass("quantize-static", options)(model, ctx)


def _sqnr(before: Model, after: Model) -> float:
    found = compare_outputs((answers(before, s.feeds), answers(after, s.feeds)) for s in samples(before, 4, seed=9))
    assert found.sqnr_db is not None
    return found.sqnr_db


def test_an_activation_stays_with_its_convolution_and_the_bias_is_an_int32(tmp_path: Path) -> None:
    model = from_text(
        HEADER + CNN + "{ c = Conv <pads = [1, 1, 1, 1]> (x, w, b) y = Relu (c) }",
        {"w": _random(4, 3, 3, 3), "b": _random(4, seed=1)},
    )
    after = _quantized(model, tmp_path)
    assert node_lines(after) == [
        "x_quantized = QuantizeLinear (x, x_scale, x_zero_point)",
        "x_dequantized = DequantizeLinear (x_quantized, x_scale, x_zero_point)",
        "b_dequantized = DequantizeLinear (b_quantized, b_scale, b_zero_point)",
        "w_dequantized = DequantizeLinear (w_quantized, w_scale, w_zero_point)",
        "c = Conv (x_dequantized, w_dequantized, b_dequantized)",
        "y_made = Relu (c)",
        "y_quantized = QuantizeLinear (y_made, y_scale, y_zero_point)",
        "y = DequantizeLinear (y_quantized, y_scale, y_zero_point)",
    ]
    stored = {value.name: value.const_value for value in after.graph.graph.initializers.values()}
    assert stored["b_quantized"].dtype == onnx_ir.DataType.INT32
    assert np.allclose(stored["b_scale"].numpy(), stored["w_scale"].numpy() * stored["x_scale"].numpy())
    assert 30 < _sqnr(model, after) < 60


def test_what_passes_numbers_on_has_the_scale_of_what_it_reads(tmp_path: Path) -> None:
    model = from_text(
        HEADER
        + "(float[n, 3, 8, 8] x) => (float[n, 5, 2, 2] y)"
        + "{ c = Conv (x, w) p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c) y = Conv (p, v) }",
        {"w": _random(4, 3, 3, 3), "v": _random(5, 4, 2, 2)},
    )
    after = _quantized(model, tmp_path)
    assert _scales(after)["p"] == _scales(after)["c"]
    assert _reads(after, "MaxPool") == ["DequantizeLinear"]
    assert _sqnr(model, after) > 25


def test_what_stands_between_is_rounded_only_where_somebody_wants_its_result_so(tmp_path: Path) -> None:
    """The first sum feeds a convolution, the last one the output alone."""
    model = from_text(
        HEADER
        + "(float[n, 4, 8, 8] x) => (float[n, 4, 8, 8] y)"
        + "{ a = Conv (x, w) b = Conv (x, v) s = Add (a, b) c = Conv (s, w) y = Add (c, b) }",
        {"w": _random(4, 4, 1, 1), "v": _random(4, 4, 1, 1, seed=1)},
    )
    after = _quantized(model, tmp_path, scope="all")
    assert set(_scales(after)) == {"x", "a", "b", "s", "c", "w", "v"}
    assert _reads(after, "Add") == ["DequantizeLinear", "DequantizeLinear"]
    assert "y" not in _scales(after)
    assert _sqnr(model, after) > 25


def test_a_matrix_product_gives_float_and_a_convolution_does_not(tmp_path: Path) -> None:
    model = from_text(
        HEADER + "(float[n, 8] x) => (float[n, 8] y) { a = MatMul (x, w) t = Tanh (a) y = MatMul (t, v) }",
        {"w": _random(8, 8), "v": _random(8, 8, seed=1)},
    )
    assert set(_scales(_quantized(model, tmp_path))) == {"x", "t", "w", "v"}


def test_openvino_and_tensorrt_get_what_they_want(tmp_path: Path) -> None:
    model = cnn()
    open_ended = _quantized(model, tmp_path, runtime="openvino")
    assert "scores" not in _scales(open_ended)
    assert not any("b2_quantized" in line for line in node_lines(open_ended))
    symmetric = _quantized(model, tmp_path, runtime="tensorrt")
    zeros = [v.const_value for v in symmetric.graph.graph.initializers.values() if "zero_point" in (v.name or "")]
    assert zeros
    assert all(zero.dtype == onnx_ir.DataType.INT8 and not zero.numpy().any() for zero in zeros)
    assert _sqnr(model, symmetric) > 25


def test_a_weight_several_read_is_stored_once(tmp_path: Path) -> None:
    model = from_text(
        HEADER + "(float[n, 8] x) => (float[n, 8] y) { a = MatMul (x, w) t = Tanh (a) y = MatMul (t, w) }",
        {"w": _random(8, 8)},
    )
    stored = [name for name in _quantized(model, tmp_path).graph.graph.initializers if name.startswith("w_")]
    assert sorted(stored) == ["w_quantized", "w_scale", "w_zero_point"]


def test_a_bias_too_large_for_its_scale_is_kept(tmp_path: Path) -> None:
    """An all but empty channel has a tiny scale, and its bias would not fit an int32."""
    weight = _random(4, 3, 3, 3)
    weight[2] *= 1e-12
    weight[3] = 0
    model = from_text(
        HEADER + CNN + "{ y = Conv <pads = [1, 1, 1, 1]> (x, w, b) }",
        {"w": weight, "b": np.array([1, -2, 30, -40], F32)},
    )
    assert _sqnr(model, _quantized(model, tmp_path)) > 30


@pytest.mark.parametrize(
    ("body", "weights", "reason"),
    [
        ("k = Mul (w, two) y = Conv <pads = [1, 1, 1, 1]> (x, k)", {"two": None}, "its weight is computed"),
        ("f = Flatten (x) g = Gemm <alpha = 2.0> (f, w) y = Conv (x, z)", {}, "its product or its bias is scaled"),
    ],
)
def test_what_cannot_be_rounded_is_told_with_the_reason(
    tmp_path: Path, body: str, weights: dict[str, Any], reason: str
) -> None:
    if weights:
        text = f"{HEADER}(float[n, 3, 8, 8] x, float[1] two) => (float[n, 4, 8, 8] y) {{ {body} }}"
        model = from_text(text, {"w": _random(4, 3, 3, 3)})
    else:
        text = f"{HEADER}(float[n, 3, 8, 8] x) => (float[n, 4, 8, 8] y, float[n, 5] g) {{ {body} }}"
        model = from_text(text, {"w": _random(192, 5), "z": _random(4, 3, 1, 1)})
    told: list[Event] = []
    if weights:
        with pytest.raises(PassError, match="there is nothing to quantize: Conv: its weight is computed"):
            _quantized(model, tmp_path, told)
    else:
        _quantized(model, tmp_path, told)
    assert reason in [event.reason for event in told if isinstance(event, Missed)]


def test_branches_are_left_and_told(tmp_path: Path) -> None:
    model = from_text(
        HEADER
        + """(float[n, 8] x, bool flag) => (float[n, 8] y) {
            a = MatMul (x, w)
            y = If (flag) <
                then_branch = t () => (float[n, 8] u) { u = MatMul (a, w) },
                else_branch = e () => (float[n, 8] v) { v = Neg (a) }
            >
        }""",
        {"w": _random(8, 8)},
    )
    data = InMemory(tuple(Sample(str(i), {"x": _random(2, 8, seed=i), "flag": np.array(True)}) for i in range(4)))
    told: list[Event] = []
    make_pass("quantize-static", {})(model, Context.of(data=data, scratch=tmp_path, emit=told.append))
    assert any("it is in a branch or a function" in event.reason for event in told if isinstance(event, Missed))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_what_says_how_to_resize_is_no_number_to_round(tmp_path: Path, mode: str) -> None:
    model = from_text(
        HEADER
        + "(float[n, 3, 6, 6] x) => (float[n, 2, 12, 12] y)"
        + f'{{ a = Conv (x, w) b = Resize <mode = "{mode}"> (a, , scales) y = Conv (b, v) }}',
        {"w": _random(5, 3, 1, 1), "v": _random(2, 5, 1, 1), "scales": np.array([1, 1, 2, 2], F32)},
    )
    after = _quantized(model, tmp_path, runtime="openvino", scope="all")
    assert _reads(after, "Resize") == ["DequantizeLinear"]
    assert _sqnr(model, after) > 25


@pytest.mark.parametrize("shape", [(2, 3), (2, 1)], ids=str)
def test_a_bias_that_differs_by_row_stays_float(tmp_path: Path, shape: tuple[int, int]) -> None:
    model = from_text(
        HEADER + "(float[2, 8] x) => (float[2, 3] y) { y = Gemm (x, w, b) }",
        {"w": _random(8, 3), "b": _random(*shape, seed=1)},
    )
    assert _sqnr(model, _quantized(model, tmp_path)) > 18


def test_the_bias_of_a_channel_without_weights_is_kept(tmp_path: Path) -> None:
    weight = _random(4, 3, 3, 3)
    weight[0] = 0
    model = from_text(
        HEADER + CNN + "{ y = Conv <pads = [1, 1, 1, 1]> (x, w, b) }",
        {"w": weight, "b": np.array([0.1, 0, 0, 0], F32)},
    )
    data = InMemory(tuple(Sample(str(i), {"x": 30 * _random(1, 3, 8, 8, seed=i)}) for i in range(4)))
    after = make_pass("quantize-static", {})(model, Context.of(data=data, scratch=tmp_path))
    stored = {value.name: value.const_value for value in after.graph.graph.initializers.values()}
    quantized, scale = stored["b_quantized"], stored["b_scale"]
    assert quantized is not None
    assert scale is not None
    assert (quantized.numpy() * scale.numpy())[0] == pytest.approx(0.1, rel=1e-3)


def test_a_mask_of_minus_infinity_stays_float(tmp_path: Path) -> None:
    mask = np.zeros((6, 6), F32)
    mask[np.triu_indices(6, 1)] = -np.inf
    model = from_text(
        HEADER
        + "(float[n, 6, 8] x) => (float[n, 6, 8] y) {"
        + "q = MatMul (x, w) t = Transpose <perm = [0, 2, 1]> (x) s = MatMul (q, t) m = Add (s, mask)"
        + "p = Softmax <axis = -1> (m) c = MatMul (p, x) y = MatMul (c, w) }",
        {"w": _random(8, 8) / 3, "mask": mask},
    )
    after = _quantized(model, tmp_path, scope="all", weight_matmul_only=False)
    assert "mask" in after.graph.graph.initializers
    assert _sqnr(model, after) > 15


def test_a_sum_behind_a_product_of_known_size_is_stored_as_its_bias(tmp_path: Path) -> None:
    """Otherwise ONNX Runtime makes a float Gemm of the two, and reads the weight back on every run."""
    body = "{ a = MatMul (x, w) y = Add (a, b) }"
    weights = {"w": _random(8, 16), "b": _random(16, seed=1)}
    known = from_text(HEADER + "(float[1, 4, 8] x) => (float[1, 4, 16] y)" + body, weights)
    free = from_text(HEADER + "(float[n, 4, 8] x) => (float[n, 4, 16] y)" + body, weights)
    assert "b_quantized" in _quantized(known, tmp_path).graph.graph.initializers
    assert "b" in _quantized(free, tmp_path).graph.graph.initializers
    assert _sqnr(known, _quantized(known, tmp_path)) > 25


def test_functions_are_left_and_do_not_spoil_the_rest(tmp_path: Path) -> None:
    model = from_text(
        """<ir_version: 8, opset_import: ["" : 17, "own" : 1]> g (float[n, 8] x) => (float[n, 8] y) {
            a = MatMul (x, w)
            y = own.f (a)
        }
        <domain: "own", opset_import: ["" : 17]> f (a) => (b) {
            k = Constant <value = float[8, 8] {"""
        + ", ".join(["0.5"] * 64)
        + """}> ()
            c = Constant <value = float[1] {0.25}> ()
            b = Gemm (a, k, c)
        }""",
        {"w": _random(8, 8)},
    )
    told: list[Event] = []
    after = _quantized(model, tmp_path, told)
    assert after.operators["QuantizeLinear"] >= 1
    assert any("in a branch or a function" in event.reason for event in told if isinstance(event, Missed))
    assert _sqnr(model, after) > 15


def test_a_name_to_skip_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no node 'Conv_1' to leave in float"):
        _quantized(cnn(), tmp_path, skip=["Conv_1"])


def test_an_unknown_runtime_has_no_kernels() -> None:
    with pytest.raises(UsageError, match="nothing is known of int8 in 'openvina'") as caught:
        kernels("openvina")
    assert "openvino" in str(caught.value.hint)


def _scales(model: Model) -> dict[str, bytes]:
    """Return the scale of each rounded tensor by its name before."""
    found = {}
    for value in model.graph.graph.initializers.values():
        name = value.name or ""
        if name.endswith("_scale") and value.const_value is not None:
            found[name.removesuffix("_scale")] = value.const_value.numpy().tobytes()
    return found


def _reads(model: Model, operator: str) -> list[str]:
    """Return what makes the first input of each node of a type."""
    nodes = [node for node in model.graph.graph if node.op_type == operator]
    makers = [node.inputs[0].producer() for node in nodes if node.inputs[0] is not None]
    return [maker.op_type if maker is not None else "input" for maker in makers]
