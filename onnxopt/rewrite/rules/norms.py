"""Normalisations that exporters took apart, recognised again."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir

from onnxopt.rewrite.reading import (
    Array,
    channels,
    constant,
    integers,
    only_reader,
    producer,
    rank,
    read_once,
    weight,
    with_number,
)
from onnxopt.rewrite.rule import Miss, Outcome, Rule, remade, replaced_by
from onnxopt.rewrite.sizes import dimensions, held


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


class GroupNorm(Rule):
    """Normalised groups of channels, scaled and shifted by channel, are GroupNormalization (Wu and He 2018)."""

    name: ClassVar[str] = "group-norm"
    operators: ClassVar[frozenset[str]] = frozenset({"Add"})
    since: ClassVar[int] = 21

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if the groups are rows of a tensor of three axes, and are scaled and shifted by channel."""
        for slot in (0, 1):
            scaled = producer(node.inputs[slot], "Mul")
            if scaled is None:
                continue
            for inner in (0, 1):
                groups = _groups(scaled.inputs[inner])
                if groups is not None:
                    return _grouped(groups, scaled, scaled.inputs[1 - inner], node.inputs[1 - slot])
        return None


@dataclass(frozen=True)
class _Groups:
    """Groups of channels, each normalised.

    Attributes:
        source: What is normalised, [batch, channels, …].
        channels: Number of them.
        count: Of groups.
        epsilon: Added to the variance.
        steps: Nodes on the way that go.
    """

    source: onnx_ir.Value
    channels: int
    count: int
    epsilon: float
    steps: tuple[onnx_ir.Node, ...]


def _groups(value: onnx_ir.Value | None) -> _Groups | None:
    """Return the groups that a value is, laid out as the channels were before."""
    back = producer(value, "Reshape")
    norm = producer(back.inputs[0], "InstanceNormalization") if back is not None else None
    rows = producer(norm.inputs[0], "Reshape") if norm is not None else None
    if back is None or norm is None or rows is None or rows.inputs[0] is None:
        return None
    source, laid = dimensions(rows.inputs[0]), dimensions(rows.outputs[0])
    if source is None or laid is None or source not in (dimensions(back.outputs[0]), held(back.inputs[1])):
        return None
    ones, zeros = constant(norm.inputs[1]), constant(norm.inputs[2])
    if ones is None or zeros is None or (ones != 1).any() or zeros.any():
        return None
    if len(source) < 3 or not isinstance(source[1], int) or laid[:2] != (source[0], ones.size) or len(laid) != 3:
        return None
    epsilon = norm.attributes.get_float("epsilon", 1e-5)
    return _Groups(rows.inputs[0], source[1], ones.size, epsilon, (rows, norm, back))


def _grouped(
    groups: _Groups, scaled: onnx_ir.Node, scale: onnx_ir.Value | None, shift: onnx_ir.Value | None
) -> Outcome:
    rows = [row for value in (scale, shift) if (row := _by_channel(value, groups)) is not None]
    if len(rows) < 2:
        return Miss("scale and shift do not go by channel", scaled)
    elsewhere = next((one for one in (*groups.steps, scaled) if not read_once(one)), None)
    if elsewhere is not None:
        return Miss("what is computed on the way is read elsewhere too", elsewhere)
    names = (f"{scaled.name}_scale", f"{scaled.name}_shift")
    weights = tuple(weight(name, row) for name, row in zip(names, rows, strict=True))
    attributes = {"num_groups": groups.count, "epsilon": groups.epsilon}
    return replaced_by("GroupNormalization", [groups.source, *weights], attributes, weights)


def _by_channel(value: onnx_ir.Value | None, groups: _Groups) -> Array | None:
    array = constant(value)
    return None if array is None else channels(array, groups.channels, rank(groups.source) or 0)


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
GROUP_NORMS: tuple[Rule, ...] = (GroupNorm(),)
