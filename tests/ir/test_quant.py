"""Quantization arithmetic, held against ONNX's reference evaluator and against its error bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx.reference import ReferenceEvaluator

from onnxopt.ir.quant import Quantization, Scheme, dequantize, fit, fit_array, quantize

F32 = np.float32
Array = np.ndarray[Any, Any]

SCHEMES = [
    Scheme("uint8", symmetric=False),
    Scheme("int8", symmetric=True),
    Scheme("int8", symmetric=True, granularity="channel"),
    Scheme("uint8", symmetric=True, granularity="channel"),
    Scheme("int8", symmetric=True, bits=7),
    Scheme("uint8", symmetric=False, bits=7),
    Scheme("int4", symmetric=True, granularity="block", block=4),
    Scheme("uint4", symmetric=False, granularity="block", block=4),
    Scheme("int16", symmetric=True),
    Scheme("uint16", symmetric=False),
]
NAMES = [f"{s.dtype}-{s.granularity}-{'symmetric' if s.symmetric else 'affine'}-{s.bits or 'all'}" for s in SCHEMES]

_numbers = st.floats(-1e4, 1e4, width=32).filter(lambda x: x == 0 or abs(x) > 1e-6)
_matrices = arrays.arrays(F32, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=_numbers)


@pytest.mark.parametrize("scheme", SCHEMES, ids=NAMES)
@given(array=_matrices)
def test_what_comes_back_is_off_by_half_a_step_at_most(scheme: Scheme, array: Array) -> None:
    how = fit_array(array, scheme)
    step = np.broadcast_to(_wide(how, array), array.shape)
    error = np.abs(dequantize(quantize(array, how), how) - array)
    assert (error <= step * 0.5001 + 1e-6 * np.abs(array)).all()


@pytest.mark.parametrize("scheme", SCHEMES, ids=NAMES)
@given(array=_matrices)
def test_zero_stays_zero(scheme: Scheme, array: Array) -> None:
    how = fit_array(array, scheme)
    assert (dequantize(quantize(np.zeros_like(array), how), how) == 0).all()


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s.bits is None], ids=[n for n in NAMES if "all" in n])
@given(array=_matrices, shrunk=st.sampled_from([1.0, 0.25]))
def test_numbers_are_those_of_the_onnx_reference(scheme: Scheme, array: Array, shrunk: float) -> None:
    """Shrunk ranges make it saturate."""
    how = fit_array(array * F32(shrunk), scheme)
    stored, back = _reference(array, how)
    assert np.array_equal(quantize(array, how).astype(np.int64), stored.astype(np.int64))
    assert np.allclose(dequantize(quantize(array, how), how), back, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("scheme", "low", "high", "scale", "zero"),
    [
        (Scheme("uint8", symmetric=False), 0.0, 255.0, 1.0, 0),
        (Scheme("uint8", symmetric=False), -1.0, 1.55, 0.01, 100),
        (Scheme("uint8", symmetric=False), 2.0, 2.55, 0.01, 0),
        (Scheme("uint8", symmetric=True), -1.27, 0.5, 0.01, 128),
        (Scheme("int8", symmetric=True), -1.0, 1.27, 0.01, 0),
        (Scheme("int8", symmetric=True, bits=7), -0.2, 0.63, 0.01, 0),
        (Scheme("int4", symmetric=True), -0.7, 0.1, 0.1, 0),
    ],
)
def test_known_ranges(scheme: Scheme, low: float, high: float, scale: float, zero: int) -> None:
    how = fit(low, high, scheme)
    assert float(how.scale) == pytest.approx(scale)
    assert int(how.zero_point) == zero


def test_a_range_of_nothing_but_zero_is_harmless() -> None:
    how = fit(0.0, 0.0, SCHEMES[0])
    assert float(how.scale) == 1.0


def test_numbers_beyond_the_range_saturate() -> None:
    how = fit(-1.0, 1.0, Scheme("int8", symmetric=True, bits=7))
    assert quantize(np.array([-9.0, 9.0], F32), how).tolist() == [-64, 63]


def _wide(how: Quantization, array: Array) -> Array:
    if how.axis is None:
        return how.scale
    if how.scheme.granularity == "channel":
        return how.scale.reshape(-1, 1)
    return np.repeat(how.scale, how.scheme.block, 0)[: len(array)]


def _reference(array: Array, how: Quantization) -> tuple[Array, Array]:
    """Return what ONNX's reference evaluator stores and reads back; blocks are written out for it row by row."""
    if how.scheme.granularity == "block":
        rows = [_reference(array[i : i + 1].T, _row(how, i // how.scheme.block)) for i in range(array.shape[0])]
        stored, back = ([pair[k].T for pair in rows] for k in (0, 1))
        return np.concatenate(stored), np.concatenate(back)
    kind = getattr(onnx.TensorProto, how.scheme.dtype.upper())
    floats, ints = onnx.TensorProto.FLOAT, kind
    shape = list(how.scale.shape)
    axis = {} if how.axis is None else {"axis": how.axis}
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], **axis),
            onnx.helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], **axis),
        ],
        "g",
        [
            onnx.helper.make_tensor_value_info("x", floats, array.shape),
            onnx.helper.make_tensor_value_info("scale", floats, shape),
            onnx.helper.make_tensor_value_info("zero", ints, shape),
        ],
        [
            onnx.helper.make_tensor_value_info("q", ints, array.shape),
            onnx.helper.make_tensor_value_info("y", floats, array.shape),
        ],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)])
    stored, back = ReferenceEvaluator(model).run(None, {"x": array, "scale": how.scale, "zero": how.zero_point})
    return stored, back


def _row(how: Quantization, block: int) -> Quantization:
    scheme = Scheme(how.scheme.dtype, how.scheme.symmetric, "channel")
    return Quantization(scheme, how.scale[block], how.zero_point[block], 0)
