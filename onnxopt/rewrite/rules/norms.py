"""Normalisations that exporters took apart, recognised again."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import onnx_ir

from onnxopt.rewrite.reading import constant, integers, only_reader, producer, rank, with_number
from onnxopt.rewrite.rule import Miss, Outcome, Rule, remade, replaced_by


class LayerNorm(Rule):
    """(x - mean) / sqrt(variance + epsilon) * scale over the last axis is LayerNormalization (Ba et al. 2016)."""

    name: ClassVar[str] = "layer-norm"
    operators: ClassVar[frozenset[str]] = frozenset({"Mul"})
    since: ClassVar[int] = 17

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if mean and variance are over the last axis, of the same value, and the scale has its size."""
        return _scaled(node, "LayerNormalization", ("Div",), _normalised)


class LayerNormBias(Rule):
    """A row added to a LayerNormalization becomes its bias."""

    name: ClassVar[str] = "layer-norm-bias"
    operators: ClassVar[frozenset[str]] = frozenset({"Add"})
    since: ClassVar[int] = 17

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if it has no bias, nothing else reads it, and the row has the last axis' size."""
        for slot in (0, 1):
            norm = producer(node.inputs[slot], "LayerNormalization")
            bias = node.inputs[1 - slot]
            if norm is None or bias is None or len([value for value in norm.inputs if value is not None]) > 2:
                continue
            if norm.attributes.get_int("axis", -1) != -1 or not _is_row(bias, norm.inputs[0]):
                return Miss("what is added is no constant row of the last axis' size", node)
            if len(norm.outputs) > 1 or not only_reader(norm.outputs[0], node):
                return Miss("the norm is read elsewhere too", norm)
            return remade(norm, [*norm.inputs[:2], bias])
        return None


class RmsNorm(Rule):
    """x / sqrt(mean(x²) + epsilon) * scale over the last axis is RMSNormalization (Zhang and Sennrich 2019)."""

    name: ClassVar[str] = "rms-norm"
    operators: ClassVar[frozenset[str]] = frozenset({"Mul"})
    since: ClassVar[int] = 23

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if the mean is over the last axis and the scale has its size."""
        return _scaled(node, "RMSNormalization", ("Div", "Mul"), _by_root_mean_square)


def _scaled(
    node: onnx_ir.Node,
    operator: str,
    kinds: tuple[str, ...],
    find: Callable[[onnx_ir.Node], tuple[onnx_ir.Value, float] | None],
) -> Outcome:
    """Return the norm that a Mul of a normalised value by a row is; ``find`` gives what was normalised, and epsilon."""
    for slot in (0, 1):
        divided = producer(node.inputs[slot], *kinds)
        scale = node.inputs[1 - slot]
        found = find(divided) if divided is not None else None
        if divided is None or found is None or scale is None:
            continue
        source, epsilon = found
        if not _is_row(scale, source):
            return Miss("the scale is no constant row of the last axis' size", node)
        if not only_reader(divided.outputs[0], node):
            return Miss("the result before scaling is read elsewhere too", divided)
        return replaced_by(operator, [source, scale], {"axis": -1, "epsilon": epsilon})
    return None


def _by_root_mean_square(node: onnx_ir.Node) -> tuple[onnx_ir.Value, float] | None:
    """Return x and epsilon if a node is x / Sqrt(mean(x²) + epsilon), or x times the reciprocal."""
    for slot in (0, 1) if node.op_type == "Mul" else (0,):
        source, other = node.inputs[slot], node.inputs[1 - slot]
        inverse = producer(other, "Reciprocal") if node.op_type == "Mul" else None
        root = producer(inverse.inputs[0] if inverse is not None else other, "Sqrt")
        if root is None or source is None or (node.op_type == "Mul" and inverse is None):
            continue
        shifted = with_number(producer(root.inputs[0], "Add"))
        mean = producer(shifted[0], "ReduceMean") if shifted is not None else None
        if shifted and mean is not None and _over_last_axis(mean) and _is_square(mean.inputs[0], source):
            return source, shifted[1]
    return None


def _normalised(divide: onnx_ir.Node) -> tuple[onnx_ir.Value, float] | None:
    """Return x and epsilon if a Div is (x - mean(x)) / sqrt(mean((x - mean(x))²) + epsilon) over the last axis."""
    centred = producer(divide.inputs[0], "Sub")
    root = producer(divide.inputs[1], "Sqrt")
    shifted = with_number(producer(root.inputs[0], "Add")) if root is not None else None
    variance = producer(shifted[0], "ReduceMean") if shifted is not None else None
    if centred is None or variance is None or shifted is None or not _over_last_axis(variance):
        return None
    mean = producer(centred.inputs[1], "ReduceMean")
    source = centred.inputs[0]
    if mean is None or source is None or mean.inputs[0] is not source or not _over_last_axis(mean):
        return None
    return (source, shifted[1]) if _is_square(variance.inputs[0], centred.outputs[0]) else None


def _is_square(value: onnx_ir.Value | None, of: onnx_ir.Value) -> bool:
    power = producer(value, "Mul", "Pow")
    if power is None or power.inputs[0] is not of:
        return False
    if power.op_type == "Mul":
        return power.inputs[1] is of
    found = with_number(power)
    return found is not None and math.isclose(found[1], 2.0)


def _over_last_axis(mean: onnx_ir.Node) -> bool:
    axes, total = integers(mean, "axes", 1), rank(mean.inputs[0])
    return mean.attributes.get_int("keepdims", 1) == 1 and axes is not None and axes in ((-1,), ((total or 0) - 1,))


def _is_row(value: onnx_ir.Value, source: onnx_ir.Value | None) -> bool:
    """Whether a value is a constant row, as long as the last axis of ``source``."""
    array = constant(value)
    if array is None or array.ndim != 1 or source is None or source.shape is None or not len(source.shape):
        return False
    return source.shape[-1] == array.size


NORMS: tuple[Rule, ...] = (LayerNorm(), LayerNormBias(), RmsNorm())
