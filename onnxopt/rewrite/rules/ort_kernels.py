"""Operators ONNX Runtime has slow kernels for, written as those it has fast ones for."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir

from onnxopt.rewrite.reading import constant, producer, weight
from onnxopt.rewrite.rule import Miss, Outcome, Replacement, Rule


class SpellOutPRelu(Rule):
    """PRelu behind a convolution is a * x + (1 - a) * Relu(x), which ONNX Runtime computes inside convolutions."""

    name: ClassVar[str] = "spell-out-prelu"
    operators: ClassVar[frozenset[str]] = frozenset({"PRelu"})
    since: ClassVar[int] = 7

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if there is one slope, or one for each channel."""
        value, slope = node.inputs[0], constant(node.inputs[1])
        conv = producer(value, "Conv")
        if conv is None or value is None or slope is None:
            return None
        rank = len(value.shape) if value.shape is not None else 0
        if slope.size != 1 and (slope.ndim != rank - 1 or slope.size != slope.shape[0]):
            return Miss(f"its slopes of shape {list(slope.shape)} are not one for each channel", node)
        rest = weight(f"{node.name}_rest", 1 - slope, slope)
        tape = onnx_ir.tape.Tape()
        kept = tape.op("Mul", [value, node.inputs[1]])
        added = tape.op("Mul", [tape.op("Relu", [value]), rest])
        return Replacement((tape.op("Add", [kept, added]),), tuple(tape.nodes), (rest,))


ORT_KERNELS: tuple[Rule, ...] = (SpellOutPRelu(),)
