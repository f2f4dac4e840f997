"""Nodes that multiply and shift channels by constants: what they multiply by and what they add."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir

from onnxopt.ir.weights import along_last_axis
from onnxopt.rewrite.reading import Array, channels, constant
from onnxopt.rewrite.rule import Miss

SCALING = ("Add", "BatchNormalization", "Div", "Mul", "Sub")


def scaled_input(node: onnx_ir.Node) -> int | None:
    """Return which input of one of ``SCALING`` is scaled, all others being constant; None if there is none."""
    for slot in (0, 1) if node.op_type in ("Add", "Mul") else (0,):
        if all(constant(value) is not None for i, value in enumerate(node.inputs) if i != slot):
            return slot
    return None


def by_channel(layer: onnx_ir.Node, array: Array, count: int, axes: int) -> Array | None:
    """Return an array broadcast against what a layer reads or makes as [channels], if it goes by its channels.

    Args:
        layer: A convolution has its channels along the second axis, a matrix product along the last.
        array: What is broadcast.
        count: Of the channels.
        axes: Of the value it is broadcast against.
    """
    if layer.op_type in ("Conv", "ConvTranspose"):
        return channels(array, count, axes)
    return None if array.ndim > axes else along_last_axis(array, count)


def batch_norm(node: onnx_ir.Node, count: int) -> tuple[Array, Array] | Miss:
    """Return what a BatchNormalization multiplies each of ``count`` channels by, and what it then adds, as float64."""
    if node.attributes.get_int("training_mode", 0) or len([v for v in node.outputs if v.uses()]) > 1:
        return Miss("it trains", node)
    found: list[Any] = [constant(value) for value in node.inputs[1:5]]
    if any(array is None or array.size != count for array in found):
        return Miss("its statistics are not constants, one for each channel", node)
    scale, shift, mean, variance = (array.astype(np.float64) for array in found)
    factor = scale / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    return factor, shift - mean * factor


def arithmetic(node: onnx_ir.Node, by_channel: Array) -> tuple[Array, Array] | Miss:
    """Return the same of a Mul, Div, Add or Sub by ``by_channel``."""
    one, zero = np.ones_like(by_channel), np.zeros_like(by_channel)
    match node.op_type:
        case "Mul":
            return by_channel, zero
        case "Div":
            return (1 / by_channel, zero) if by_channel.all() else Miss("it divides by zero", node)
        case "Add":
            return one, by_channel
        case _:
            return one, -by_channel
