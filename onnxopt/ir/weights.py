"""Weights wherever they are: initializers, Constant nodes, branches of If and Loop, behind Transpose or Cast.

A tool that looks for weights only among the initializers misses all of PaddlePaddle's exports (Constant nodes),
every LLM export that keeps Transpose in the graph, and every quantized model (DequantizeLinear).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir

from onnxopt.ir.traverse import all_graphs

VIEWS = frozenset({"Cast", "DequantizeLinear", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators through which a stored tensor still counts as the weight of the node behind them."""


@dataclass(frozen=True)
class Weight:
    """A stored tensor as one node reads it.

    Attributes:
        tensor: The stored tensor.
        source: The value that holds it: an initializer, or the output of a Constant node.
        consumer: The node that computes with it.
        slot: Which input of the consumer it feeds.
        views: The nodes between source and consumer, first to last.
    """

    tensor: onnx_ir.TensorProtocol
    source: onnx_ir.Value
    consumer: onnx_ir.Node
    slot: int
    views: tuple[onnx_ir.Node, ...] = ()

    @property
    def stored_as(self) -> str:
        """``initializer`` or ``constant``, and the views, such as ``initializer > Transpose``."""
        kind = "initializer" if self.source.producer() is None else "constant"
        return " > ".join([kind, *(node.op_type for node in self.views)])


def weights(model: onnx_ir.Model, *, overridable: bool = False) -> Iterator[Weight]:
    """Yield every stored tensor with the node that computes with it, in all graphs of the model.

    Args:
        model: The model.
        overridable: Whether weights that are graph inputs too, so that a caller may replace them, count.
    """
    for graph in all_graphs(model):
        for node in graph:
            if node.op_type in VIEWS and node.inputs and _trace(node.inputs[0], overridable):
                continue
            for slot, value in enumerate(node.inputs):
                found = _trace(value, overridable)
                if found is not None:
                    yield Weight(found.tensor, found.source, node, slot, found.views)


def constant_tensor(value: onnx_ir.Value | None, *, overridable: bool = False) -> onnx_ir.TensorProtocol | None:
    """Return the tensor a value always holds: that of an initializer or a Constant node.

    An initializer that is a graph input too may be overridden by a caller; it counts only if ``overridable``.
    """
    if value is None or (value.is_graph_input() and not overridable):
        return None
    if value.const_value is not None:
        return value.const_value
    node = value.producer()
    if node is None or node.op_type != "Constant" or node.domain not in ("", "ai.onnx"):
        return None
    return _constant_attribute(node)


def _constant_attribute(node: onnx_ir.Node) -> onnx_ir.TensorProtocol | None:
    for attribute in node.attributes.values():
        if attribute.is_ref():
            return None
        match attribute.type:
            case onnx_ir.AttributeType.TENSOR:
                return attribute.as_tensor()
            case onnx_ir.AttributeType.INT | onnx_ir.AttributeType.INTS:
                return onnx_ir.tensor(np.asarray(attribute.value, np.int64))
            case onnx_ir.AttributeType.FLOAT | onnx_ir.AttributeType.FLOATS:
                return onnx_ir.tensor(np.asarray(attribute.value, np.float32))
    return None


@dataclass(frozen=True)
class _Stored:
    tensor: onnx_ir.TensorProtocol
    source: onnx_ir.Value
    views: tuple[onnx_ir.Node, ...]


def _trace(value: onnx_ir.Value | None, overridable: bool) -> _Stored | None:
    """Walk up through views to the stored tensor a value comes from."""
    views: list[onnx_ir.Node] = []
    while value is not None:
        tensor = constant_tensor(value, overridable=overridable)
        if tensor is not None:
            return _Stored(tensor, value, tuple(reversed(views)))
        node = value.producer()
        if node is None or node.op_type not in VIEWS or not node.inputs:
            return None
        views.append(node)
        value = node.inputs[0]
    return None


def weight_value(name: str, array: np.ndarray[Any, Any]) -> onnx_ir.Value:
    """Return an array as a value that can be registered as an initializer."""
    tensor = onnx_ir.tensor(np.asarray(array, order="C"), name=name)
    shape = onnx_ir.Shape(array.shape)
    return onnx_ir.Value(name=name, shape=shape, type=onnx_ir.TensorType(tensor.dtype), const_value=tensor)


def add_weight(graph: onnx_ir.Graph | None, value: onnx_ir.Value) -> onnx_ir.Value:
    """Make a value an initializer of a graph, under its name or one like it that no other initializer has."""
    assert isinstance(graph, onnx_ir.Graph)
    wanted, count = value.name, 0
    while value.name in graph.initializers:
        count += 1
        value.name = f"{wanted}_{count}"
    graph.register_initializer(value)
    return value


def along_last_axis(array: np.ndarray[Any, Any], count: int) -> np.ndarray[Any, Any] | None:
    """Return an array of one number, or of ``count`` along its last axis alone, as [count]; else None."""
    if array.size not in (1, count) or (array.ndim and array.shape[-1] != array.size):
        return None
    return np.broadcast_to(array.reshape(-1), (count,))
