"""Names of types are numpy's."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest

from onnxopt.ir.dtypes import FLOATS, dtype_name, type_name

TYPES = onnx_ir.DataType


@pytest.mark.parametrize("dtype", [TYPES.FLOAT, TYPES.DOUBLE, TYPES.FLOAT16, TYPES.INT8, TYPES.UINT64, TYPES.BOOL])
def test_names_are_numpys(dtype: onnx_ir.DataType) -> None:
    assert np.dtype(dtype_name(dtype)) == dtype.numpy()


@pytest.mark.parametrize(
    ("dtype", "name"), [(TYPES.BFLOAT16, "bfloat16"), (TYPES.STRING, "string"), (TYPES.INT4, "int4")]
)
def test_names_of_what_numpy_does_not_have(dtype: onnx_ir.DataType, name: str) -> None:
    assert dtype_name(dtype) == name


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (None, "?"),
        (onnx_ir.TensorType(TYPES.FLOAT), "float32"),
        (onnx_ir.SequenceType(onnx_ir.TensorType(TYPES.INT64)), "sequence<int64>"),
        (onnx_ir.OptionalType(onnx_ir.SequenceType(onnx_ir.TensorType(TYPES.DOUBLE))), "optional<sequence<float64>>"),
    ],
)
def test_type_names(kind: onnx_ir.TypeProtocol | None, name: str) -> None:
    assert type_name(onnx_ir.Value(name="v", type=kind)) == name


def test_floats_are_those_that_hold_weights() -> None:
    assert {dtype_name(dtype) for dtype in FLOATS} == {"float32", "float16", "bfloat16", "float64"}
