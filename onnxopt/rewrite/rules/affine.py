"""Scales and shifts folded into the weights of the layer before them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir

from onnxopt.ir.weights import along_last_axis
from onnxopt.rewrite.reading import Array, constant, integers, only_reader, producer, rank, weight
from onnxopt.rewrite.rule import Miss, Outcome, Replacement, Rule, remade, replaced_by
from onnxopt.rewrite.scales import SCALING, arithmetic, batch_norm, by_channel, scaled_input

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class _Layer:
    """A layer with constant weights, whose output channels can be scaled and shifted.

    Attributes:
        node: Conv, ConvTranspose, Gemm or MatMul.
        kernel: Its weights.
        bias: [channels], zeros where it has none.
        axis: Of the kernel, along which output channels lie; for ConvTranspose, within each group.
    """

    node: onnx_ir.Node
    kernel: Array
    bias: Array
    axis: int

    @property
    def groups(self) -> int:
        return self.node.attributes.get_int("group", 1) if self.node.op_type == "ConvTranspose" else 1

    @property
    def count(self) -> int:
        """Number of output channels."""
        return int(self.kernel.shape[self.axis]) * self.groups

    def scaled(self, factor: Array) -> Array:
        """Return the kernel with each output channel multiplied, in double precision."""
        groups, kernel = self.groups, self.kernel.astype(np.float64)
        parts = kernel.reshape(groups, kernel.shape[0] // groups, *kernel.shape[1:])
        shape = [groups] + [1] * kernel.ndim
        shape[self.axis + 1] = self.count // groups
        return (parts * factor.reshape(shape)).reshape(kernel.shape)


class ScaleIntoLayer(Rule):
    """A BatchNormalization, Mul, Div, Add or Sub by constants becomes part of the Conv, Gemm or MatMul before it."""

    name: ClassVar[str] = "scale-into-layer"
    operators: ClassVar[frozenset[str]] = frozenset(SCALING)

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if the layer's weights are constant, nothing else reads its output, and constants go by channel."""
        found = _source(node)
        if found is None:
            return None
        layer_node, slot = found
        layer = _layer(layer_node)
        if layer is None:
            return Miss("the layer's weights are not constant", layer_node)
        if not only_reader(layer_node.outputs[0], node):
            return Miss("the layer's output is read elsewhere too", layer_node)
        affine = _affine(node, slot, layer)
        if isinstance(affine, Miss):
            return affine
        factor, shift = affine
        if layer_node.op_type == "MatMul" and shift.any():
            return Miss("a MatMul has no bias to take the shift", layer_node)
        return _rebuilt(layer, factor, shift)


def _source(node: onnx_ir.Node) -> tuple[onnx_ir.Node, int] | None:
    """Return the layer a node scales, and which input of the node it is."""
    slot = scaled_input(node)
    layer = producer(node.inputs[slot], *_LAYERS) if slot is not None else None
    return None if layer is None or slot is None else (layer, slot)


def _layer(node: onnx_ir.Node) -> _Layer | None:
    kernel = constant(node.inputs[1])
    if kernel is None or kernel.dtype.kind != "f" or kernel.ndim < 2:
        return None
    given = node.inputs[2] if len(node.inputs) > 2 else None
    bias = constant(given) if given is not None else None
    if given is not None and bias is None:
        return None
    match node.op_type:
        case "Conv":
            axis = 0
        case "Gemm":
            axis = 0 if node.attributes.get_int("transB", 0) else 1
        case "ConvTranspose":
            axis = 1
        case _:
            axis = kernel.ndim - 1
    layer = _Layer(node, kernel, np.zeros(1), axis)
    if node.op_type == "MatMul" and kernel.ndim != 2:
        return None
    flat = np.zeros(layer.count) if bias is None else along_last_axis(bias.astype(np.float64), layer.count)
    scale = node.attributes.get_float("beta", 1.0) if node.op_type == "Gemm" else 1.0
    return None if flat is None else _Layer(node, kernel, flat * scale, axis)


