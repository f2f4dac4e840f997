"""Walking every tensor and graph of a model, in branches and functions too."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import onnx_ir

from onnxopt.errors import UsageError, did_you_mean


def all_graphs(model: onnx_ir.Model) -> Iterator[onnx_ir.Graph]:
    """Yield the main graph, each function's, and the branches of If, Loop and Scan inside them."""
    roots = [model.graph, *(function.graph for function in model.functions.values())]
    for root in roots:
        yield root
        yield from root.subgraphs()


def subgraphs(node: onnx_ir.Node) -> Iterator[onnx_ir.Graph]:
    """Yield the graphs held by a node's attributes: the branches of an If, the body of a Loop."""
    for attribute in node.attributes.values():
        if attribute.type == onnx_ir.AttributeType.GRAPH and not attribute.is_ref():
            yield attribute.as_graph()
        elif attribute.type == onnx_ir.AttributeType.GRAPHS and not attribute.is_ref():
            yield from attribute.as_graphs()


def all_nodes(model: onnx_ir.Model) -> Iterator[onnx_ir.Node]:
    """Yield every node of every graph."""
    for graph in all_graphs(model):
        yield from graph


def all_tensors(model: onnx_ir.Model) -> Iterator[tuple[str, onnx_ir.TensorProtocol]]:
    """Yield a place and the tensor there, for each initializer and each tensor attribute."""
    for graph in all_graphs(model):
        for name, value in graph.initializers.items():
            if value.const_value is not None:
                yield f"initializer {name!r}", value.const_value
        for node in graph:
            yield from _attribute_tensors(node)


def _attribute_tensors(node: onnx_ir.Node) -> Iterator[tuple[str, onnx_ir.TensorProtocol]]:
    for attribute in node.attributes.values():
        if attribute.type == onnx_ir.AttributeType.TENSOR and not attribute.is_ref():
            yield f"node {node.name!r} ({node.op_type}), attribute {attribute.name!r}", attribute.as_tensor()
        elif attribute.type == onnx_ir.AttributeType.TENSORS and not attribute.is_ref():
            for tensor in attribute.as_tensors():
                yield f"node {node.name!r} ({node.op_type}), attribute {attribute.name!r}", tensor


def refuse_unknown(names: Collection[str], graph: onnx_ir.Model, what: str = "to leave in float") -> None:
    """Raise UsageError if there is no node of a name; ``what`` tells what was to be done to it."""
    known = [node.name or "" for node in all_nodes(graph)]
    for name in names:
        if name not in known:
            raise UsageError(f"there is no node {name!r} {what}", hint=did_you_mean(name, known))
