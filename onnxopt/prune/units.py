"""Positions along axes of tensors, and which of them can only be removed together.

Every position is labelled with a unit. Operators make units equal; what cannot be removed is equal to the unit 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Labels = np.ndarray[Any, Any]
"""[positions] along an axis, int64: the unit of each."""

FIXED = 0


@dataclass(frozen=True)
class Lock:
    """Why positions cannot be removed: the reason, and the node it lies with."""

    reason: str
    node: str


class Units:
    """Units, and which are one."""

    def __init__(self) -> None:
        self._count = 1
        self._pairs: list[Labels] = []
        self._locks: list[tuple[Labels, Lock]] = []

    def fresh(self, count: int) -> Labels:
        """Return so many units nothing is known of."""
        first, self._count = self._count, self._count + count
        return np.arange(first, self._count)

    def join(self, one: Labels, other: Labels) -> None:
        """Make units equal, one by one; shapes broadcast."""
        self._pairs.append(np.stack(np.broadcast_arrays(one, other)).reshape(2, -1))

    def lock(self, labels: Labels, reason: str, node: str) -> None:
        """Let nothing remove these."""
        self._locks.append((labels, Lock(reason, node)))
        self.join(labels, np.asarray(FIXED))

    def solved(self) -> Solved:
        """Return what all that was said comes to."""
        first, second = np.concatenate(self._pairs, 1) if self._pairs else np.zeros((2, 0), np.int64)
        edges = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(self._count, self._count))
        _, classes = connected_components(edges, directed=False)
        return Solved(classes, tuple(self._locks))


@dataclass(frozen=True)
class Solved:
    """Which units are one.

    Attributes:
        classes: [units], int: the class of each; those of one class are kept or removed together.
        locks: What was not to be removed, and why.
    """

    classes: Labels
    locks: tuple[tuple[Labels, Lock], ...]

    @property
    def fixed(self) -> int:
        """The class of what cannot be removed."""
        return int(self.classes[FIXED])


@dataclass(frozen=True)
class Kept:
    """What stays.

    Attributes:
        of_units: [units], bool.
    """

    of_units: np.ndarray[Any, Any]

    def along(self, labels: Labels) -> np.ndarray[Any, Any]:
        """Return which positions of an axis stay, [positions], bool."""
        return self.of_units[labels]

    def count(self, labels: Labels) -> int:
        """Return how many positions of an axis stay."""
        return int(self.along(labels).sum())
