"""Normalisations over the last axis, as one operator or spelled out."""

from __future__ import annotations

import onnx_ir

from onnxopt.ir.weights import constant_tensor
from onnxopt.prune.sizes import Sizes

_WHOLE = frozenset({"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"})

_PARTS = frozenset({"Add", "Cast", "Div", "Mul", "Pow", "ReduceMean", "Reciprocal", "Sqrt", "Sub"})
"""What one is spelled out with: around a mean, operators one by one."""


class Normalised:
    """The normalisations of a graph that are all that reads their input."""

    def __init__(self, graph: onnx_ir.Graph, sizes: Sizes) -> None:
        """Find them in a sorted graph of these shapes."""
        self._after: dict[onnx_ir.Value, onnx_ir.Value] = {}
        self._made: set[onnx_ir.Value] = set()
        for node in graph:
            value = node.inputs[0] if node.inputs else None
            if value is None or value in self._after:
                continue
            if node.op_type in _WHOLE:
                self._add(value, node.outputs[0], alone=len(value.uses()) == 1 and not value.is_graph_output())
            elif node.op_type == "ReduceMean" and (end := _spelled_out(value, sizes)) is not None:
                self._add(value, end, alone=True)

    def after(self, value: onnx_ir.Value) -> onnx_ir.Value | None:
        """Return what a value is normalised to if nothing else reads it."""
        return self._after.get(value)

    def made(self, value: onnx_ir.Value) -> bool:
        """Whether a value is what one makes."""
        return value in self._made

    def _add(self, value: onnx_ir.Value, end: onnx_ir.Value, *, alone: bool) -> None:
        self._made.add(end)
        if alone:
            self._after[value] = end


def _spelled_out(start: onnx_ir.Value, sizes: Sizes) -> onnx_ir.Value | None:
    """Return the last value of the shape of ``start`` that all that is read of ``start`` goes through."""
    inside, pending, end = {start}, _readers(start), None
    while (node := next((node for node in pending if _ready(node, inside)), None)) is not None:
        made = node.outputs[0]
        inside.add(made)
        pending = {**{one: None for one in pending if one is not node}, **_readers(made)}
        past = all(_is_past(value, inside) for value in inside - {made})
        if past and sizes.get(made.name or "") == sizes.get(start.name or "", ()):
            end = made
    return end


def _readers(value: onnx_ir.Value) -> dict[onnx_ir.Node, None]:
    return {use.node: None for use in value.uses()}


def _ready(node: onnx_ir.Node, inside: set[onnx_ir.Value]) -> bool:
    """Whether a node is part of a normalisation: it computes of nothing but what is inside, and constants."""
    if node.op_type not in _PARTS or len(node.outputs) != 1:
        return False
    return all(value is None or value in inside or constant_tensor(value) is not None for value in node.inputs)


def _is_past(value: onnx_ir.Value, inside: set[onnx_ir.Value]) -> bool:
    """Whether everything that reads a value is inside."""
    return not value.is_graph_output() and all(use.node.outputs[0] in inside for use in value.uses())
