"""Shapes that are computed at run time and need not be."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx_ir

from onnxopt.rewrite.reading import constant, only_reader, producer, weight
from onnxopt.rewrite.rule import Miss, Outcome, Replacement, Rule, replaced_by, same
from onnxopt.rewrite.sizes import Size, dimensions, held


class ConstantReshape(Rule):
    """A Reshape to numbers, copied dimensions and at most one computed one needs no shape made at run time."""

    name: ClassVar[str] = "constant-reshape"
    operators: ClassVar[frozenset[str]] = frozenset({"Reshape"})

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if a 0, which copies, and one -1 can say all that is computed."""
        wanted, have = held(node.inputs[1]), dimensions(node.inputs[0])
        allowed = node.attributes.get_int("allowzero", 0)
        if wanted is None or constant(node.inputs[1]) is not None or allowed:
            return None
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


SHAPES: tuple[Rule, ...] = (ConstantReshape(), ViewChain(), NoOpExpand())
