"""Values that are quantized again as they were, and what only moves them in between."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx_ir
from onnx_ir import DataType

from onnxopt.rewrite.reading import constant, only_reader, producer
from onnxopt.rewrite.rule import Miss, Outcome, Replacement, Rule, same

_MOVING = ("Flatten", "MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
"""Operators whose results are some of their input's values, in every type of 8 bits."""

_EXACT = frozenset({DataType.INT8, DataType.UINT8})
"""Types whose values all survive the way to float32 and back."""


class Requantize(Rule):
    """A QuantizeLinear of what a DequantizeLinear by the same scale and zero point made is what was quantized."""

    name: ClassVar[str] = "requantize"
    operators: ClassVar[frozenset[str]] = frozenset({"QuantizeLinear"})

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if scale, zero point, axis and type are the same."""
        first = producer(node.inputs[0], "DequantizeLinear")
        if first is None:
            return None
        return _difference(first, node) or same(first.inputs[0], node)


class MoveQuantized(Rule):
    """What only moves values moves them as they are, instead of dequantized and quantized again."""

    name: ClassVar[str] = "move-quantized"
    operators: ClassVar[frozenset[str]] = frozenset({"QuantizeLinear"})
    since: ClassVar[int] = 13

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if one scale holds for all values before and after."""
        move = producer(node.inputs[0], *_MOVING)
        first = producer(move.inputs[0], "DequantizeLinear") if move is not None else None
        if move is None or first is None:
            return None
        if not only_reader(move.outputs[0], node) or len([value for value in move.outputs if value.uses()]) > 1:
            return Miss("what is moved is read elsewhere too", move)
        scale = constant(first.inputs[1])
        if scale is None or scale.size != 1:
            return Miss("its scale is not one number for all values", first)
        inputs = [first.inputs[0], *move.inputs[1:]]
        made = onnx_ir.Node("", move.op_type, inputs, list(move.attributes.values()), name=move.name)
        return _difference(first, node) or Replacement((made.outputs[0],), (made,))


def _difference(first: onnx_ir.Node, node: onnx_ir.Node) -> Miss | None:
    """Return why quantizing does not undo dequantizing."""
    for slot, what in ((1, "scale"), (2, "zero point")):
        before, after = (one.inputs[slot] if len(one.inputs) > slot else None for one in (first, node))
        if before is not after and not _equal(before, after):
            return Miss(f"the {what} is another, or not constant", node)
    if first.attributes.get_int("axis", 1) != node.attributes.get_int("axis", 1):
        return Miss("the axis of the scales is another", node)
    quantized = first.inputs[0]
    if quantized is None or quantized.dtype not in _EXACT or quantized.dtype != node.outputs[0].dtype:
        return Miss("the quantized type is another, or not one of 8 bits", node)
    return None


def _equal(a: onnx_ir.Value | None, b: onnx_ir.Value | None) -> bool:
    x, y = constant(a), constant(b)
    return x is not None and y is not None and x.dtype == y.dtype and np.array_equal(x, y)


QUANTIZED: tuple[Rule, ...] = (Requantize(), MoveQuantized())
