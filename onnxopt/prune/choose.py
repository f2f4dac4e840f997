"""Which channels to remove, to a budget: those that matter least for what they cost, in steps kernels like."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxopt.data.sample import Array
from onnxopt.prune.groups import Group, Groups
from onnxopt.prune.importance import Scores
from onnxopt.prune.units import Labels

_SLACK = 0.01
"""By how much of the whole a step that loses little may save too much."""

_LEAST_STEPS = 4
"""A group is cut in at least so many steps, with narrower ones where it is narrow."""


@dataclass(frozen=True)
class Budget:
    """What is to be left.

    Attributes:
        share: Of the multiply-accumulates, or of the parameters, above 0 and below 1.
        of: Which of them.
        align: Widths become multiples of it where they are wide enough.
        least: Share of each group's channels that stays in any case.
    """

    share: float
    of: str
    align: int
    least: float


@dataclass(frozen=True)
class Chosen:
    """What to remove, and what is then left.

    Attributes:
        removed: Classes of units.
        share: Of what the budget is of.
        widths: Channels that stay, by the name of the group.
    """

    removed: Labels
    share: float
    widths: Mapping[str, int]


def choose(groups: Groups, considered: Sequence[Group], scores: Sequence[Scores], budget: Budget) -> Chosen:
    """Return what to remove to come as near to a budget as steps allow.

    Args:
        groups: All groups of the graph.
        considered: Those that may lose channels.
        scores: Importance of the channels of each.
        budget: What is to be left.
    """
    size = _Size(groups, considered, budget.of)
    narrower = [_ladder(group, budget) for group in considered]
    losses = [_losses(one) for one in scores]
    widths = np.asarray([group.width for group in considered])
    while size.share(widths) > budget.share:
        step = _next_step(size, widths, narrower, losses, budget.share)
        if step is None:
            break
        widths[step] = narrower[step].pop(0)
    removed = [group.classes[np.argsort(one, kind="stable")] for group, one in zip(considered, scores, strict=True)]
    cut = [order[: len(order) - width] for order, width in zip(removed, widths.tolist(), strict=True)]
    kept = {group.name: width for group, width in zip(considered, widths.tolist(), strict=True)}
    return Chosen(np.concatenate(cut), size.share(widths), kept)


def _next_step(
    size: _Size, widths: Array, narrower: Sequence[Sequence[int]], losses: Sequence[Array], target: float
) -> int | None:
    """Return the group to make narrower: what loses least for what it saves, without saving too much.

    Where every step saves too much it is the one that ends nearest to the target, or none if that is here.
    """
    now = size.share(widths)
    found: list[tuple[float, float, int]] = []
    for place in (place for place, left in enumerate(narrower) if left):
        after = widths.copy()
        after[place] = narrower[place][0]
        gone, loss = len(losses[place]) - 1, losses[place]
        lost = loss[gone - after[place]] - loss[gone - widths[place]]
        share = size.share(after)
        found.append((share, lost / max(now - share, 1e-12), place))
    fine = [(price, place) for share, price, place in found if share >= target - _SLACK]
    if fine:
        return min(fine)[1]
    share, _, place = min(found, key=lambda one: abs(one[0] - target), default=(now, 0.0, 0))
    return place if abs(share - target) < abs(now - target) else None


def _losses(scores: Scores) -> Array:
    """Return what it costs to remove the least important channels, [how many]: the logarithm of what is left.

    So the last channels of a group are dearer than the first, and none is emptied for the sake of others.
    """
    total = max(float(scores.sum()), 1e-30)
    left = 1 - np.concatenate([[0.0], np.cumsum(np.sort(scores))]) / total
    return np.asarray(-total * np.log(np.maximum(left, 1e-12)))


def _ladder(group: Group, budget: Budget) -> list[int]:
    """Return the widths a group may be cut to, the widest first."""
    step = budget.align // math.gcd(budget.align, group.each)
    while step > 1 and group.width < _LEAST_STEPS * step:
        step //= 2
    least = max(1, math.ceil(group.width * budget.least))
    first = (group.width - 1) // step * step
    return [width for width in range(first, 0, -step) if width >= least]


class _Size:
    """How large a model is by the widths of its groups."""

    def __init__(self, groups: Groups, considered: Sequence[Group], of: str) -> None:
        self._weights, self._fixed, amounts, owners = _axes(groups, considered, of)
        self._amounts, self._owners = np.asarray(amounts), np.asarray(owners, np.int64)
        self._total = self._of(np.asarray([group.width for group in considered]))

    def share(self, widths: Array) -> float:
        """Return the share that is left with these widths."""
        return float(self._of(widths) / max(self._total, 1e-12))

    def _of(self, widths: Array) -> float:
        shares = self._fixed + self._weights @ widths
        products = np.ones(len(self._amounts))
        np.multiply.at(products, self._owners, shares)
        return float(products @ self._amounts)


def _axes(groups: Groups, considered: Sequence[Group], of: str) -> tuple[Array, Array, list[float], list[int]]:
    """Return for each axis what share of it a channel of each group is, and what no group holds; amounts; owners."""
    things = _things(groups, of)
    rows, fixed, owners = [], [], []
    for owner, (_, axes) in enumerate(things):
        for labels in axes:
            counts = np.bincount(groups.solved.classes[labels], minlength=int(groups.solved.classes.max()) + 1)
            row = [counts[group.classes[0]] / len(labels) for group in considered]
            rows.append(row)
            fixed.append(1 - sum(share * group.width for share, group in zip(row, considered, strict=True)))
            owners.append(owner)
    return (
        np.asarray(rows).reshape(len(rows), len(considered)),
        np.asarray(fixed),
        [float(amount) for amount, _ in things],
        owners,
    )


def _things(groups: Groups, of: str) -> list[tuple[float, list[Labels]]]:
    """Return what is counted: nodes that multiply, or weights; and the axes each is proportional to."""
    if of == "macs":
        return [(cost.macs, list(cost.axes)) for cost in groups.costs]
    held: dict[str, tuple[float, list[Labels]]] = {}
    for name, value in groups.graph.graph.initializers.items():
        held[name] = (float(math.prod(value.shape.numpy()) if value.shape else 1), [])
    for (value, _), labels in groups.stored.items():
        held[value.name or ""][1].append(labels)
    return list(held.values())
