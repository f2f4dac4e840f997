"""Nodes that move or retype values, one after the other, made one or none."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import onnx_ir
from onnx_ir import DataType

from onnxopt.rewrite.reading import Array, constant, integers, only_reader, permuted, producer, rank, weight
from onnxopt.rewrite.rule import Miss, Outcome, Rule, replaced_by, same
from onnxopt.rewrite.scales import scaled_input

_RESHAPING = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")


class TransposeChain(Rule):
    """Two Transposes in a row become one, or none where they undo each other."""

    name: ClassVar[str] = "transpose-chain"
    operators: ClassVar[frozenset[str]] = frozenset({"Transpose"})

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if the input comes from a Transpose."""
        first = producer(node.inputs[0], "Transpose")
        if first is None:
            return None
        before, then = _order(first), _order(node)
        if before is None or then is None:
            return Miss("the number of axes it reverses is not known", first if before is None else node)
        order = permuted(before, then)
        source = first.inputs[0]
        if order == tuple(range(len(order))):
            return same(source, node)
        return replaced_by("Transpose", [source], {"perm": order})


class ReshapeChain(Rule):
    """A Reshape of what was only reshaped before reads the original."""

    name: ClassVar[str] = "reshape-chain"
    operators: ClassVar[frozenset[str]] = frozenset({"Reshape"})

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if the wanted shape does not copy dimensions of its input."""
        first = producer(node.inputs[0], *_RESHAPING)
        if first is None:
            return None
        shape = constant(node.inputs[1])
        if shape is None:
            return Miss("the shape is computed, and a 0 in it would copy a dimension", node)
        allowed = node.attributes.get_int("allowzero", 0)
        if not allowed and (shape == 0).any():
            return Miss("a 0 in the shape copies a dimension of what was reshaped before", node)
        return replaced_by("Reshape", [first.inputs[0], node.inputs[1]], {"allowzero": 1} if allowed else None)


class SqueezeUnsqueeze(Rule):
    """An Unsqueeze and a Squeeze of the same axes undo each other, in either order."""

    name: ClassVar[str] = "squeeze-unsqueeze"
    operators: ClassVar[frozenset[str]] = frozenset({"Squeeze", "Unsqueeze"})

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if both name the same axes."""
        first = producer(node.inputs[0], "Squeeze" if node.op_type == "Unsqueeze" else "Unsqueeze")
        if first is None:
            return None
        before, then = _axes(first), _axes(node)
        if before is None or then is None:
            return Miss("the axes are not known", first if before is None else node)
        return same(first.inputs[0], node) if before == then else Miss("the axes differ", node)


class ConstantChain(Rule):
    """Two numbers, or arrays, multiplied or added one after the other are one."""

    name: ClassVar[str] = "constant-chain"
    operators: ClassVar[frozenset[str]] = frozenset({"Add", "Mul"})

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if nothing else reads what is between, and the joint constant is no larger than the larger one."""
        slot = scaled_input(node)
        first = producer(node.inputs[slot], node.op_type) if slot is not None else None
        inner = scaled_input(first) if first is not None else None
        if slot is None or first is None or inner is None:
            return None
        if not only_reader(first.outputs[0], node):
            return Miss("what is between is read elsewhere too", first)
        a, b = constant(first.inputs[1 - inner]), constant(node.inputs[1 - slot])
        if a is None or b is None or a.dtype.kind != "f" or (a.size != 1 and b.size != 1 and a.shape != b.shape):
            return Miss("the constants are not of one shape, or no floating-point numbers", node)
        joint = a.astype(np.float64) * b if node.op_type == "Mul" else a.astype(np.float64) + b
        if not _fits(joint, a.dtype):
            return Miss("the joint constant is too large or too small for its type", node)
        made = weight(f"{node.outputs[0].name}_joint", joint, a)
        return replaced_by(node.op_type, [first.inputs[inner], made], weights=(made,))


def _fits(array: Array, dtype: np.dtype[Any]) -> bool:
    """Whether numbers stay finite, and other than zero, in a type."""
    with np.errstate(over="ignore", under="ignore"):
        cast = array.astype(dtype)
    return bool(np.isfinite(cast).all() and ((cast == 0) == (array == 0)).all())


class CastChain(Rule):
    """A Cast of a value that was cast to a type that holds it exactly casts the original."""

    name: ClassVar[str] = "cast-chain"
    operators: ClassVar[frozenset[str]] = frozenset({"Cast"})

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if the type between holds every value of the first."""
        first = producer(node.inputs[0], "Cast")
        source = first.inputs[0] if first is not None else None
        if first is None or source is None or source.dtype is None:
            return None
        between, last = first.outputs[0].dtype, node.outputs[0].dtype
        if between is None or last is None:
            return None
        if between not in _EXACT.get(source.dtype, ()):
            return Miss(f"{between.name} does not hold every value of {source.dtype.name}", first)
        if last == source.dtype:
            return same(source, node)
        return replaced_by("Cast", [source], {"to": last.value})


_SMALL_FLOATS = {DataType.FLOAT16, DataType.BFLOAT16}
_EXACT: dict[DataType, set[DataType]] = {
    DataType.FLOAT16: {DataType.FLOAT, DataType.DOUBLE},
    DataType.BFLOAT16: {DataType.FLOAT, DataType.DOUBLE},
    DataType.FLOAT: {DataType.DOUBLE},
    DataType.INT8: {DataType.INT16, DataType.INT32, DataType.INT64, DataType.FLOAT, DataType.DOUBLE, *_SMALL_FLOATS},
    DataType.UINT8: {DataType.INT16, DataType.INT32, DataType.INT64, DataType.FLOAT, DataType.DOUBLE, *_SMALL_FLOATS},
    DataType.INT32: {DataType.INT64, DataType.DOUBLE},
    DataType.BOOL: {DataType.INT32, DataType.INT64, DataType.UINT8, DataType.INT8, DataType.FLOAT, DataType.DOUBLE},
}
"""For each type, the types that hold each of its values: a cast there and on is a cast on."""


def _order(node: onnx_ir.Node) -> tuple[int, ...] | None:
    order = node.attributes.get("perm")
    if order is not None:
        return tuple(order.as_ints())
    axes = rank(node.inputs[0])
    return None if axes is None else tuple(reversed(range(axes)))


def _axes(node: onnx_ir.Node) -> frozenset[int] | None:
    """Return the axes a Squeeze removes or an Unsqueeze adds, counted in the longer of the two shapes."""
    axes = integers(node, "axes", 1)
    longer = node.inputs[0] if node.op_type == "Squeeze" else node.outputs[0]
    total = rank(longer)
    if axes is None or (total is None and any(axis < 0 for axis in axes)):
        return None
    return frozenset(axis + total if axis < 0 and total is not None else axis for axis in axes)


CHAINS: tuple[Rule, ...] = (TransposeChain(), ReshapeChain(), SqueezeUnsqueeze(), ConstantChain(), CastChain())
