"""Which channels to remove, to a budget: those that matter least for what they cost, in steps kernels like."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

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

_WORTH = 0.5
"""Share of what is lost that finer steps may lose, to be taken though kernels like them less."""

_FORKS = 8
"""Steps that are tried although they save too much."""

_LEAST_STEPS = 8
"""A group is cut in at least so many steps, with narrower ones where it is narrow."""

_HALVINGS = 20
"""Of what is not known of the share that all groups keep: to a channel in a million."""

Together = Literal["model", "layer"]


@dataclass(frozen=True)
class Budget:
    """What is to be left.

    Attributes:
        share: Of what is counted, above 0 and below 1.
        align: Widths become multiples of it where they are wide enough.
        least: Share of the channels that each group had in the original, which stays in any case.
        together: ``model``: groups lose what matters least for what it saves; ``layer``: each loses the same share.
    """

    share: float
    align: int
    least: float
    together: Together = "model"


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


def choose(
    size: Size, considered: Sequence[Group], scores: Sequence[Scores], budget: Budget, price: Size | None = None
) -> Chosen:
    """Return what to remove to come as near to a budget as steps allow.

    Args:
        size: Of the model, by the widths of the groups: what the budget is of.
        considered: The groups that may lose channels.
        scores: Importance of the channels of each.
        budget: What is to be left.
        price: What importance is held against, by the widths too; ``size`` itself if None.
    """
    losses, price = [_losses(one) for one in scores], price or size
    find = (
        partial(_alike, size, considered)
        if budget.together == "layer"
        else partial(_cheapest, size, considered, losses, price)
    )
    widths = find(budget)
    while budget.align > 1:
        budget = replace(budget, align=budget.align // 2)
        finer = find(budget)
        missed, missed_finer = (abs(size.share(one) - budget.share) for one in (widths, finer))
        worth = missed_finer <= _MISSED and _lost(losses, finer, price) < _WORTH * _lost(losses, widths, price)
        widths = finer if worth or max(missed_finer, _MISSED) < missed else widths
    return _chosen(size, considered, scores, widths)


def _chosen(size: Size, considered: Sequence[Group], scores: Sequence[Scores], widths: Array) -> Chosen:
    """Return what to remove to come to widths: of each group what matters least."""
    orders = [group.classes[np.argsort(one, kind="stable")] for group, one in zip(considered, scores, strict=True)]
    cut = [order[: len(order) - width] for order, width in zip(orders, widths.tolist(), strict=True)]
    kept = {group.name: width for group, width in zip(considered, widths.tolist(), strict=True)}
    return Chosen(np.concatenate(cut), size.share(widths), kept)


def _lost(losses: Sequence[Array], widths: Array, price: Size) -> float:
    """Return what it costs in all to come to widths, for what that saves."""
    lost = sum(one[len(one) - 1 - width] for one, width in zip(losses, widths.tolist(), strict=True))
    return float(lost) / max(1 - price.share(widths), 1e-9)


def _cheapest(size: Size, considered: Sequence[Group], losses: Sequence[Array], price: Size, budget: Budget) -> Array:
    """Return widths, [groups], after the steps that lose least for what they save, one at a time.

    Near the end only small steps fit, however much they lose. So the cheapest of all is tried there too, with others
    given back for it; of the ends that are near enough, the one that loses least is taken.
    """
    steps = _Steps(size, considered, losses, budget, price)
    ends: dict[int, Array] = {}
    while (left := size.share(steps.widths)) > budget.share:
        place, bold = steps.cheapest(left, budget.share - _SLACK), steps.cheapest(left, 0)
        if bold is not None and bold != place and bold not in ends and len(ends) < _FORKS:
            ends[bold] = steps.given_back(steps.after(bold), budget.share)
        place = steps.nearest(left, budget.share) if place is None else place
        if place is None:
            break
        steps.take(place)
    found = [*ends.values(), steps.widths]
    return min(found, key=lambda one: (max(abs(size.share(one) - budget.share), _MISSED), _lost(losses, one, price)))


def _alike(size: Size, considered: Sequence[Group], budget: Budget) -> Array:
    """Return widths, [groups], that are about the same share of each group, found by halving."""
    ladders = [np.asarray([group.width, *_ladder(group, budget)]) for group in considered]

    def widths(share: float) -> Array:
        return np.asarray([ladder[np.argmin(np.abs(ladder - share * ladder[0]))] for ladder in ladders])

    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if size.share(widths(middle)) < budget.share else (low, middle)
    return min((widths(low), widths(high)), key=lambda one: abs(size.share(one) - budget.share))


class _Steps:
    """The next narrower width of each group: what it saves and what it loses."""

    def __init__(
        self, size: Size, considered: Sequence[Group], losses: Sequence[Array], budget: Budget, price: Size
    ) -> None:
        self.widths = np.asarray([group.width for group in considered])
        self._size, self._price = size, price
        self._ladders = [_ladder(group, budget) for group in considered]
        self._losses = losses
        self._next = np.zeros(len(considered), np.int64)
        self._saves = np.full(len(considered), np.nan)
        self._costs = np.full(len(considered), np.inf)
        self._judge(range(len(considered)))

    def cheapest(self, left: float, least: float) -> int | None:
        """Return the group whose step loses least for what it saves, of those that leave so much; None if none does."""
        fine = left - self._saves >= least
        return int(np.argmin(np.where(fine, self._costs, np.inf))) if fine.any() else None

    def nearest(self, left: float, target: float) -> int | None:
        """Return the group whose step ends nearest to the target; None if that is here."""
        after = left - self._saves
        if np.isnan(after).all():
            return None
        place = int(np.nanargmin(np.abs(after - target)))
        return place if abs(after[place] - target) < abs(left - target) else None

    def after(self, place: int) -> Array:
        """Return the widths with one group narrower."""
        found = self.widths.copy()
        found[place] = self._next[place]
        return found

    def given_back(self, widths: Array, target: float) -> Array:
        """Return widths with steps undone, those that lost most for what they saved first, up to a target."""
        widths = widths.copy()
        while (wider := self._dearest(widths, target - self._size.share(widths))) is not None:
            widths[wider[0]] = wider[1]
        return widths

    def _dearest(self, widths: Array, room: float) -> tuple[int, int] | None:
        """Return the group and the width whose last step lost most for what it saved, of those with room to undo it."""
        found: list[tuple[float, int, int]] = []
        for place, now in enumerate(widths.tolist()):
            width = self._wider(place, now)
            if width == now:
                continue
            undone = widths.copy()
            undone[place] = width
            saved = self._size.saved(place, undone, now)
            if 0 < saved <= room:
                found.append(((self._loss(place, now) - self._loss(place, width)) / saved, place, width))
        return max(found)[1:] if found else None

    def _wider(self, place: int, width: int) -> int:
        """Return the next wider width of a group; the same if it is whole."""
        ladder = self._ladders[place]
        return next((one for one in reversed(ladder) if one > width), len(self._losses[place]) - 1)

    def _loss(self, place: int, width: int) -> float:
        """Return what it costs to cut a group to a width."""
        losses = self._losses[place]
        return float(losses[len(losses) - 1 - width])

    def take(self, place: int) -> None:
        """Make a group narrower."""
        self.widths[place] = self._next[place]
        self._judge({*self._size.bearing(place), *self._price.bearing(place)})

    def _judge(self, places: Iterable[int]) -> None:
        """Find the step of groups: to the widest width that saves anything."""
        for place in places:
            self._next[place], self._saves[place], self._costs[place] = self._step(place)

    def _step(self, place: int) -> tuple[int, float, float]:
        """Return the next width of a group, what that saves, and what it loses for what it is held against."""
        now = int(self.widths[place])
        for width in (width for width in self._ladders[place] if width < now):
            saves = self._size.saved(place, self.widths, width)
            worth = saves if self._price is self._size else self._price.saved(place, self.widths, width)
            if saves > 0 and worth > 0:
                return width, saves, (self._loss(place, width) - self._loss(place, now)) / worth
        return 0, np.nan, np.inf


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
    least = max(1, math.ceil(group.original * budget.least))
    first = (group.width - 1) // step * step
    return [width for width in range(first, 0, -step) if width >= least]
