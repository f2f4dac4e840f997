"""What was seen of a tensor, in constant memory however many samples there are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from onnxopt.compile.engine import Array
from onnxopt.evaluate.statistic import Statistic, stride

BINS = 8192
"""Bins from -bound to bound. With bounds that are powers of two, at least a quarter of them covers what was seen."""

MASK = 1e30
"""Values beyond it are masks (exporters write -3.4e38 for minus infinity), not numbers to be told apart."""

_MOST_COUNTED = 1 << 14
"""Elements of one array that are counted; every one takes part in the least and the greatest."""

_ENOUGH_COUNTED = 1 << 19
"""Elements of a tensor that are counted over all arrays: 64 for each bin."""

_HALF = BINS // 2
_LEAST_EXPONENT = -60
"""Of a bound; smaller values are zero for every scale that is stored."""


class Histogram(Statistic):
    """Counts of values between bounds that double when a larger one is seen, so that one pass over the data suffices.

    Attributes:
        low: The least finite value seen, 0 before any.
        high: The greatest.
        seen: Elements seen.
        masked: Elements that were infinite or masks, and left out.
        invalid: Elements that were NaN, and left out.
        bound: Half the width, a power of two; 0 before any value but zero.
        counts: [BINS], int64.
        most: Elements of one array that are counted.
    """

    def __init__(self, arrays: int = 1) -> None:
        """Make one that has seen nothing; of more ``arrays`` to come, fewer elements of each are counted."""
        self.most = max(1, min(_MOST_COUNTED, _ENOUGH_COUNTED // max(arrays, 1)))
        self.low = math.inf
        self.high = -math.inf
        self.seen = self.masked = self.invalid = 0
        self.bound = 0.0
        self.counts = np.zeros(BINS, np.int64)

    def add(self, array: Array) -> None:
        """Take in an array of any shape; of a large one only a regular part is counted."""
        flat = array.reshape(-1).astype(np.float32, copy=False)
        self.seen += flat.size
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        if not -MASK < low <= high < MASK:
            flat = self._without_masks(flat)
            if not flat.size:
                return
            low, high = float(flat.min()), float(flat.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._widen(max(-low, high))
        if self.bound:
            self._count(flat[:: stride(flat.size, self.most)])

    @property
    def centers(self) -> Array:
        """The middle of each bin, float64."""
        return (np.arange(BINS) + 0.5 - _HALF) * (self.bound / _HALF)

    @property
    def width(self) -> float:
        """Of a bin."""
        return self.bound / _HALF

    @property
    def is_empty(self) -> bool:
        """Whether nothing but masks and NaN was seen."""
        return self.low > self.high

    def state(self) -> dict[str, Any]:
        """Return everything, as JSON values and the counts that are not zero."""
        places = np.flatnonzero(self.counts)
        told = {key: getattr(self, key) for key in _SCALARS}
        return {**told, "places": places.tolist(), "counts": self.counts[places].tolist()}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Histogram:
        """Return the histogram of a state."""
        made = cls()
        for key in _SCALARS:
            setattr(made, key, state[key])
        made.counts[np.asarray(state["places"], np.int64)] = state["counts"]
        return made

    def _without_masks(self, flat: Array) -> Array:
        invalid = np.isnan(flat)
        usable = ~invalid & (np.abs(flat) < MASK)
        self.invalid += int(invalid.sum())
        self.masked += int((~usable & ~invalid).sum())
        return flat[usable]

    def _widen(self, largest: float) -> None:
        while self.bound < largest:
            if not self.bound:
                self.bound = 2.0 ** max(math.ceil(math.log2(largest)), _LEAST_EXPONENT)
                return
            self.counts = np.pad(self.counts.reshape(-1, 2).sum(1), BINS // 4)
            self.bound *= 2

    def _count(self, flat: Array) -> None:
        places = (flat * np.float32(_HALF / self.bound) + np.float32(_HALF)).astype(np.intp)
        self.counts += np.bincount(np.minimum(places, BINS - 1, out=places), minlength=BINS)


_SCALARS = ("most", "low", "high", "seen", "masked", "invalid", "bound")
