"""Shape arithmetic followed through a graph: what small tensors of integers hold, as numbers and dimensions."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping

import onnx_ir

from onnxopt.ir.shapes import known_shape
from onnxopt.rewrite.reading import constant, integers, slice_steps

Size = int | str | tuple[object, ...]
"""A number, the name of a dimension, or an expression; two that are equal are the same number at run time."""

_INTEGERS = (onnx_ir.DataType.INT32, onnx_ir.DataType.INT64)
_DEEPEST = 24
_MOST = 32
"""Integers; tensors of more are no shapes."""


def dimensions(value: onnx_ir.Value | None) -> tuple[Size, ...] | None:
    """Return the dimensions of a value, if their number is known."""
    if value is None or value.shape is None:
        return None
    return tuple(
        dim if isinstance(dim, int) else dim.value or ("dimension", id(value), axis)
        for axis, dim in enumerate(value.shape)
    )


def held(value: onnx_ir.Value | None, depth: int = _DEEPEST) -> tuple[Size, ...] | None:
    """Return what a scalar or vector of integers holds, a scalar as one item; None if their number is not known."""
    array = constant(value)
    if array is not None:
        return (
            tuple(int(one) for one in array.reshape(-1)) if array.dtype.kind in "iu" and array.size <= _MOST else None
        )
    node = value.producer() if value is not None else None
    follow = _FOLLOWED.get(node.op_type) if node is not None and node.domain in ("", "ai.onnx") else None
    found = follow(node, depth - 1) if follow and node and depth else None
    return _unknown(value) if found is None else found


def _unknown(value: onnx_ir.Value | None) -> tuple[Size, ...] | None:
    shape = known_shape(value)
    if shape is None or len(shape) > 1 or (shape and shape[0] > _MOST):
        return None
    return tuple(("item", id(value), index) for index in range(shape[0] if shape else 1))


Followed = tuple[Size, ...] | None


def _shape(node: onnx_ir.Node, _: int) -> Followed:
    found = dimensions(node.inputs[0])
    end = node.attributes.get_int("end")
    return None if found is None else found[node.attributes.get_int("start", 0) : end]


def _same(node: onnx_ir.Node, depth: int) -> Followed:
    return held(node.inputs[0], depth)


def _cast(node: onnx_ir.Node, depth: int) -> Followed:
    """Return what is cast from integers to integers: a division between casts to float and back has other results."""
    source = node.inputs[0]
    integer = source is not None and source.dtype in _INTEGERS and node.outputs[0].dtype in _INTEGERS
    return held(source, depth) if integer else None


def _gather(node: onnx_ir.Node, depth: int) -> Followed:
    found, index = held(node.inputs[0], depth), constant(node.inputs[1])
    if found is None or index is None or node.attributes.get_int("axis", 0) not in (0, -1):
        return None
    return tuple(found[int(one)] for one in index.reshape(-1))


def _slice(node: onnx_ir.Node, depth: int) -> Followed:
    found, starts, ends = held(node.inputs[0], depth), integers(node, "starts", 1), integers(node, "ends", 2)
    steps = slice_steps(node, 1)
    if found is None or starts is None or ends is None or steps is None or len(starts) != 1:
        return None
    return found[starts[0] : ends[0] : steps[0]]


def _concat(node: onnx_ir.Node, depth: int) -> Followed:
    parts = [held(value, depth) for value in node.inputs]
    return None if None in parts else tuple(one for part in parts if part for one in part)


def _arithmetic(node: onnx_ir.Node, depth: int) -> Followed:
    left, right = (held(value, depth) for value in node.inputs)
    if left is None or right is None or (1 not in (len(left), len(right)) and len(left) != len(right)):
        return None
    size = max(len(left), len(right))
    return tuple(_result(node.op_type, left[i % len(left)], right[i % len(right)]) for i in range(size))


def _result(name: str, a: Size, b: Size) -> Size:
    neutral = 0 if name in ("Add", "Sub") else 1
    if b == neutral:
        return a
    if a == neutral and name in ("Add", "Mul"):
        return b
    if isinstance(a, int) and isinstance(b, int) and (name != "Div" or (a >= 0 and b > 0)):
        return _NUMBERS[name](a, b)
    return (name, *(sorted((a, b), key=str) if name in ("Add", "Mul") else (a, b)))


_NUMBERS: Mapping[str, Callable[[int, int], int]] = {
    "Add": operator.add,
    "Div": operator.floordiv,
    "Mul": operator.mul,
    "Sub": operator.sub,
}

_FOLLOWED: Mapping[str, Callable[[onnx_ir.Node, int], Followed]] = {
    "Cast": _cast,
    "Concat": _concat,
    "Gather": _gather,
    "Identity": _same,
    "Reshape": _same,
    "Shape": _shape,
    "Slice": _slice,
    "Squeeze": _same,
    "Unsqueeze": _same,
    **dict.fromkeys(_NUMBERS, _arithmetic),
}
