"""Moving operators to sixteen bits, in place, with Casts where types meet."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
import onnx_ir

from onnxopt.ir.traverse import subgraphs
from onnxopt.ir.weights import add_weight
from onnxopt.quantize.cast_ranges import REACH, float_tensors

_TYPED = frozenset({"Bernoulli", "BlackmanWindow", "Cast", "ConstantOfShape", "HammingWindow", "HannWindow"})
"""Operators whose attributes, and not their inputs, say what type they make."""


def obstacles(graph: onnx_ir.Model, target: onnx_ir.DataType, keep: Collection[str]) -> dict[onnx_ir.Node, str]:
    """Return why nodes of the main graph that compute in float32 cannot move to the target; None of the others.

    Args:
        graph: Shapes inferred.
        target: The sixteen-bit type.
        keep: Operator types and node names that stay.
    """
    opset = graph.opset_imports.get("", 0)
    found = {node: _obstacle(node, target, keep, opset) for node in graph.graph if float_tensors(node)}
    return {node: reason for node, reason in found.items() if reason is not None}


def _obstacle(node: onnx_ir.Node, target: onnx_ir.DataType, keep: Collection[str], opset: int) -> str | None:
    if node.op_type in keep or node.name in keep:
        return f"{node.op_type} is kept in float32" if node.op_type in keep else "it was asked to be left"
    if node.domain not in ("", "ai.onnx"):
        return f"it is no operator of ONNX's own but of {node.domain}"
    if list(subgraphs(node)):
        return "its branches compute in float32, and so must what they return"
    typed = node.op_type in _TYPED or "dtype" in node.attributes
    if typed and any(is_float32(value) for value in node.outputs):
        return "an attribute says that it makes float32"
    if any(value is not None and value.dtype is None for value in (*node.inputs, *node.outputs)):
        return "the type of a tensor is not known"
    if not _defined(node, target, opset):
        later = "; later ones do: convert it first" if _defined(node, target, onnx.defs.onnx_opset_version()) else ""
        return f"ONNX does not define it for {target.name.lower()} in opset {opset}{later}"
    for value in float_tensors(node):
        if value.const_value is not None and not fits(value.const_value, target):
            return f"constant {value.name!r} does not fit {target.name.lower()}"
    return None


def _defined(node: onnx_ir.Node, target: onnx_ir.DataType, opset: int) -> bool:
    """Whether the operator's schema allows the target wherever the node has float32."""
    schema = onnx.defs.get_schema(node.op_type, opset)
    allowed = {rule.type_param_str: set(rule.allowed_type_strs) for rule in schema.type_constraints}
    wanted = f"tensor({target.name.lower()})"
    for values, formals in ((node.inputs, schema.inputs), (node.outputs, schema.outputs)):
        for index, value in enumerate(values):
            formal = formals[min(index, len(formals) - 1)]
            types = allowed.get(formal.type_str, {formal.type_str})
            if value is not None and is_float32(value) and wanted not in types:
                return False
    return True


class Caster:
    """Moves operators to the target type, with Casts where types meet."""

    def __init__(self, graph: onnx_ir.Graph, target: onnx_ir.DataType) -> None:
        self._graph = graph
        self._target = target
        self._lowered: dict[onnx_ir.Value, onnx_ir.Value] = {}

    def move(self, chosen: Collection[onnx_ir.Node]) -> None:
        """Move nodes of the graph."""
        made = dict.fromkeys(value for node in chosen for value in node.outputs if is_float32(value))
        outputs = {value: i for i, value in enumerate(self._graph.outputs)}
        for node in chosen:
            for slot, value in enumerate(node.inputs):
                if value is not None and value not in made and is_float32(value):
                    node.replace_input_with(slot, self._lower(value))
        moved = set(chosen)
        for value in made:
            readers = [(node, slot) for node, slot in value.uses() if node not in moved]
            if readers or value in outputs:
                self._raise(value, readers, outputs.get(value))
            value.dtype = self._target

    def _lower(self, value: onnx_ir.Value) -> onnx_ir.Value:
        """Return ``value`` in the target type: a converted weight, or a Cast right behind what makes it."""
        if value not in self._lowered:
            name = f"{value.name}_{self._target.name.lower()}"
            if value.const_value is not None and value.is_initializer():
                self._lowered[value] = register(self._graph, name, value.const_value, self._target)
            else:
                self._lowered[value] = self._cast(value, self._target, name)
        return self._lowered[value]

    def _raise(self, value: onnx_ir.Value, readers: list[tuple[onnx_ir.Node, int]], output: int | None) -> None:
        """Give readers that stay in float32, and the graph's output, a Cast back."""
        back = self._cast(value, onnx_ir.DataType.FLOAT, f"{value.name}_float32")
        for node, slot in readers:
            node.replace_input_with(slot, back)
        if output is not None:
            self._graph.outputs[output] = back
            back.shape = value.shape
            name, value.name = value.name, f"{value.name}_{self._target.name.lower()}_made"
            back.name = name

    def _cast(self, value: onnx_ir.Value, dtype: onnx_ir.DataType, name: str) -> onnx_ir.Value:
        cast = onnx_ir.node("Cast", [value], {"to": int(dtype)}, name=f"{name}_cast")
        cast.outputs[0].name = name
        cast.outputs[0].dtype = dtype
        producer = value.producer()
        if producer is None:
            insert_first(self._graph, cast)
        else:
            self._graph.insert_after(producer, cast)
        return cast.outputs[0]


def is_float32(value: onnx_ir.Value) -> bool:
    """Whether a value is float32."""
    return value.dtype == onnx_ir.DataType.FLOAT


def fits(tensor: onnx_ir.TensorProtocol, target: onnx_ir.DataType) -> bool:
    """Whether the largest finite value neither becomes infinite nor, as an epsilon may, zero."""
    if tensor.dtype != onnx_ir.DataType.FLOAT:
        return True
    array = tensor.numpy()
    largest = float(np.abs(array, where=np.isfinite(array), out=np.zeros(array.shape, np.float32)).max(initial=0.0))
    return largest == 0 or REACH[target].smallest <= largest <= REACH[target].largest


def register(
    graph: onnx_ir.Graph, name: str, tensor: onnx_ir.TensorProtocol, target: onnx_ir.DataType
) -> onnx_ir.Value:
    """Return a tensor in the target type as an initializer of a graph."""
    converted = onnx_ir.tensor(tensor.numpy().astype(target.numpy()), dtype=target, name=name)
    shape = onnx_ir.Shape(tensor.shape.numpy())
    value = onnx_ir.Value(name=name, type=onnx_ir.TensorType(target), shape=shape, const_value=converted)
    return add_weight(graph, value)


def insert_first(graph: onnx_ir.Graph, node: onnx_ir.Node) -> None:
    """Insert a node before all others."""
    graph.insert_before(graph[0], node)
