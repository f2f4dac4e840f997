"""What is gathered of a tensor over samples, in memory that does not grow with their number."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from onnxopt.compile.engine import Array


class Statistic(ABC):
    """Takes in arrays one at a time; travels between processes, and into files as its state."""

    @abstractmethod
    def add(self, array: Array) -> None:
        """Take in an array of any shape."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return everything, as JSON values."""

    @classmethod
    @abstractmethod
    def of(cls, state: Mapping[str, Any]) -> Self:
        """Return the statistic of a state."""


def stride(count: int, most: int) -> int:
    """Return how many of ``count`` to go on by to see about ``most``: prime to it, so in step with no axis."""
    step = max(1, count // most)
    while math.gcd(step, count) > 1:
        step += 1
    return step


class ChannelMoments(Statistic):
    """Ends, sum and sum of squares of each channel; what is not finite counts as zero.

    Attributes:
        axis: Of the channels.
        lows: Least values, [channels], float64, as all that follow; empty before any array.
        highs: Greatest values.
        sums: Of the values.
        squares: Of their squares.
        count: Elements of a channel.
    """

    def __init__(self, axis: int) -> None:
        self.axis = axis
        self.count = 0
        self.lows, self.highs, self.sums, self.squares = np.zeros((4, 0))

    def add(self, array: Array) -> None:
        """Take in an array."""
        parts = np.moveaxis(array, self.axis, 0).reshape(array.shape[self.axis], -1)
        if not parts.size:
            return
        usable = parts if np.isfinite(parts).all() else np.where(np.isfinite(parts), parts, 0)
        if not self.count:
            self.lows, self.highs, self.sums, self.squares = np.zeros((4, len(usable)))
        self.count += usable.shape[1]
        self.lows = np.minimum(self.lows, usable.min(1))
        self.highs = np.maximum(self.highs, usable.max(1))
        self.sums = self.sums + usable.sum(1, dtype=np.float64)
        self.squares = self.squares + np.einsum("ce,ce->c", usable, usable, dtype=np.float64)

    @property
    def peaks(self) -> Array:
        """Largest magnitudes, [channels]."""
        return np.maximum(-self.lows, self.highs)

    @property
    def means(self) -> Array:
        """Means, [channels]."""
        return self.sums / max(self.count, 1)

    @property
    def powers(self) -> Array:
        """Mean squares, [channels]."""
        return self.squares / max(self.count, 1)

    def state(self) -> dict[str, Any]:
        """Return everything."""
        arrays = {name: getattr(self, name).tolist() for name in _ARRAYS}
        return {"axis": self.axis, "count": self.count, **arrays}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Self:
        """Return the statistic of a state."""
        made = cls(state["axis"])
        made.count = state["count"]
        for name in _ARRAYS:
            setattr(made, name, np.asarray(state[name], np.float64))
        return made


_ARRAYS = ("lows", "highs", "sums", "squares")
