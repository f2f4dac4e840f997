"""How large a model is by the widths of its groups: in multiply-accumulates, in parameters, or in measured seconds."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir

from onnxopt.compile.isolation import Limits
from onnxopt.context import Context
from onnxopt.data.sample import Array
from onnxopt.data.synthetic import Synthetic
from onnxopt.errors import UsageError
from onnxopt.evaluate.kept import Kept
from onnxopt.ir.model import Model
from onnxopt.ir.weights import constant_tensor
from onnxopt.ir.write import write_model
from onnxopt.profile.operators import node_seconds
from onnxopt.prune.groups import Group, Groups
from onnxopt.prune.units import Labels

Of = Literal["macs", "parameters", "seconds"]

_LIMITS = Limits(seconds=600)

_MOST_FUSED = 4
"""Nodes a runtime makes one of: a convolution, its normalisation, a sum and an activation."""


@dataclass(frozen=True)
class Amount:
    """Something that is counted: how much of it there is, and the axes it is proportional to."""

    value: float
    axes: tuple[Labels, ...]


def find_amounts(groups: Groups, of: Of, ctx: Context) -> list[Amount]:
    """Return what a model's size is made of.

    Args:
        groups: All groups of the graph.
        of: ``macs``: of each node that multiplies; ``parameters``: of each weight; ``seconds``: of each node, as ONNX
            Runtime takes them on this machine, on the first sample or a made-up one.
        ctx: For seconds: gives ``data``, ``scratch`` and ``target``.

    Raises:
        UsageError: Seconds are asked for on another machine.
        EngineError: The runtime cannot run the model.
    """
    if of == "macs":
        return [Amount(cost.macs, cost.axes) for cost in groups.costs]
    return _weights(groups) if of == "parameters" else list(_seconds(groups, ctx))


def _weights(groups: Groups) -> list[Amount]:
    axes: dict[str, list[Labels]] = {name: [] for name in groups.graph.graph.initializers}
    for (value, _), labels in groups.stored.items():
        axes[value.name or ""].append(labels)
    sizes = {
        name: value.shape.numpy() if value.shape else () for name, value in groups.graph.graph.initializers.items()
    }
    return [Amount(float(math.prod(sizes[name])), tuple(some)) for name, some in axes.items()]


def _seconds(groups: Groups, ctx: Context) -> Iterator[Amount]:
    """Yield what each node that was timed takes, by the axes of what it multiplies, or else of what it makes."""
    if not ctx.target.is_local:
        raise UsageError("seconds are measured, and the target is another machine", hint="count macs for it")
    costs = {cost.node: cost.axes for cost in groups.costs}
    nodes = {node.name: node for node in groups.graph.graph}
    makers = {value.name: node for node in groups.graph.graph for value in node.outputs}
    taken = _timed(groups.graph, ctx)
    for name, seconds in taken.items():
        node = nodes.get(name, makers.get(name))
        if node is None:
            yield Amount(seconds, ())
            continue
        multiplies = _fused_into(node, costs, taken)
        yield Amount(seconds, groups.made.get(node.outputs[0], ()) if multiplies is None else costs[multiplies])


def _timed(graph: onnx_ir.Model, ctx: Context) -> Mapping[str, float]:
    """Return the seconds of what runs; found again where the budget alone differs, so that one clock counts."""
    model = Model(graph)
    samples = ctx.data if ctx.has_data else Synthetic(synthetic=1).open(model, Path())
    kept = Kept.of(ctx.kept, "node-seconds", model.digest, samples.fingerprint, ctx.target)
    found: Mapping[str, float] | None = kept.read()
    if found is not None:
        return found
    inputs = {port.name for port in model.signature.inputs}
    feeds = {name: array for name, array in samples.read(0).feeds.items() if name in inputs}
    with tempfile.TemporaryDirectory(prefix="onnxopt-") as folder:
        path = write_model(model, Path(folder) / "model.onnx")[0]
        found = node_seconds(path, [feeds], ctx.target, limits=_LIMITS)
    kept.write(found)
    return found


def _fused_into(
    node: onnx_ir.Node, costs: Mapping[onnx_ir.Node, object], taken: Mapping[str, float]
) -> onnx_ir.Node | None:
    """Return the node that multiplies of those a runtime fused into one, which goes by the name of the last."""
    found: onnx_ir.Node | None = node
    for _ in range(_MOST_FUSED):
        if found is None or found in costs:
            return found
        before = (value.producer() for value in found.inputs if value is not None and constant_tensor(value) is None)
        found = next((one for one in before if one is not None and one.name not in taken), None)
    return None


class Size:
    """How large a model is by the widths of its groups, with kernels' padding where that is asked for.

    The amounts that a group's width bears on are known, so that a step of one group is quick to judge.
    """

    def __init__(self, groups: Groups, considered: Sequence[Group], amounts: Sequence[Amount], block: int = 1) -> None:
        """Count a model at its full widths.

        Args:
            groups: All groups of the graph.
            considered: Those whose widths change.
            amounts: What is counted.
            block: Widths count as the next multiple of it.
        """
        pairs = [(owner, labels) for owner, amount in enumerate(amounts) for labels in amount.axes]
        self._owners = np.asarray([owner for owner, _ in pairs], np.int64)
        self._lengths = np.asarray([len(labels) for _, labels in pairs])
        self._amounts = np.asarray([amount.value for amount in amounts])
        self._block = block
        self._counts = np.asarray([_counts(groups, labels, considered) for _, labels in pairs])
        self._counts = self._counts.reshape(len(pairs), len(considered))
        self._fixed = self._lengths - self._counts @ np.asarray([group.width for group in considered])
        self._whole = np.maximum(self._padded(self._lengths), 1)
        self._rows = [np.flatnonzero(np.isin(self._owners, self._owned(place))) for place in range(len(considered))]
        self._total = max(float(self._amounts.sum()), 1e-12)

    def share(self, widths: Array) -> float:
        """Return the share that is left with these widths."""
        return float(self._products(slice(None), widths) @ self._amounts) / self._total

    def saved(self, place: int, widths: Array, narrower: int) -> float:
        """Return which share of the whole is saved by making one group narrower."""
        after = widths.copy()
        after[place] = narrower
        rows = self._rows[place]
        before, left = self._products(rows, widths), self._products(rows, after)
        return float((before - left) @ self._amounts) / self._total

    def bearing(self, place: int) -> list[int]:
        """Return the groups for which what a step saves depends on the width of this one."""
        return np.flatnonzero(self._counts[self._rows[place]].any(0)).tolist()

    def _owned(self, place: int) -> Array:
        return np.unique(self._owners[self._counts[:, place] > 0])

    def _products(self, rows: Array | slice, widths: Array) -> Array:
        """Return the shares of amounts that are left, [amounts]; one for those that none of the rows bears on."""
        lengths = self._padded(self._fixed[rows] + self._counts[rows] @ widths)
        products = np.ones(len(self._amounts))
        np.multiply.at(products, self._owners[rows], lengths / self._whole[rows])
        return products

    def _padded(self, lengths: Array) -> Array:
        return np.asarray(np.ceil(lengths / self._block) * self._block)


def _counts(groups: Groups, labels: Labels, considered: Sequence[Group]) -> list[int]:
    """Return how many positions of an axis a channel of each group takes."""
    counts = np.bincount(groups.solved.classes[labels], minlength=int(groups.solved.classes.max()) + 1)
    return [int(counts[group.classes[0]]) for group in considered]
