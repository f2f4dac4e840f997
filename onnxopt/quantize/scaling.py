"""Multiplying the channels of a tensor by constants, exactly: in whatever makes it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import onnx_ir

from onnxopt.ir.layer_weights import LAYERS, replace_constant, weights_of
from onnxopt.ir.quant import Array
from onnxopt.ir.weights import along_last_axis, constant_tensor

_SCALED_ALIKE = frozenset({"Relu", "LeakyRelu", "PRelu", "Identity", "Dropout"})
"""Of a positive multiple they give the same multiple, element by element."""

_BY_PLACE = frozenset({"MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool"})
"""They do so channel by channel, where channels lie along the second axis."""


@dataclass(frozen=True, eq=False, slots=True)
class Place:
    """A constant to be multiplied, and how.

    Attributes:
        node: That reads it.
        slot: Of its input.
        times: Returns the new constant, float32, for factors [channels].
    """

    node: onnx_ir.Node
    slot: int
    times: Callable[[Array], Array]

    def multiply(self, factor: Array) -> None:
        """Put the multiplied constant in its place."""
        replace_constant(self.node, self.slot, self.times(factor))


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a tensor's channels cannot be multiplied in what makes it, and the node to blame."""

    reason: str
    blamed: str


@dataclass(frozen=True, slots=True)
class Channels:
    """Channels of a tensor: how many, along which axis (1 or -1)."""

    count: int
    axis: int


def find_places(value: onnx_ir.Value, channels: Channels, readers: Collection[onnx_ir.Node]) -> list[Place] | Obstacle:
    """Return the constants whose multiplication multiplies a tensor's channels by positive factors.

    Args:
        value: The tensor; only ``readers`` may read it.
        channels: Of it.
        readers: Nodes that undo the factors.
    """
    node = value.producer()
    if node is None:
        return Obstacle("it reads an input of the graph", value.name or "")
    name = node.name or ""
    if value.is_graph_output():
        return Obstacle("what it reads is an output of the graph", name)
    others = [reader.name or "" for reader, _ in value.uses() if reader not in readers]
    if others:
        return Obstacle("what it reads is read elsewhere too", others[0])
    return _made_by(node, channels)


def _made_by(node: onnx_ir.Node, channels: Channels) -> list[Place] | Obstacle:
    if node.op_type in LAYERS:
        return _of_layer(node, channels)
    if node.op_type in _SCALED_ALIKE or (node.op_type in _BY_PLACE and channels.axis == 1):
        return _behind(node, 0, channels)
    if node.op_type == "Flatten" and channels.axis == -1 and _flattens_channels(node, channels.count):
        return _behind(node, 0, Channels(channels.count, 1))
    if node.op_type in ("BatchNormalization", "LayerNormalization"):
        return _of_normalisation(node, channels)
    if node.op_type in ("Add", "Sub", "Mul", "Div"):
        return _of_arithmetic(node, channels)
    return Obstacle(f"{node.op_type} does not give a multiple for a multiple", node.name or "")


def _behind(node: onnx_ir.Node, slot: int, channels: Channels) -> list[Place] | Obstacle:
    value = node.inputs[slot]
    assert value is not None
    return find_places(value, channels, {node})


def _of_layer(node: onnx_ir.Node, channels: Channels) -> list[Place] | Obstacle:
    weights = weights_of(node)
    if weights is None or (weights.outputs, weights.axis) != (channels.count, channels.axis):
        return Obstacle("the layer before it has no constant weights for these channels", node.name or "")
    places = [Place(node, 1, weights.with_outputs_times)]
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        bias = _vector(node, 2, channels.count)
        if bias is None:
            return Obstacle("the bias of the layer before it is no constant for each channel", node.name or "")
        places.append(bias)
    return places


def _of_normalisation(node: onnx_ir.Node, channels: Channels) -> list[Place] | Obstacle:
    """Return scale and bias, which come after everything else it does."""
    name, is_layer = node.name or "", node.op_type == "LayerNormalization"
    if channels.axis != (-1 if is_layer else 1) or node.attributes.get_int("axis", -1) != -1:
        return Obstacle("it normalises along other axes", name)
    if node.attributes.get_int("training_mode", 0) or any(value.uses() for value in node.outputs[1:]):
        return Obstacle("its statistics are read too", name)
    slots = [slot for slot in (1, 2) if slot < len(node.inputs) and node.inputs[slot] is not None]
    found = [_vector(node, slot, channels.count) for slot in slots]
    places = [place for place in found if place is not None]
    return places if len(places) == len(found) else Obstacle("its scale or bias is computed", name)


def _of_arithmetic(node: onnx_ir.Node, channels: Channels) -> list[Place] | Obstacle:
    """Return a constant it multiplies or divides by, or, of a sum, everything that is summed."""
    constants = [slot for slot in (0, 1) if constant_tensor(node.inputs[slot]) is not None]
    if node.op_type in ("Mul", "Div"):
        return _of_product(node, constants, channels)
    if node.inputs[0] is node.inputs[1]:
        return Obstacle("it adds a tensor to itself", node.name or "")
    found: list[Place] = []
    for slot in (0, 1):
        more = _constant(node, slot, channels) if slot in constants else _behind(node, slot, channels)
        if isinstance(more, Obstacle):
            return more
        found += more
    return found


def _of_product(node: onnx_ir.Node, constants: list[int], channels: Channels) -> list[Place] | Obstacle:
    if constants and (node.op_type == "Mul" or constants == [1]):
        return _constant(node, constants[0], channels)
    return Obstacle("it multiplies by what is computed", node.name or "")


def _constant(node: onnx_ir.Node, slot: int, channels: Channels) -> list[Place] | Obstacle:
    """Return a constant with one number for each channel; one number for all may be part of a known activation."""
    place = _vector(node, slot, channels.count) if channels.axis == -1 else _column(node, slot, channels.count)
    if place is None:
        return Obstacle(f"the constant of {node.op_type} is not one number for each channel", node.name or "")
    return [place]


def _vector(node: onnx_ir.Node, slot: int, count: int) -> Place | None:
    """Return a constant whose last axis alone is longer than one."""
    tensor = constant_tensor(node.inputs[slot])
    array = None if tensor is None else tensor.numpy()
    if array is None or array.dtype != np.float32 or array.size != count or along_last_axis(array, count) is None:
        return None
    return Place(node, slot, lambda factor: _times(node, slot, array, factor))


def _column(node: onnx_ir.Node, slot: int, count: int) -> Place | None:
    """Return a constant that broadcasts along the second axis of four, or of what its rank says."""
    tensor = constant_tensor(node.inputs[slot])
    array = None if tensor is None else tensor.numpy()
    made = node.outputs[0].shape
    if array is None or made is None or array.dtype != np.float32 or array.size != count:
        return None
    if array.ndim < len(made) - 1 or array.shape[1 - len(made)] != count:
        return None
    return Place(node, slot, lambda factor: _times(node, slot, array, factor.reshape(array.shape)))


def _times(node: onnx_ir.Node, slot: int, array: Array, factor: Array) -> Array:
    """Return a constant times factors, or what divides by it."""
    divides = node.op_type == "Div" and slot == 1
    return np.asarray(array / factor if divides else array * factor, np.float32)


def _flattens_channels(node: onnx_ir.Node, count: int) -> bool:
    """Whether a Flatten gives one number for each channel."""
    value = node.inputs[0]
    shape = None if value is None else value.shape
    return node.attributes.get_int("axis", 1) == 1 and shape is not None and len(shape) > 1 and shape[1] == count
