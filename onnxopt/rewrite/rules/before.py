"""Scales and shifts folded into the weights of the layer behind them."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx_ir

from onnxopt.rewrite.reading import Array, constant, only_reader, producer, rank, weight
from onnxopt.rewrite.rule import Miss, Outcome, Replacement, Rule, remade
from onnxopt.rewrite.rules.activations import gelu_input
from onnxopt.rewrite.scales import SCALING, arithmetic, batch_norm, by_channel, scaled_input


class ScaleFromBefore(Rule):
    """A BatchNormalization, Mul, Div, Add or Sub by constants becomes part of the Conv, Gemm or MatMul behind it."""

    name: ClassVar[str] = "scale-from-before"
    operators: ClassVar[frozenset[str]] = frozenset({"Conv", "Gemm", "MatMul"})

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if the layer's weights are constant, and a shift meets neither padding nor a layer without a bias."""
        scaling = producer(node.inputs[0], *SCALING)
        slot = None if scaling is None else scaled_input(scaling)
        if scaling is None or slot is None or constant(scaling.inputs[slot]) is not None:
            return None
        kernel, bias = constant(node.inputs[1]), _bias(node)
        if kernel is None or bias is None or kernel.dtype.kind != "f" or (node.op_type != "Conv" and kernel.ndim != 2):
            return Miss("the layer's weights are not constant", node)
        if not only_reader(scaling.outputs[0], node):
            return Miss("what is scaled is read elsewhere too", scaling)
        if scaling.op_type == "Mul" and gelu_input(scaling) is not None:
            return Miss("it is the half of a Gelu, which runtimes know as a whole", scaling)
        found = _affine(scaling, slot, node, kernel)
        if isinstance(found, Miss):
            return found
        factor, shift = found
        if shift.any() and (node.op_type == "MatMul" or _pads(node)):
            return Miss("padding knows no shift" if node.op_type == "Conv" else "a MatMul has no bias", node)
        return _rebuilt(node, scaling.inputs[slot], kernel, bias, factor, shift)


def _bias(node: onnx_ir.Node) -> Array | None:
    """Return the bias, 0 where there is none; None if it is not constant."""
    given = node.inputs[2] if len(node.inputs) > 2 else None
    return np.zeros(1) if given is None else constant(given)


def _pads(node: onnx_ir.Node) -> bool:
    how = node.attributes.get_string("auto_pad", "NOTSET")
    return how.startswith("SAME") or any(node.attributes.get_ints("pads", []))


def _affine(scaling: onnx_ir.Node, slot: int, node: onnx_ir.Node, kernel: Array) -> tuple[Array, Array] | Miss:
    """Return what each input channel is multiplied by, and what is then added."""
    if node.attributes.get_int("transA", 0):
        return Miss("it turns its input", node)
    axes = kernel.ndim if node.op_type == "Conv" else rank(node.inputs[0])
    count = _count(node, kernel)
    if scaling.op_type == "BatchNormalization":
        last = Miss("the channels of the normalisation are not those of the layer", scaling)
        return batch_norm(scaling, count) if node.op_type == "Conv" or axes == 2 else last
    array = constant(scaling.inputs[1 - slot])
    if axes is None or array is None:
        return Miss("the number of axes of the layer's input is not known", node)
    if _widens(array, scaling.inputs[slot], count, axes, 1 if node.op_type == "Conv" else -1):
        return Miss("it may widen what it scales", scaling)
    numbers = by_channel(node, array.astype(np.float64), count, axes)
    return Miss("the constant does not go by channel", scaling) if numbers is None else arithmetic(scaling, numbers)


def _widens(array: Array, source: onnx_ir.Value | None, count: int, axes: int, axis: int) -> bool:
    """Whether broadcasting against a constant may give a value more axes or channels than it has."""
    if source is None or source.shape is None or len(source.shape) != axes:
        return True
    return array.size > 1 and source.shape[axis] != count


def _count(node: onnx_ir.Node, kernel: Array) -> int:
    """Return the number of input channels."""
    if node.op_type == "Conv":
        return int(kernel.shape[1]) * node.attributes.get_int("group", 1)
    return int(kernel.shape[1 if node.attributes.get_int("transB", 0) else 0])


def _rebuilt(
    node: onnx_ir.Node, source: onnx_ir.Value | None, kernel: Array, bias: Array, factor: Array, shift: Array
) -> Replacement:
    """Return the layer with its input channels multiplied and shifted, computed in double precision."""
    wide, groups = kernel.astype(np.float64), node.attributes.get_int("group", 1)
    if node.op_type == "Conv":
        by_group = wide.reshape(groups, -1, *kernel.shape[1:])
        each = (1,) * (kernel.ndim - 2)
        added = (by_group * shift.reshape(groups, 1, -1, *each)).sum(axis=tuple(range(2, by_group.ndim))).reshape(-1)
        scaled = (by_group * factor.reshape(groups, 1, -1, *each)).reshape(kernel.shape)
    else:
        turned = node.attributes.get_int("transB", 0)
        added = node.attributes.get_float("alpha", 1.0) * (wide @ shift if turned else shift @ wide)
        scaled = wide * (factor if turned else factor[:, None])
    name = node.inputs[1].name if node.inputs[1] is not None else node.name
    weights = [weight(f"{name}_scaled", scaled, kernel)]
    inputs, attributes = [source, weights[0], *node.inputs[2:]], dict(node.attributes)
    if added.any():
        beta = node.attributes.get_float("beta", 1.0)
        weights.append(weight(f"{name}_shift", beta * bias.astype(np.float64) + added, kernel))
        inputs = [source, *weights]
        attributes.pop("beta", None)
    return remade(node, inputs, attributes, tuple(weights))


BEFORE: tuple[Rule, ...] = (ScaleFromBefore(),)
