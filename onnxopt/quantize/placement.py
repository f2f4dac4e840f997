"""Which nodes compute in eight bits, and which tensors are rounded for that: a plan, before any number is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir

from onnxopt.ir.layer_weights import is_plain_gemm
from onnxopt.ir.weights import constant_tensor
from onnxopt.targets.kernels import JOINING, PASSING, Kernels

Scope = Literal["compute", "all"]


@dataclass(frozen=True, eq=False, slots=True)
class Layer:
    """A node with weights that computes in eight bits.

    Attributes:
        node: The node.
        activations: Slots of the inputs that are rounded as they come.
        channel_axis: The axis of its weight's output channels; None where it has no weight of rank 2 or more.
        result: What it makes, behind an activation that rounding takes in.
    """

    node: onnx_ir.Node
    activations: tuple[int, ...]
    channel_axis: int | None
    result: onnx_ir.Value

    @property
    def name(self) -> str:
        """The node's name."""
        return self.node.name or ""


@dataclass(frozen=True, slots=True)
class Left:
    """A node that could compute in eight bits and stays as it is, with the reason."""

    node: str
    operator: str
    reason: str


@dataclass(slots=True)
class Plan:
    """What is rounded.

    Attributes:
        layers: Nodes with weights.
        around: Nodes without weights.
        rounded: Tensors, each with the tensor whose range it has: another where an operator only passes numbers on.
        everywhere: Those of them that nobody reads as they were.
    """

    layers: list[Layer] = field(default_factory=list)
    around: list[onnx_ir.Node] = field(default_factory=list)
    rounded: dict[onnx_ir.Value, onnx_ir.Value] = field(default_factory=dict)
    everywhere: set[onnx_ir.Value] = field(default_factory=set)

    @property
    def ranges(self) -> list[onnx_ir.Value]:
        """Return the tensors whose ranges are needed, in order."""
        return list(dict.fromkeys(self.rounded.values()))


def find_layers(graph: onnx_ir.Graph, kernels: Kernels, *, attention: bool = False) -> tuple[list[Layer], list[Left]]:
    """Return the nodes with weights a runtime can compute in eight bits, and those it cannot, with the reason.

    Args:
        graph: Shapes inferred, weights in initializers.
        kernels: Of the runtime.
        attention: Whether MatMul of two activations counts.
    """
    layers, left = [], []
    for node in graph:
        if node.domain in ("", "ai.onnx") and node.op_type in kernels.rounded | kernels.open:
            reason = _obstacle(node, attention=attention)
            if reason is None:
                layers.append(_layer(node, kernels))
            else:
                left.append(Left(node.name or "", node.op_type, reason))
    return layers, left


def plan(graph: onnx_ir.Graph, layers: Sequence[Layer], kernels: Kernels, scope: Scope) -> Plan:
    """Return what to round so that layers compute in eight bits.

    Args:
        graph: The graph.
        layers: Chosen from ``find_layers``.
        kernels: Of the runtime.
        scope: ``compute``: only these and what passes numbers on between them; ``all``: other operators between
            them too, where the runtime has kernels for them.
    """
    made = Plan(layers=list(layers))
    wanted = {value: None for layer in layers for slot in layer.activations if (value := layer.node.inputs[slot])}
    forced = {layer.result: None for layer in layers if layer.node.op_type in kernels.rounded}
    made.around = _around(graph, layers, {**wanted, **forced}, kernels, scope)
    for node in made.around:
        forced.update(dict.fromkeys(node.outputs))
        wanted.update(dict.fromkeys(_numbers(node)))
    passed = {node: node.inputs[0] for node in made.around if node.op_type in PASSING}
    for value in _in_order(graph, {**wanted, **forced}):
        maker = value.producer()
        source = passed.get(maker) if maker is not None else None
        made.rounded[value] = made.rounded[source] if source is not None else value
    made.everywhere = set(forced)
    return made


def _obstacle(node: onnx_ir.Node, *, attention: bool) -> str | None:
    """Return why a node cannot compute in eight bits."""
    inputs = list(node.inputs)
    if any(value is None or value.dtype not in (onnx_ir.DataType.FLOAT, None) for value in inputs[:2]):
        return "it does not compute in float32"
    weight = constant_tensor(inputs[1])
    if constant_tensor(inputs[0]) is not None:
        return "its first input is a weight"
    if weight is None:
        if node.op_type != "MatMul":
            return "its weight is computed"
        return None if attention else "both inputs are computed: rounding attention costs accuracy"
    if weight.dtype != onnx_ir.DataType.FLOAT:
        return f"its weight is {weight.dtype.name.lower()}"
    if not _is_finite(inputs[1]):
        return "its weight has infinite or undefined numbers"
    if node.op_type == "Gemm" and not is_plain_gemm(node):
        return "its product or its bias is scaled"
    if len(inputs) > 2 and inputs[2] is not None and constant_tensor(inputs[2]) is None:
        return "its bias is computed"
    return None


