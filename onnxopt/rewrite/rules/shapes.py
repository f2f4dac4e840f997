"""Shapes that are computed at run time and need not be."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx_ir

from onnxopt.rewrite.reading import constant, weight
from onnxopt.rewrite.rule import Miss, Outcome, Replacement, Rule, same
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
        shape = [self._entry(one, axis, have or ()) for axis, one in enumerate(wanted)]
        computed = [axis for axis, one in enumerate(shape) if one is None]
        if computed and (len(computed) > 1 or not all(one is None or one > 0 for one in shape)):
            return Miss(f"its dimensions {computed} are computed", node)
        array = np.array([-1 if one is None else one for one in shape], np.int64)
        made = weight(f"{node.outputs[0].name}_shape", array)
        tape = onnx_ir.tape.Tape()
        return Replacement((tape.op("Reshape", [node.inputs[0], made]),), tuple(tape.nodes), (made,))

    def _entry(self, wanted: Size, axis: int, have: tuple[Size, ...]) -> int | None:
        """Return a dimension as a Reshape's constant says it, None if it must be computed."""
        if isinstance(wanted, int):
            return wanted
        return 0 if axis < len(have) and have[axis] == wanted else None


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


SHAPES: tuple[Rule, ...] = (ConstantReshape(), NoOpExpand())
