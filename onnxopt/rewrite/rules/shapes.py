"""Shapes that are computed at run time and need not be."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import onnx_ir
from onnx_ir import DataType

from onnxopt.ir.shapes import known_shape
from onnxopt.rewrite.reading import constant, integers, only_reader, producer, slice_steps, weight
from onnxopt.rewrite.rule import Miss, Outcome, Replacement, Rule, replaced_by, same
from onnxopt.rewrite.sizes import Size, dimensions, held


class ConstantReshape(Rule):
    """A Reshape to numbers, copied dimensions and at most one computed one needs no shape made at run time."""

    name: ClassVar[str] = "constant-reshape"
    operators: ClassVar[frozenset[str]] = frozenset({"Reshape"})
    reveals_shapes: ClassVar[bool] = True

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if a 0, which copies, and one -1 can say all that is computed."""
        wanted, have = held(node.inputs[1]), dimensions(node.inputs[0])
        if wanted is None or constant(node.inputs[1]) is not None:
            return None
        if node.attributes.get_int("allowzero", 0) and 0 in wanted:
            return Miss("a 0 in its shape is an empty dimension", node)
        shape = _constant_shape(wanted, have or ())
        if isinstance(shape, list):
            return Miss(f"its dimensions {shape} are computed", node)
        return _reshaped(node.inputs[0], shape, node)


class ViewChain(Rule):
    """A Flatten, Squeeze, Unsqueeze, or Transpose of axes of one, of what was only reshaped becomes one Reshape."""

    name: ClassVar[str] = "view-chain"
    operators: ClassVar[frozenset[str]] = frozenset({"Flatten", "Squeeze", "Transpose", "Unsqueeze"})
    since: ClassVar[int] = 5

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if numbers, copied dimensions and at most one other make up the shape of the result."""
        first = producer(node.inputs[0], "Flatten", "Reshape", "Squeeze", "Unsqueeze")
        wanted = dimensions(node.outputs[0])
        if first is None or wanted is None or (node.op_type == "Transpose" and _turns(node)):
            return None
        if not only_reader(first.outputs[0], node):
            return Miss("what is reshaped first is read elsewhere too", first)
        shape = _constant_shape(wanted, dimensions(first.inputs[0]) or ())
        if isinstance(shape, list):
            return Miss(f"its dimensions {shape} are computed", node)
        return _reshaped(first.inputs[0], shape, node)


def _turns(node: onnx_ir.Node) -> bool:
    """Whether a Transpose changes the order of axes that are not known to be one long."""
    have, order = dimensions(node.inputs[0]), node.attributes.get_ints("perm")
    if have is None or order is None:
        return True
    moved = [axis for axis in order if have[axis] != 1]
    return moved != sorted(moved)


def _constant_shape(wanted: tuple[Size, ...], have: tuple[Size, ...]) -> tuple[int, ...] | list[int]:
    """Return a shape as a Reshape's constant says it, or the axes that would have to be computed.

    Besides a computed dimension, only numbers above 0 will do: with a copied one, an empty batch would have no -1.
    """
    shape = [_entry(one, axis, have) for axis, one in enumerate(wanted)]
    computed = [axis for axis, one in enumerate(shape) if one is None]
    if computed and (len(computed) > 1 or not all(one is None or one > 0 for one in shape)):
        return computed
    return tuple(-1 if one is None else one for one in shape)


def _entry(wanted: Size, axis: int, have: tuple[Size, ...]) -> int | None:
    """Return a dimension as a Reshape's constant says it, None if it must be computed."""
    if isinstance(wanted, int):
        return wanted
    return 0 if axis < len(have) and have[axis] == wanted else None


def _reshaped(source: onnx_ir.Value | None, shape: tuple[int, ...], node: onnx_ir.Node) -> Replacement:
    made = weight(f"{node.outputs[0].name}_shape", np.array(shape, np.int64))
    return replaced_by("Reshape", [source, made], weights=(made,))


class NoOpExpand(Rule):
    """An Expand to the shape its input has, or to ones."""

    name: ClassVar[str] = "no-op-expand"
    operators: ClassVar[frozenset[str]] = frozenset({"Expand"})

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if every dimension it asks for is 1 or the one that is there."""
        wanted, have = held(node.inputs[1]), dimensions(node.inputs[0])
        if wanted is None or have is None or len(wanted) > len(have):
            return None
        there = have[len(have) - len(wanted) :]
        return same(node.inputs[0], node) if all(a in (1, b) for a, b in zip(wanted, there, strict=True)) else None


class KnownDimensions(Rule):
    """What is computed of dimensions alone, and is the same numbers whatever the sizes, is a constant."""

    name: ClassVar[str] = "known-dimensions"
    operators: ClassVar[frozenset[str]] = frozenset(
        {"Add", "Cast", "Concat", "Div", "Gather", "Mul", "Slice", "Squeeze", "Sub", "Unsqueeze"}
    )
    reveals_shapes: ClassVar[bool] = True

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if the result is a scalar or vector of integers that are all known."""
        made = node.outputs[0]
        shape = known_shape(made)
        if made.dtype not in (DataType.INT32, DataType.INT64) or shape is None or len(shape) > 1:
            return None
        numbers = [one for one in held(made) or () if isinstance(one, int) and abs(one) < _LARGE]
        if len(numbers) != math.prod(shape) or not numbers:
            return None
        known = weight(f"{made.name}_known", np.array(numbers, made.dtype.numpy()).reshape(shape))
        return Replacement((known,), weights=(known,))


_LARGE = 1 << 31
"""What a dimension never reaches; larger numbers stand for the end of an axis, and another type may not hold them."""


class SliceOfShape(Rule):
    """A Slice of the Shape of a value, or a Gather of one of its dimensions, is a Shape from there to there."""

    name: ClassVar[str] = "slice-of-shape"
    operators: ClassVar[frozenset[str]] = frozenset({"Gather", "Slice"})
    since: ClassVar[int] = 15

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if what it takes is constant and in one piece, and the Shape is whole."""
        first = producer(node.inputs[0], "Shape")
        if first is None:
            return None
        if first.attributes:
            return Miss("it is a part of the shape already", first)
        bounds = _taken_at(node) if node.op_type == "Gather" else _cut_at(node)
        if bounds is None:
            return Miss("what it takes is not constant and in one piece", node)
        start, end = bounds
        return replaced_by("Shape", first.inputs, {"start": start, **({} if end is None else {"end": end})})


def _taken_at(node: onnx_ir.Node) -> tuple[int, int | None] | None:
    """Return the first place a Gather takes, and the one after its last, None for all that follow."""
    index = constant(node.inputs[1])
    if index is None or index.shape != (1,):
        return None
    return int(index[0]), int(index[0]) + 1 or None


def _cut_at(node: onnx_ir.Node) -> tuple[int, int | None] | None:
    starts, ends = (integers(node, "", slot) for slot in (1, 2))
    if starts is None or ends is None or slice_steps(node, 1) != (1,):
        return None
    return max(starts[0], -_MOST_AXES), ends[0] if ends[0] <= _MOST_AXES else None


_MOST_AXES = 1 << 10
"""What counts from further than this counts from the first, or to the last, axis; runtimes take far fewer."""

SHAPES: tuple[Rule, ...] = (ConstantReshape(), ViewChain(), NoOpExpand(), KnownDimensions(), SliceOfShape())
