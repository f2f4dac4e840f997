"""Recurrent layers that are told what they assume anyway."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir

from onnxopt.rewrite.reading import constant, producer
from onnxopt.rewrite.rule import Outcome, Rule, remade

_STATES = (5, 6)
"""Inputs of GRU, LSTM and RNN that are states to start from; zeros where there are none (ONNX, operator LSTM)."""

_MOVING = ("Expand", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze")
"""Operators whose results are some of their first input's values."""


class ZeroInitialState(Rule):
    """A GRU, LSTM or RNN that starts from zeros need not be given them."""

    name: ClassVar[str] = "zero-initial-state"
    operators: ClassVar[frozenset[str]] = frozenset({"GRU", "LSTM", "RNN"})

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if a state holds nothing but zeros, however they are made."""
        states = {slot: node.inputs[slot] for slot in _STATES if slot < len(node.inputs)}
        zero = {slot for slot, value in states.items() if value is not None and _is_zero(value)}
        if not zero:
            return None
        inputs = [None if slot in zero else value for slot, value in enumerate(node.inputs)]
        while inputs[-1] is None:
            inputs.pop()
        return remade(node, inputs)


def _is_zero(value: onnx_ir.Value | None) -> bool:
    """Whether a value holds nothing but zeros, whatever its shape."""
    while (moved := producer(value, *_MOVING)) is not None:
        value = moved.inputs[0]
    filled = producer(value, "ConstantOfShape")
    if filled is not None:
        content = filled.attributes.get("value")
        return content is None or not content.as_tensor().numpy().any()
    array = constant(value)
    return array is not None and not array.any()


RECURRENT: tuple[Rule, ...] = (ZeroInitialState(),)