def _layer(node: onnx_ir.Node, kernels: Kernels) -> Layer:
    weight = constant_tensor(node.inputs[1])
    activations = (0,) if weight is not None else (0, 1)
    return Layer(node, activations, _channel_axis(node, weight), _result(node, kernels))


def _channel_axis(node: onnx_ir.Node, weight: onnx_ir.TensorProtocol | None) -> int | None:
    if weight is None or len(weight.shape) < 2:
        return None
    match node.op_type:
        case "Conv":
            return 0
        case "ConvTranspose":
            return 1 if node.attributes.get_int("group", 1) == 1 else None
        case "Gemm":
            return 0 if node.attributes.get_int("transB", 0) else 1
    return 1 if len(weight.shape) == 2 else None


def _result(node: onnx_ir.Node, kernels: Kernels) -> onnx_ir.Value:
    """Return what a node makes, behind the activation that is its only reader and that rounding takes in."""
    value = node.outputs[0]
    readers = {reader for reader, _ in value.uses()}
    if len(readers) != 1 or value.is_graph_output():
        return value
    reader = readers.pop()
    alike = reader.graph is node.graph and reader.op_type in kernels.absorbed
    return reader.outputs[0] if alike and all(constant_tensor(v) for v in reader.inputs[1:] if v) else value


def _around(
    graph: onnx_ir.Graph, layers: Sequence[Layer], rounded: dict[onnx_ir.Value, None], kernels: Kernels, scope: Scope
) -> list[onnx_ir.Node]:
    """Return the nodes without weights that read rounded numbers only and whose results somebody reads rounded."""
    between = PASSING | (kernels.between if scope == "all" else frozenset())
    there, found = set(rounded), []
    if scope == "all":
        there.update(layer.result for layer in layers)
    for node in graph:
        numbers = _numbers(node)
        eligible = node.op_type in between or _follows(node, kernels)
        if eligible and numbers and there.issuperset(numbers) and _is_float(node) and not _is_odd(node):
            found.append(node)
            there.update(node.outputs)
    wanted = {value for layer in layers for slot in layer.activations if (value := layer.node.inputs[slot])}
    kept = []
    for node in reversed(found):
        if wanted.intersection(node.outputs):
            kept.append(node)
            wanted.update(_numbers(node))
    return kept[::-1]


def _follows(node: onnx_ir.Node, kernels: Kernels) -> bool:
    """Whether a node is an activation of a layer that is computed in eight bits, or the product with what it gates."""
    if node.op_type == "Mul":
        return any(_gate(node, slot, kernels) is not None for slot in (0, 1))
    value = node.inputs[0] if node.inputs else None
    maker = value.producer() if value is not None else None
    return node.op_type in kernels.following and maker is not None and maker.op_type in kernels.rounded


def _gate(product: onnx_ir.Node, slot: int, kernels: Kernels) -> onnx_ir.Node | None:
    """Return the activation in a slot of a product whose other factor is what the activation reads."""
    factor = product.inputs[slot]
    maker = factor.producer() if factor is not None else None
    if maker is None or not _follows(maker, kernels) or maker.op_type == "Mul":
        return None
    return maker if maker.inputs[0] is product.inputs[1 - slot] else None


def gate_bounds(node: onnx_ir.Node) -> tuple[float, float] | None:
    """Return where a HardSigmoid begins to rise and where it is 1; None if it falls or zero is not between them."""
    slope, offset = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
    return (-offset / slope, (1 - offset) / slope) if slope > 0 and 0 <= offset <= 1 else None


def _is_odd(node: onnx_ir.Node) -> bool:
    """Whether scaling and cutting off stored numbers cannot stand for a HardSigmoid."""
    return node.op_type == "HardSigmoid" and (gate_bounds(node) is None or node.outputs[0].is_graph_output())


def number_slots(node: onnx_ir.Node) -> range:
    """Return the slots of the inputs a node computes with: the first alone unless it joins tensors."""
    return range(len(node.inputs) if node.op_type in JOINING else 1)


def _numbers(node: onnx_ir.Node) -> list[onnx_ir.Value]:
    """Return the inputs a node computes with that are not constant."""
    given = (node.inputs[slot] for slot in number_slots(node) if slot < len(node.inputs))
    return [value for value in given if value is not None and constant_tensor(value) is None]


def _is_finite(value: onnx_ir.Value | None) -> bool:
    """Whether a constant has a finite range; what is no constant counts as finite."""
    tensor = constant_tensor(value)
    return tensor is None or tensor.dtype != onnx_ir.DataType.FLOAT or bool(np.isfinite(tensor.numpy()).all())


def _is_float(node: onnx_ir.Node) -> bool:
    floats = all(value.dtype in (onnx_ir.DataType.FLOAT, None) for value in (*_numbers(node), *node.outputs))
    return node.domain in ("", "ai.onnx") and floats and all(_is_finite(value) for value in node.inputs)


def _in_order(graph: onnx_ir.Graph, values: dict[onnx_ir.Value, None]) -> Iterator[onnx_ir.Value]:
    """Yield values in the order they come to be."""
    yield from (value for value in graph.inputs if value in values)
    for node in graph:
        yield from (value for value in node.outputs if value in values)
