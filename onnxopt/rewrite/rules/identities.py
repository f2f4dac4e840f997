"""Nodes that change nothing."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx_ir

from onnxopt.rewrite.reading import constant, integers, is_read, rank, same_shape
from onnxopt.rewrite.rule import Miss, Outcome, Rule, same


class NoOpCast(Rule):
    """A Cast to the type its input has."""

    name: ClassVar[str] = "no-op-cast"
    operators: ClassVar[frozenset[str]] = frozenset({"Cast", "CastLike"})

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if both types are known and the same."""
        before, after = node.inputs[0], node.outputs[0]
        if before is None or before.dtype is None or before.dtype != after.dtype:
            return None
        return same(before, node)


class NoOpDropout(Rule):
    """A Dropout that does not train."""

    name: ClassVar[str] = "no-op-dropout"
    operators: ClassVar[frozenset[str]] = frozenset({"Dropout"})

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire unless it trains, or its mask is read."""
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            training = constant(node.inputs[2])
            if training is None or training.any():
                return Miss("it may train", node)
        if len(node.outputs) > 1 and is_read(node.outputs[1]):
            return Miss("its mask is read", node)
        return same(node.inputs[0], node)


class NoOpReshape(Rule):
    """A Reshape, Flatten, Squeeze, Unsqueeze, Expand or Resize to the shape its input has."""

    name: ClassVar[str] = "no-op-reshape"
    operators: ClassVar[frozenset[str]] = frozenset({"Expand", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Tile"})

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if all dimensions are the same number or the same name."""
        if same_shape(node.inputs[0], node.outputs[0]):
            return same(node.inputs[0], node)
        return None


class NoOpTranspose(Rule):
    """A Transpose that leaves every axis where it is."""

    name: ClassVar[str] = "no-op-transpose"
    operators: ClassVar[frozenset[str]] = frozenset({"Transpose"})

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if the permutation is the identity."""
        order = node.attributes.get("perm")
        if order is None:
            return None
        axes = tuple(order.as_ints())
        return same(node.inputs[0], node) if axes == tuple(range(len(axes))) else None


class NoOpPad(Rule):
    """A Pad by nothing."""

    name: ClassVar[str] = "no-op-pad"
    operators: ClassVar[frozenset[str]] = frozenset({"Pad"})

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if every pad is known to be 0."""
        pads = integers(node, "pads", 1)
        return same(node.inputs[0], node) if pads is not None and not any(pads) else None


class NoOpSlice(Rule):
    """A Slice of all there is."""

    name: ClassVar[str] = "no-op-slice"
    operators: ClassVar[frozenset[str]] = frozenset({"Slice"})

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if it starts at 0, steps by 1, and ends at the end or beyond any."""
        starts, ends = integers(node, "starts", 1), integers(node, "ends", 2)
        if starts is None or ends is None:
            return None
        steps = integers(node, "steps", 4) if len(node.inputs) > 4 and node.inputs[4] is not None else None
        if any(starts) or (steps is not None and any(step != 1 for step in steps)):
            return None
        if all(end >= np.iinfo(np.int32).max for end in ends) or same_shape(node.inputs[0], node.outputs[0]):
            return same(node.inputs[0], node)
        return None


class SingleInput(Rule):
    """A Concat, Sum, Max, Min or Mean of one tensor."""

    name: ClassVar[str] = "single-input"
    operators: ClassVar[frozenset[str]] = frozenset({"Concat", "Max", "Mean", "Min", "Sum"})

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if there is one input."""
        return same(node.inputs[0], node) if len(node.inputs) == 1 else None


_NEUTRAL = {"Add": (0, (0, 1)), "Sub": (0, (1,)), "Mul": (1, (0, 1)), "Div": (1, (1,)), "Pow": (1, (1,))}
"""Operator: the number that changes nothing, and the inputs where it does not."""


class NeutralArithmetic(Rule):
    """Add or Sub of zeros, Mul, Div or Pow by ones."""

    name: ClassVar[str] = "neutral-arithmetic"
    operators: ClassVar[frozenset[str]] = frozenset(_NEUTRAL)

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if a constant input is neutral and does not widen the other by broadcasting."""
        number, slots = _NEUTRAL[node.op_type]
        for slot in slots:
            array = constant(node.inputs[slot])
            if array is not None and array.dtype.kind in "iuf" and array.size and (array == number).all():
                return self._without(node, node.inputs[1 - slot], array)
        return None

    def _without(
        self, node: onnx_ir.Node, kept: onnx_ir.Value | None, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]
    ) -> Outcome:
        ranks = rank(kept)
        if array.size == 1 and ranks is not None and array.ndim <= ranks:
            return same(kept, node)
        if same_shape(kept, node.outputs[0]):
            return same(kept, node)
        return Miss("the constant may widen the other input by broadcasting", node)


IDENTITIES: tuple[Rule, ...] = (
    NoOpCast(),
    NoOpDropout(),
    NoOpReshape(),
    NoOpTranspose(),
    NoOpPad(),
    NoOpSlice(),
    SingleInput(),
    NeutralArithmetic(),
)