def _affine(node: onnx_ir.Node, slot: int, layer: _Layer) -> tuple[Array, Array] | Miss:
    """Return what each output channel is multiplied by, and what is then added."""
    axes = layer.kernel.ndim if layer.node.op_type in ("Conv", "ConvTranspose") else rank(layer.node.outputs[0])
    if node.op_type == "BatchNormalization":
        if layer.node.op_type == "MatMul" and axes != 2:
            return Miss("channels are the second axis of what MatMul makes only if it has two", layer.node)
        return batch_norm(node, layer.count)
    array = constant(node.inputs[1 - slot])
    if axes is None or array is None:
        return Miss("the number of axes of the layer's output is not known", layer.node)
    numbers = by_channel(layer.node, array.astype(np.float64), layer.count, axes)
    return Miss("the constant does not go by output channel", node) if numbers is None else arithmetic(node, numbers)


def _rebuilt(layer: _Layer, factor: Array, shift: Array) -> Replacement:
    """Return the layer with its output channels multiplied and shifted."""
    node = layer.node
    name = node.inputs[1].name if node.inputs[1] is not None else node.name
    kernel = weight(f"{name}_scaled", layer.scaled(factor), layer.kernel) if (factor != 1).any() else node.inputs[1]
    total = layer.bias * factor + shift
    attributes = {key: value for key, value in node.attributes.items() if key != "beta"}
    weights = [kernel] if kernel is not node.inputs[1] else []
    inputs = [node.inputs[0], kernel]
    if node.op_type != "MatMul" and (total.any() or len(node.inputs) > 2):
        bias = weight(f"{name}_shift", total, layer.kernel)
        inputs, weights = [*inputs, bias], [*weights, bias]
    return remade(node, inputs, attributes, tuple(w for w in weights if w is not None))


class MatMulAddToGemm(Rule):
    """A MatMul of two matrices with a constant vector added becomes a Gemm."""

    name: ClassVar[str] = "matmul-add-to-gemm"
    operators: ClassVar[frozenset[str]] = frozenset({"Add"})

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if both sides of the MatMul are matrices and what is added has one row."""
        for slot in (0, 1):
            product = producer(node.inputs[slot], "MatMul")
            added = node.inputs[1 - slot]
            if product is None or added is None:
                continue
            array = constant(added)
            if array is None:
                return Miss("what is added is not constant", node)
            if rank(product.inputs[0]) != 2 or rank(product.inputs[1]) != 2:
                return Miss("a side of the MatMul is no matrix", product)
            if not only_reader(product.outputs[0], node):
                return Miss("the product is read elsewhere too", product)
            if array.ndim > 2 or (array.ndim == 2 and array.shape[0] != 1):
                return Miss("what is added has several rows", node)
            return replaced_by("Gemm", [*product.inputs, added])
        return None


class PadIntoConv(Rule):
    """A Pad with zeros becomes part of the Conv or AveragePool behind it."""

    name: ClassVar[str] = "pad-into-conv"
    operators: ClassVar[frozenset[str]] = frozenset({"Conv"})

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if only spatial axes are padded, by zeros, and nothing is cut off."""
        pad = producer(node.inputs[0], "Pad")
        if pad is None:
            return None
        pads = integers(pad, "pads", 1)
        if pads is None or (len(pad.inputs) > 3 and pad.inputs[3] is not None):
            return Miss("how much it pads, or along which axes, is not known", pad)
        half = len(pads) // 2
        outer = (*pads[:2], *pads[half : half + 2])
        if any(outer) or min(pads) < 0 or not _pads_zeros(pad):
            return Miss("it pads batch or channels, cuts off, or pads other than zeros", pad)
        if node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
            return Miss("the convolution pads by its own rule", node)
        own = node.attributes.get_ints("pads", [0] * (2 * (half - 2)))
        total = [a + b for a, b in zip(own, (*pads[2:half], *pads[half + 2 :]), strict=True)]
        attributes = {**node.attributes, "pads": onnx_ir.AttrInt64s("pads", total)}
        return remade(node, [pad.inputs[0], *node.inputs[1:]], attributes)


def _pads_zeros(pad: onnx_ir.Node) -> bool:
    if pad.attributes.get_string("mode", "constant") != "constant":
        return False
    if pad.attributes.get_float("value", 0.0):
        return False
    given = pad.inputs[2] if len(pad.inputs) > 2 else None
    array = constant(given)
    return given is None or (array is not None and not array.any())


AFFINE: tuple[Rule, ...] = (ScaleIntoLayer(), MatMulAddToGemm(), PadIntoConv())
