"""Which channels of which tensors can be removed, and only together; and why the others cannot."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir

from onnxopt.ir.cleanup import remove_unused
from onnxopt.ir.layer_weights import LAYERS
from onnxopt.ir.model import normalise, private_copy
from onnxopt.ir.plain_weights import write_out_weights
from onnxopt.ir.shapes import infer_shapes
from onnxopt.ir.traverse import subgraphs
from onnxopt.prune.lineage import whole_lengths
from onnxopt.prune.operators import follow_graph
from onnxopt.prune.sizes import Sizes
from onnxopt.prune.units import Kept, Labels, Solved
from onnxopt.prune.walk import Cost, Repair, Walk

_LARGEST = 1 << 28
"""Bytes of a weight that is made in the graph, and has to be written out to be cut."""


@dataclass(frozen=True)
class Slot:
    """An axis of a weight."""

    value: onnx_ir.Value
    axis: int

    def __str__(self) -> str:
        return f"{self.value.name}[{self.axis}]"


@dataclass(frozen=True)
class Group:
    """Channels of which each can be removed for itself, from every tensor it is in.

    Attributes:
        name: Of the first weight they are in, with a number where a weight has several groups.
        classes: [channels], int: the class of the units of each.
        slots: The axes of weights they are along, in the order of the graph.
        each: Positions that one channel takes, in the axis where it takes the fewest.
        original: Number of channels before the model was ever pruned.
        heads: Whether channels are whole heads of attention.
    """

    name: str
    classes: Labels
    slots: tuple[Slot, ...]
    each: int
    original: int
    heads: bool = False

    @property
    def width(self) -> int:
        """Number of channels."""
        return len(self.classes)


@dataclass(frozen=True)
class Left:
    """What cannot be removed: a node that multiplies, the share of all multiply-accumulates that is, and why."""

    node: str
    operator: str
    share: float
    reason: str


@dataclass(frozen=True)
class Groups:
    """All there is to remove from a graph.

    Attributes:
        graph: Prepared; its values are those of the slots.
        found: The groups, in the order of the graph.
        solved: Which units are one.
        stored: Labels of the axes of weights.
        made: Labels of the axes of what nodes make, of those that have any.
        repairs: Numbers that follow from what stays.
        costs: Multiply-accumulates of the nodes.
    """

    graph: onnx_ir.Model
    found: tuple[Group, ...]
    solved: Solved
    stored: Mapping[tuple[onnx_ir.Value, int], Labels]
    made: Mapping[onnx_ir.Value, tuple[Labels, ...]]
    repairs: Sequence[Repair]
    costs: Sequence[Cost]

    def kept(self, removed: Labels) -> Kept:
        """Return what stays where the units of these classes are removed; of each axis at least the first stays."""
        gone = np.zeros(int(self.solved.classes.max()) + 1, bool)
        gone[removed] = True
        for labels in (labels for axes in self.made.values() for labels in axes):
            classes = self.solved.classes[labels]
            if gone[classes].all():
                gone[classes[0]] = False
        return Kept(~gone[self.solved.classes])

    @cached_property
    def macs(self) -> float:
        """Multiply-accumulates of one inference."""
        return sum(cost.macs for cost in self.costs)

    def macs_share(self, kept: Kept) -> float:
        """Return which part of them stays."""
        return sum(cost.macs * cost.share(kept) for cost in self.costs) / max(self.macs, 1.0)

    @cached_property
    def coverage(self) -> float:
        """Share of the multiply-accumulates in nodes of which something can be removed."""
        return 1.0 - sum(left.share for left in self.left) if self.macs else 0.0

    @cached_property
    def left(self) -> tuple[Left, ...]:
        """The nodes that multiply and of which nothing can be removed, the costliest first."""
        reasons = self._reasons()
        found = [
            Left(cost.node.name or "", cost.node.op_type, cost.macs / max(self.macs, 1.0), self._reason(cost, reasons))
            for cost in self.costs
            if not any((self.solved.classes[labels] != self.solved.fixed).any() for labels in cost.axes)
        ]
        return (*sorted(found, key=lambda one: -one.share), *self._inside())

    def _inside(self) -> Iterator[Left]:
        """Yield the layers of branches and loops, which nobody counted."""
        for outer in self.graph.graph:
            for node in (node for graph in subgraphs(outer) for node in graph.all_nodes()):
                if node.op_type in LAYERS:
                    reason = f"it is inside {outer.op_type} {outer.name!r}, which is not looked into"
                    yield Left(node.name or "", node.op_type, 0.0, reason)

    def _reasons(self) -> dict[int, str]:
        """Return why units cannot be removed, by unit."""
        found: dict[int, str] = {}
        for labels, lock in self.solved.locks:
            for unit in np.unique(labels).tolist():
                found.setdefault(unit, f"{lock.reason} ({lock.node})")
        return found

    def _reason(self, cost: Cost, reasons: Mapping[int, str]) -> str:
        told = Counter(reasons[unit] for labels in cost.axes for unit in labels.tolist() if unit in reasons)
        return told.most_common(1)[0][0] if told else "what it makes is held by what it is used with"


def prepared(graph: onnx_ir.Model) -> onnx_ir.Model:
    """Return a private copy with every weight in an initializer, shapes inferred, and numbers as inputs."""
    graph = write_out_weights(private_copy(graph), growth=_LARGEST)
    remove_unused(graph)
    infer_shapes(graph)
    normalise(graph)
    return graph


def find_groups(graph: onnx_ir.Model, sizes: Sizes, *, statistics: bool = False) -> Groups:
    """Return what can be removed from a graph.

    Args:
        graph: As ``prepared`` makes it; not changed.
        sizes: Shapes of its values in one inference.
        statistics: Whether channels that are normalised over, as those of a transformer's residual stream, count:
            without some of them the mean and variance of the others are no longer what they were.
    """
    walk = Walk(sizes, statistics=statistics)
    follow_graph(graph.graph, walk)
    solved = walk.units.solved()
    found = tuple(_groups(walk, solved, whole_lengths(graph)))
    return Groups(graph, found, solved, walk.stored, walk.moving(), walk.repairs, walk.costs)


def _groups(walk: Walk, solved: Solved, whole: Mapping[tuple[str, int], int]) -> Iterator[Group]:
    """Yield classes that are along the same axes, together."""
    places: dict[int, list[tuple[Slot, int]]] = defaultdict(list)
    for (value, axis), labels in walk.stored.items():
        classes, counts = np.unique(solved.classes[labels], return_counts=True)
        for one, count in zip(classes.tolist(), counts.tolist(), strict=True):
            if one != solved.fixed:
                places[one].append((Slot(value, axis), count))
    alike: dict[tuple[tuple[Slot, int], ...], list[int]] = defaultdict(list)
    for one, found in places.items():
        alike[tuple(found)].append(one)
    heads = {one for labels in walk.stacked for one in solved.classes[labels].tolist()}
    named: Counter[str] = Counter()
    for key, members in alike.items():
        axes, each = tuple(slot for slot, _ in key), min(count for _, count in key)
        now = len(walk.stored[axes[0].value, axes[0].axis])
        original = round(len(members) * whole.get((axes[0].value.name or "", axes[0].axis), now) / now)
        name = axes[0].value.name or ""
        named[name] += 1
        unique = name if named[name] == 1 else f"{name} ({named[name]})"
        yield Group(unique, np.asarray(members), axes, each, original, members[0] in heads)
