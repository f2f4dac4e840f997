"""Removing what a graph does not need, in place; the passes of ``rewrite/cleanup`` are made of these."""

from __future__ import annotations

import onnx_ir
import onnx_ir.passes.common as onnx_ir_passes

from onnxopt.ir.digest import tensor_digest
from onnxopt.ir.traverse import all_graphs


def freeze_weights(graph: onnx_ir.Model) -> None:
    """Drop graph inputs that have a default, in place; IR version 4 is the first that allows it (ONNX IR spec)."""
    if any(value.is_initializer() for value in graph.graph.inputs):
        onnx_ir_passes.RemoveInitializersFromInputsPass()(graph)
        graph.ir_version = max(graph.ir_version or 0, 4)


def lift_constants(graph: onnx_ir.Model) -> None:
    """Turn Constant nodes of every graph into initializers, in place."""
    onnx_ir_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph)


def remove_identities(graph: onnx_ir.Model) -> None:
    """Remove Identity nodes, in place.

    They stay where an output is a copy of an input, of another output, or of an outer graph's value. (onnx-ir's own
    pass removes the last two as well, which makes an invalid model.)
    """
    for one in all_graphs(graph):
        for node in [node for node in one if node.op_type == "Identity" and node.domain in ("", "ai.onnx")]:
            _remove_identity(one, node)


def merge_equal_weights(graph: onnx_ir.Model) -> None:
    """Keep one of several equal weights of a graph, in place; equal by the digest that the model's own is made of."""
    for one in all_graphs(graph):
        kept: dict[str, onnx_ir.Value] = {}
        for name, value in list(one.initializers.items()):
            if value.const_value is None or value.is_graph_input() or value.is_graph_output():
                continue
            first = kept.setdefault(tensor_digest(value.const_value), value)
            if first is not value:
                value.replace_all_uses_with(first)
                del one.initializers[name]


def merge_equal_nodes(graph: onnx_ir.Model) -> None:
    """Keep one of several nodes that compute the same, in place."""
    onnx_ir_passes.CommonSubexpressionEliminationPass()(graph)


def remove_unused(graph: onnx_ir.Model) -> None:
    """Remove whatever no output needs, in place; inputs stay, for they are the interface."""
    inputs = list(graph.graph.inputs)
    onnx_ir_passes.RemoveUnusedNodesPass()(graph)
    onnx_ir_passes.RemoveUnusedFunctionsPass()(graph)  # type: ignore[no-untyped-call]
    onnx_ir_passes.RemoveUnusedOpsetsPass()(graph)
    if list(graph.graph.inputs) != inputs:
        graph.graph.inputs[:] = inputs
    for one in all_graphs(graph):
        for name in [name for name, value in one.initializers.items() if _unused(value)]:
            del one.initializers[name]


def _remove_identity(graph: onnx_ir.Graph, node: onnx_ir.Node) -> None:
    source, copy = node.inputs[0], node.outputs[0]
    if source is None:
        return
    if copy.is_graph_output():
        producer = source.producer()
        if producer is None or producer.graph is not graph or source.is_graph_output():
            return
        source.name, copy.name = copy.name, None
        source.type, source.shape = copy.type or source.type, copy.shape or source.shape
    copy.replace_all_uses_with(source, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _unused(value: onnx_ir.Value) -> bool:
    return not value.uses() and not value.is_graph_output() and not value.is_graph_input()
