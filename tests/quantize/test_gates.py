"""Activations that follow a convolution, and what they gate, in eight bits: SiLU, HardSwish, LeakyRelu."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxopt.context import Context
from onnxopt.evaluate.drift import compare_outputs
from onnxopt.ir.model import Model
from onnxopt.passes import make_pass
from tests.graphs import answers, from_text, node_lines, samples

F32 = np.float32
SIXTH = "alpha = 0.16666667, beta = 0.5"


def _between(body: str, outputs: str = "") -> Model:
    """Return two convolutions with nodes between that take a to b."""
    random = np.random.default_rng(0)
    return from_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 3, 8, 8] x) => (float[n, 4, 8, 8] y'
        + outputs
        + f") {{ a = Conv (x, w) {body} y = Conv (b, v) }}",
        {
            "w": (3 * random.standard_normal((4, 3, 1, 1))).astype(F32),
            "v": random.standard_normal((4, 4, 1, 1)).astype(F32),
        },
    )


def _quantized(model: Model, folder: Path, **options: Any) -> Model:
    ctx = Context.of(data=samples(model, 8), scratch=folder)
    return make_pass("quantize-static", {"method": "minmax", **options})(model, ctx)


def _sqnr(before: Model, after: Model) -> float:
    found = compare_outputs((answers(before, s.feeds), answers(after, s.feeds)) for s in samples(before, 4, seed=9))
    assert found.sqnr_db is not None
    return found.sqnr_db


def _stored(model: Model, name: str) -> Any:
    tensor = model.graph.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()


@pytest.mark.parametrize("body", ["b = HardSwish (a)", f"h = HardSigmoid <{SIXTH}> (a) b = Mul (a, h)"])
def test_hard_swish_is_a_sum_that_saturates_and_a_product(body: str, tmp_path: Path) -> None:
    model = _between(body)
    after = _quantized(model, tmp_path)
    gate = "b_gate" if "HardSwish" in body else "h"
    assert node_lines(after)[7:-3] == [
        "a_dequantized = DequantizeLinear (a_quantized, a_scale, a_zero_point)",
        f"{gate}_scaled = Add (a_dequantized, nothing_dequantized)",
        f"{gate}_scaled_quantized = QuantizeLinear ({gate}_scaled, {gate}_scaled_scale, {gate}_scaled_zero_point)",
        f"{gate}_scaled_dequantized = DequantizeLinear"
        f" ({gate}_scaled_quantized, {gate}_scaled_read_scale, {gate}_scaled_read_zero_point)",
        f"b = Mul (a_dequantized, {gate}_scaled_dequantized)",
        "b_quantized = QuantizeLinear (b, b_scale, b_zero_point)",
        "b_dequantized = DequantizeLinear (b_quantized, b_scale, b_zero_point)",
    ]
    assert _stored(after, "nothing_quantized") == _stored(after, "nothing_zero_point")
    assert _stored(after, f"{gate}_scaled_scale") == pytest.approx(6 / 255)
    assert _stored(after, f"{gate}_scaled_read_scale") == pytest.approx(1 / 255)
    assert _stored(after, f"{gate}_scaled_read_zero_point") == 0
    assert _sqnr(model, after) > 30


def test_what_hard_swish_gates_to_zero_takes_no_part_of_the_range(tmp_path: Path) -> None:
    after = _quantized(_between("b = HardSwish (a)"), tmp_path)
    assert -_stored(after, "a_scale") * _stored(after, "a_zero_point") == pytest.approx(-3, abs=0.1)
    read = _quantized(_between("b = HardSwish (a) z = Abs (a)", ", float[n, 4, 8, 8] z"), tmp_path)
    given = _quantized(_between("b = HardSwish (a)", ", float[n, 4, 8, 8] a"), tmp_path)
    for other in (read, given):
        assert -_stored(other, "a_scale") * _stored(other, "a_zero_point") < -4


@pytest.mark.parametrize(
    ("body", "operator"),
    [("s = Sigmoid (a) b = Mul (s, a)", "Mul"), ("b = LeakyRelu <alpha = 0.1> (a)", "LeakyRelu")],
)
def test_what_follows_a_convolution_reads_and_gives_stored_numbers(body: str, operator: str, tmp_path: Path) -> None:
    model = _between(body)
    after = _quantized(model, tmp_path)
    (node,) = (one for one in after.graph.graph if one.op_type == operator)
    assert all(value is not None and value.producer().op_type == "DequantizeLinear" for value in node.inputs)
    assert [reader.op_type for reader, _ in node.outputs[0].uses()] == ["QuantizeLinear"]
    assert _sqnr(model, after) > 30


@pytest.mark.parametrize(
    "body",
    [
        "h = HardSigmoid <alpha = -0.2, beta = 0.5> (a) b = Mul (a, h)",
        "h = HardSigmoid <alpha = 0.2, beta = 1.5> (a) b = Mul (a, h)",
        "t = Tanh (a) h = Sigmoid (t) b = Mul (t, h)",
    ],
    ids=["falling", "one at zero", "not behind a convolution"],
)
def test_other_gates_stay_in_float(body: str, tmp_path: Path) -> None:
    model = _between(body)
    after = _quantized(model, tmp_path)
    (product,) = (one for one in after.graph.graph if one.op_type == "Mul")
    assert product.inputs[1].producer().op_type in ("HardSigmoid", "Sigmoid")
    assert _sqnr(model, after) > 30


def test_openvino_reads_hard_swish_as_it_is(tmp_path: Path) -> None:
    after = _quantized(_between("b = HardSwish (a)"), tmp_path, runtime="openvino")
    assert after.operators["HardSwish"] == 1
