"""Bringing a graph to the form in which weights can be changed: each an initializer, numbers as inputs."""

from __future__ import annotations

import onnx_ir

from onnxopt.ir.cleanup import freeze_weights, lift_constants
from onnxopt.ir.fold import fold
from onnxopt.ir.opset import convert

OPSET = 13
"""From which on QuantizeLinear has an axis, and Split, Squeeze and reductions take their numbers as inputs."""


def write_out_weights(graph: onnx_ir.Model, growth: int) -> onnx_ir.Model:
    """Return a graph of at least opset 13 with every weight in an initializer; changed in place where it can be.

    Args:
        graph: The caller's own.
        growth: Bytes that a weight which is computed from constants may add.
    """
    freeze_weights(graph)
    if graph.opset_imports.get("", 0) < OPSET:
        graph = convert(graph, OPSET)
    lift_constants(graph)
    fold(graph, growth=growth)
    lift_constants(graph)
    return graph
