"""Which channels to remove, to a budget: those that matter least for what they cost, in steps kernels like."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxopt.data.sample import Array
from onnxopt.prune.amounts import Size
from onnxopt.prune.groups import Group
from onnxopt.prune.importance import Scores
from onnxopt.prune.units import Labels

_SLACK = 0.01
"""By how much of the whole a step that loses little may save too much."""

_MISSED = 0.02
"""By how much of the whole a budget may be missed before steps are made finer."""

_LEAST_STEPS = 8
"""A group is cut in at least so many steps, with narrower ones where it is narrow."""


@dataclass(frozen=True)
class Budget:
    """What is to be left.

    Attributes:
        share: Of what is counted, above 0 and below 1.
        align: Widths become multiples of it where they are wide enough.
        least: Share of each group's channels that stays in any case.
    """

    share: float
    align: int
    least: float


@dataclass(frozen=True)
class Chosen:
    """What to remove, and what is then left.

    Attributes:
        removed: Classes of units.
        share: Of what is counted.
        widths: Channels that stay, by the name of the group.
    """

    removed: Labels
    share: float
    widths: Mapping[str, int]


def choose(size: Size, considered: Sequence[Group], scores: Sequence[Scores], budget: Budget) -> Chosen:
    """Return what to remove to come as near to a budget as steps allow.

    Args:
        size: Of the model, by the widths of the groups.
        considered: The groups that may lose channels.
        scores: Importance of the channels of each.
        budget: What is to be left.
    """
    found = [_chosen(size, considered, scores, budget)]
    while abs(found[-1].share - budget.share) > _MISSED and budget.align > 1:
        budget = replace(budget, align=budget.align // 2)
        found.append(_chosen(size, considered, scores, budget))
    return min(found, key=lambda one: abs(one.share - budget.share))


def _chosen(size: Size, considered: Sequence[Group], scores: Sequence[Scores], budget: Budget) -> Chosen:
    """Return what to remove in steps of one coarseness."""
    steps = _Steps(size, considered, scores, budget)
    left = size.share(steps.widths)
    while left > budget.share:
        place = steps.cheapest(left, budget.share)
        if place is None:
            break
        steps.take(place)
        left = size.share(steps.widths)
    removed = [group.classes[np.argsort(one, kind="stable")] for group, one in zip(considered, scores, strict=True)]
    widths = steps.widths.tolist()
    cut = [order[: len(order) - width] for order, width in zip(removed, widths, strict=True)]
    kept = {group.name: width for group, width in zip(considered, widths, strict=True)}
    return Chosen(np.concatenate(cut), left, kept)


class _Steps:
    """The next narrower width of each group: what it saves and what it loses."""

    def __init__(self, size: Size, considered: Sequence[Group], scores: Sequence[Scores], budget: Budget) -> None:
        self.widths = np.asarray([group.width for group in considered])
        self._size = size
        self._ladders = [_ladder(group, budget) for group in considered]
        self._losses = [_losses(one) for one in scores]
        self._next = np.zeros(len(considered), np.int64)
        self._saves = np.full(len(considered), np.nan)
        self._lost = np.full(len(considered), np.nan)
        self._judge(range(len(considered)))

    def cheapest(self, left: float, target: float) -> int | None:
        """Return the group whose step loses least for what it saves, without saving too much.

        Where every step saves too much it is the one that ends nearest to the target, or none if that is here.
        """
        after = left - self._saves
        fine = after >= target - _SLACK
        if fine.any():
            return int(np.argmin(np.where(fine, self._lost / np.maximum(self._saves, 1e-12), np.inf)))
        if np.isnan(after).all():
            return None
        place = int(np.nanargmin(np.abs(after - target)))
        return place if abs(after[place] - target) < abs(left - target) else None

    def take(self, place: int) -> None:
        """Make a group narrower."""
        self.widths[place] = self._next[place]
        self._judge(self._size.bearing(place))

    def _judge(self, places: Iterable[int]) -> None:
        """Find the step of groups: to the widest width that saves anything."""
        for place in places:
            narrower = [width for width in self._ladders[place] if width < self.widths[place]]
            saved = ((width, self._size.saved(place, self.widths, width)) for width in narrower)
            width, saves = next((one for one in saved if one[1] > 0), (0, np.nan))
            losses = self._losses[place]
            self._next[place], self._saves[place] = width, saves
            self._lost[place] = losses[len(losses) - 1 - width] - losses[len(losses) - 1 - self.widths[place]]


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
