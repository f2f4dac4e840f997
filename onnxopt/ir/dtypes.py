"""Names and sizes of ONNX element types."""

from __future__ import annotations

import onnx_ir

FLOATS = frozenset(
    {
        onnx_ir.DataType.FLOAT,
        onnx_ir.DataType.FLOAT16,
        onnx_ir.DataType.BFLOAT16,
        onnx_ir.DataType.DOUBLE,
    }
)
_NUMPY_STYLE = {"float": "float32", "double": "float64"}


def dtype_name(dtype: onnx_ir.DataType) -> str:
    """Return the name numpy (or ml_dtypes) uses: ``float32``, not ``FLOAT``."""
    name = dtype.name.lower()
    return _NUMPY_STYLE.get(name, name)


def type_name(value: onnx_ir.Value) -> str:
    """Return the dtype of a tensor value, ``sequence<float32>`` or the like for others, ``?`` if unknown."""
    return _type_text(value.type)


def _type_text(kind: onnx_ir.TypeProtocol | None) -> str:
    if kind is None:
        return "?"
    inner = kind.elem_type
    if isinstance(inner, onnx_ir.DataType):
        return dtype_name(inner)
    word = type(kind).__name__.removesuffix("Type").lower()
    return f"{word}<{_type_text(inner)}>"
