"""Following channels through a graph: which positions of which tensors move together, and what has to follow them.

Each axis of each value is labelled with units (``units``), or with None where nothing moves. The operators say what
they do to labels in ``layers`` and ``reshaping``; an operator nobody described keeps all that it reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir

from onnxopt.ir.traverse import subgraphs
from onnxopt.ir.weights import constant_tensor
from onnxopt.prune.sizes import Sizes
from onnxopt.prune.units import FIXED, Kept, Labels, Units

Axis = Labels | None
Repairing = Callable[[Kept], Any]


class StuckError(Exception):
    """An operator cannot follow what moves; the text says why."""


@dataclass(frozen=True)
class Repair:
    """A number of a node that follows from what stays: an input that is a constant, or an attribute.

    Attributes:
        node: The node.
        slot: Of the input, or name of the attribute.
        made: Gives the new value: an array for an input, or a place in it and a number; int or ints for an attribute.
    """

    node: onnx_ir.Node
    slot: int | str
    made: Repairing


@dataclass(frozen=True)
class Cost:
    """Multiply-accumulates of a node for one inference, and the axes they are proportional to."""

    node: onnx_ir.Node
    macs: float
    axes: tuple[Labels, ...]

    def share(self, kept: Kept) -> float:
        """Return how much of it stays."""
        return math.prod(float(kept.along(labels).mean()) for labels in self.axes)


class Walk:
    """What is known of a graph's axes so far.

    Attributes:
        units: All units.
        statistics: Whether axes that are normalised over may lose positions, which changes what the others become.
        stored: Labels of axes of weights, by value and axis.
        repairs: What else has to change.
        costs: Of the nodes that multiply.
        stacked: Axes that activations are multiplied along one by one, as the heads of attention.
    """

    def __init__(self, sizes: Sizes, *, statistics: bool) -> None:
        """Make one that has seen nothing.

        Args:
            sizes: Shapes of values in one inference.
            statistics: See the class.
        """
        self.units = Units()
        self.statistics = statistics
        self.stored: dict[tuple[onnx_ir.Value, int], Labels] = {}
        self.repairs: list[Repair] = []
        self.costs: list[Cost] = []
        self.stacked: list[Labels] = []
        self._sizes = sizes
        self._axes: dict[onnx_ir.Value, tuple[Axis, ...]] = {}
        self._asked: set[tuple[onnx_ir.Value, int]] = set()
        self._held: dict[tuple[onnx_ir.Value, int], str] = {}
        self._opaque: dict[onnx_ir.Value, tuple[str, str]] = {}

    def rank(self, value: onnx_ir.Value) -> int:
        """Return the number of axes.

        Raises:
            StuckError: It is not known.
        """
        return len(self.dims(value))

    def dims(self, value: onnx_ir.Value) -> tuple[int | str | None, ...]:
        """Return the dimensions in one inference, or where they are not known as they are declared.

        Raises:
            StuckError: Not even their number is known.
        """
        known = self._sizes.get(value.name or "")
        if known is not None:
            return known
        if value.shape is None:
            raise StuckError(f"the shape of {value.name!r} is not known")
        return tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)

    def size(self, value: onnx_ir.Value, axis: int) -> int | None:
        """Return the length of an axis if it is a number."""
        dim = self.dims(value)[axis]
        return dim if isinstance(dim, int) else None

    def is_stored(self, value: onnx_ir.Value) -> bool:
        """Whether a value is a weight."""
        return constant_tensor(value) is not None

    def numbers(self, node: onnx_ir.Node, slot: int) -> np.ndarray[Any, Any] | None:
        """Return the constant at an input; None if there is no such input.

        Raises:
            StuckError: It is computed.
        """
        value = node.inputs[slot] if slot < len(node.inputs) else None
        if value is None:
            return None
        tensor = constant_tensor(value)
        if tensor is None:
            raise StuckError(f"input {slot} of it is computed")
        return tensor.numpy()

    def along(self, value: onnx_ir.Value, axis: int) -> Axis:
        """Return the labels of an axis; weights get fresh ones when they are first asked, numbers of a shape none."""
        axis %= self.rank(value)
        self._asked.add((value, axis))
        if not self.is_stored(value):
            return self._axes[value][axis] if value in self._axes else None
        if self.size(value, axis) == 1 or value.dtype == onnx_ir.DataType.INT64:
            return None
        if (value, axis) not in self.stored:
            self.stored[value, axis] = self.units.fresh(self.size(value, axis) or 0)
        return self.stored[value, axis]

    def moving(self) -> dict[onnx_ir.Value, tuple[Labels, ...]]:
        """Return the labels of the axes, of what nodes make, that have any."""
        found = {
            value: tuple(one for one in axes if one is not None and len(one)) for value, axes in self._axes.items()
        }
        return {value: axes for value, axes in found.items() if axes}

    def all_axes(self, value: onnx_ir.Value) -> list[Axis]:
        """Return the labels of every axis."""
        return [self.along(value, axis) for axis in range(self.rank(value))]

    def give(self, value: onnx_ir.Value, axes: Sequence[Axis]) -> None:
        """Label a value."""
        self._axes[value] = tuple(axes)

    def same(self, one: Axis, other: Axis, node: onnx_ir.Node, what: str) -> None:
        """Let two axes move together; if one does not move, neither does the other."""
        if one is not None and other is not None:
            self.units.join(one, other)
        else:
            self.lock(one if other is None else other, f"{what} does not move", node)

    def lock(self, labels: Axis, reason: str, node: onnx_ir.Node) -> None:
        """Keep all of an axis."""
        if labels is not None:
            self.units.lock(labels, reason, node.name or "")

    def normalised(self, labels: Axis, node: onnx_ir.Node) -> None:
        """Keep all of an axis that is normalised over, unless that may change."""
        if not self.statistics:
            self.lock(labels, f"{node.op_type} normalises over it, so that removing any changes the others", node)

    def repair(self, node: onnx_ir.Node, slot: int | str, made: Repairing) -> None:
        """Let a number of a node follow from what stays."""
        self.repairs.append(Repair(node, slot, made))

    def count(self, node: onnx_ir.Node, macs: float, *axes: Axis) -> None:
        """Tell what a node costs."""
        self.costs.append(Cost(node, macs, tuple(labels for labels in axes if labels is not None)))

    def elements(self, value: onnx_ir.Value) -> float:
        """Return how many numbers a value has in one inference; dimensions that are not known count as one."""
        return float(math.prod(dim for dim in self.dims(value) if isinstance(dim, int)))

    def visit(self, node: onnx_ir.Node, follow: Callable[[Walk, onnx_ir.Node], None]) -> None:
        """Let an operator say what it does to labels; where it is stuck, all it reads stays, else what it left out."""
        self._asked.clear()
        try:
            follow(self, node)
            self._hold_unasked(node)
            self._check_outputs(node)
        except StuckError as stuck:
            self._stay(node, str(stuck))

    def finish(self, graph: onnx_ir.Graph) -> None:
        """Keep what the graph gives, and weights that something reads in a way nobody followed."""
        for value in graph.outputs:
            for labels in self._axes.get(value, ()):
                if labels is not None:
                    self.units.lock(labels, f"it is part of the output {value.name!r}", value.name or "")
        for (value, axis), labels in self.stored.items():
            if value in self._opaque:
                self.units.lock(labels, *self._opaque[value])
            if (value, axis) in self._held:
                self.units.lock(labels, "something reads it that does not follow this axis", self._held[value, axis])
            if value.is_graph_output():
                self.units.lock(labels, f"it is the output {value.name!r}", value.name or "")

    def _check_outputs(self, node: onnx_ir.Node) -> None:
        for value in node.outputs:
            if value not in self._axes and (value.uses() or value.is_graph_output()):
                raise StuckError(f"its output {value.name!r} is not followed")

    def _hold_unasked(self, node: onnx_ir.Node) -> None:
        """Keep the axes of what a node reads that it did not ask for; of weights also those labelled later."""
        for value in (value for value in node.inputs if value is not None):
            for axis in range(len(value.shape or ())):
                if (value, axis) not in self._asked:
                    self._held.setdefault((value, axis), node.name or "")
            for axis, labels in enumerate(self._axes.get(value, ())):
                if (value, axis) not in self._asked:
                    self.lock(labels, f"{node.op_type} does not follow axis {axis}", node)

    def _stay(self, node: onnx_ir.Node, reason: str) -> None:
        inner = (value for one in subgraphs(node) for inside in one.all_nodes() for value in inside.inputs)
        for value in (*node.inputs, *inner):
            if value is None:
                continue
            self._opaque.setdefault(value, (reason, node.name or ""))
            for labels in self._axes.get(value, ()):
                self.lock(labels, reason, node)


def parts_of(labels: Axis, shape: Sequence[int]) -> Axis:
    """Return labels as a grid."""
    return None if labels is None else labels.reshape(shape)


def fixed_or(labels: Axis, size: int | None) -> Labels:
    """Return labels, or as many of what cannot be removed.

    Raises:
        StuckError: How many is not known.
    """
    if labels is not None:
        return labels
    if size is None:
        raise StuckError("an axis has a length that is not known")
    return np.full(size, FIXED)
