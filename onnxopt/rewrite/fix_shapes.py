"""The pass ``fix-shapes``: numbers for symbolic dimensions."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir

from onnxopt.context import Context
from onnxopt.errors import PassError, did_you_mean
from onnxopt.ir.shapes import forget_shapes, infer_shapes
from onnxopt.passes import Pass, option, options


@options
class FixShapes(Pass):
    """Give symbolic dimensions a number, so that runtimes can plan for it; other sizes no longer run."""

    name: ClassVar[str] = "fix-shapes"
    keeps_signature: ClassVar[bool] = False

    dims: dict[str, int] = option(
        "sizes by the dimension's name (batch=1), or by INPUT.AXIS where it has none (input.0=1)", default={}
    )

    def requires(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Refuse names that are no dimension, and sizes below 1."""
        known = sorted({key for value in graph.graph.inputs for key in _keys(value) if key is not None})
        for key, size in self.dims.items():
            if key not in known:
                raise PassError(f"no input has a dimension {key!r}", hint=did_you_mean(key, known))
            if size < 1:
                raise PassError(f"the dimension {key!r} cannot be {size}", hint="give 1 or more")

    def edit(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Set the dimensions of inputs, and infer every other shape anew."""
        for value in graph.graph.inputs:
            for axis, key in enumerate(_keys(value)):
                if key is not None and key in self.dims and value.shape is not None:
                    value.shape[axis] = self.dims[key]
        for value in graph.graph.outputs:
            _set_named(value, self.dims)
        forget_shapes(graph)
        infer_shapes(graph, outputs=True)


def _keys(value: onnx_ir.Value) -> list[str | None]:
    """Return for each axis the key that fixes it, None where it is fixed already."""
    return [_key(value, axis, dim) for axis, dim in enumerate(value.shape or ())]


def _key(value: onnx_ir.Value, axis: int, dim: int | onnx_ir.SymbolicDim) -> str | None:
    if isinstance(dim, int):
        return f"{value.name}.{axis}" if dim < 0 else None
    return f"{value.name}.{axis}" if dim.value in (None, "", "?") else dim.value


def _set_named(value: onnx_ir.Value, sizes: dict[str, int]) -> None:
    for axis, dim in enumerate(value.shape or ()):
        if isinstance(dim, onnx_ir.SymbolicDim) and dim.value in sizes and value.shape is not None:
            value.shape[axis] = sizes[dim.value]
