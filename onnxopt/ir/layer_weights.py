"""The channels a layer reads and makes: its weights by them, and what multiplying channels does to weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir

from onnxopt.ir.quant import Array
from onnxopt.ir.weights import add_weight, along_last_axis, constant_tensor, weight_value

LAYERS = frozenset({"Conv", "Gemm", "MatMul"})
_BIAS_SLOT = 2


@dataclass(frozen=True, eq=False, slots=True)
class Weights:
    """The weights of a Conv, Gemm or MatMul in one form.

    Attributes:
        node: The layer.
        parts: [groups, outputs a group, inputs a group, places of the kernel].
    """

    node: onnx_ir.Node
    parts: Array

    @property
    def inputs(self) -> int:
        """Channels read."""
        return int(self.parts.shape[0] * self.parts.shape[2])

    @property
    def outputs(self) -> int:
        """Channels made."""
        return int(self.parts.shape[0] * self.parts.shape[1])

    @property
    def input_peaks(self) -> Array:
        """Largest magnitude of the weights of each channel read, [inputs]."""
        return np.asarray(np.abs(self.parts).max((1, 3)).reshape(-1))

    @property
    def output_peaks(self) -> Array:
        """Largest magnitude of the weights of each channel made, [outputs]."""
        return np.asarray(np.abs(self.parts).max((2, 3)).reshape(-1))

    @property
    def axis(self) -> int:
        """The axis of channels in what it reads and makes."""
        return 1 if self.node.op_type == "Conv" else -1

    def with_inputs_times(self, factor: Array) -> Array:
        """Return the weight, in its own layout, with the weights of each channel read multiplied."""
        groups, _, inputs, _ = self.parts.shape
        return self.layout(self.parts * factor.reshape(groups, 1, inputs, 1))

    def with_outputs_times(self, factor: Array) -> Array:
        """Return the weight, in its own layout, with the weights of each channel made multiplied."""
        groups, outputs, _, _ = self.parts.shape
        return self.layout(self.parts * factor.reshape(groups, outputs, 1, 1))

    def layout(self, parts: Array) -> Array:
        """Return weights of the form of ``parts`` as the node wants them, float32."""
        tensor = constant_tensor(self.node.inputs[1])
        assert tensor is not None
        if self.node.op_type == "Conv":
            return np.ascontiguousarray(parts.reshape(tensor.shape.numpy()), np.float32)
        square = parts[0, :, :, 0]
        return np.ascontiguousarray(square if _is_by_outputs(self.node) else square.T, np.float32)


def weights_of(node: onnx_ir.Node) -> Weights | None:
    """Return the weights of a layer; None where they are not constant float32, or it is no plain layer."""
    if node.op_type not in LAYERS or node.domain not in ("", "ai.onnx"):
        return None
    tensor = constant_tensor(node.inputs[1])
    if tensor is None or tensor.dtype != onnx_ir.DataType.FLOAT or constant_tensor(node.inputs[0]) is not None:
        return None
    odd = len(tensor.shape) != 2 or (node.op_type == "Gemm" and not is_plain_gemm(node))
    return None if node.op_type != "Conv" and odd else Weights(node, in_parts(node, tensor.numpy()))


def in_parts(node: onnx_ir.Node, array: Array) -> Array:
    """Return an array laid out as the weight of a layer in the form of ``Weights.parts``."""
    if node.op_type == "Conv":
        groups = node.attributes.get_int("group", 1) or 1
        return array.reshape(groups, array.shape[0] // groups, array.shape[1], -1)
    return (array if _is_by_outputs(node) else array.T)[None, :, :, None]


def is_plain_gemm(node: onnx_ir.Node) -> bool:
    """Whether a Gemm scales neither its product nor its bias, and reads its first input as it is."""
    scaled = (node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0))
    return scaled == (1.0, 1.0) and not node.attributes.get_int("transA", 0)


def replace_constant(node: onnx_ir.Node, slot: int, array: Array) -> None:
    """Let a node read another constant, of the old one's name if nobody else reads that."""
    value, graph = node.inputs[slot], node.graph
    assert value is not None
    assert isinstance(graph, onnx_ir.Graph)
    made = weight_value(value.name or "", array)
    if len(value.uses()) == 1 and value.is_initializer() and not value.is_graph_output():
        value.const_value, value.shape = made.const_value, made.shape
        return
    node.replace_input_with(slot, add_weight(graph, made))


def bias_place(node: onnx_ir.Node) -> tuple[onnx_ir.Node, int] | None:
    """Return the node and the slot of a layer's bias, there or not; None where a MatMul has no Add behind it."""
    if node.op_type != "MatMul":
        return node, _BIAS_SLOT
    readers = list(node.outputs[0].uses())
    weight = constant_tensor(node.inputs[1])
    if len(readers) != 1 or readers[0][0].op_type != "Add" or node.outputs[0].is_graph_output() or weight is None:
        return None
    adding, slot = readers[0]
    tensor = constant_tensor(adding.inputs[1 - slot])
    fits = tensor is not None and along_last_axis(tensor.numpy(), weight.shape.numpy()[-1]) is not None
    return (adding, 1 - slot) if fits else None


def add_to_bias(node: onnx_ir.Node, shift: Array) -> None:
    """Add to the bias of a layer that has a place for one, or give it one, in place.

    Args:
        node: The layer.
        shift: [channels].
    """
    place = bias_place(node)
    assert place is not None
    adding, slot = place
    tensor = constant_tensor(adding.inputs[slot]) if slot < len(adding.inputs) else None
    if tensor is not None:
        replace_constant(adding, slot, (tensor.numpy() + shift).astype(np.float32))
        return
    bias = add_weight(node.graph, weight_value(f"{node.name}.bias", shift.astype(np.float32)))
    if slot >= len(node.inputs):
        node.resize_inputs(slot + 1)
    node.replace_input_with(slot, bias)


def _is_by_outputs(node: onnx_ir.Node) -> bool:
    """Whether a Gemm or MatMul has its weight as [outputs, inputs]."""
    return node.op_type == "Gemm" and bool(node.attributes.get_int("transB", 0))
