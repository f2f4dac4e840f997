"""From what was seen of a tensor to the range its stored numbers cover: methods that differ in what they cut off."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from onnxopt.ir.quant import Array, Scheme
from onnxopt.quantize.histogram import Histogram

Range = tuple[float, float]
Method = Literal["minmax", "percentile", "entropy", "mse"]

_CUT = 5e-5
"""Share cut off at each end by ``percentile``: 99.99 % stays, the usual choice (Wu et al. 2020, arXiv:2004.09602)."""

_CANDIDATES = 128
_MOST_BINS = 2048
_FILLED = 16
"""Elements a bin should hold on average: the divergence of bare bins says nothing."""

_LEVELS = 128
"""Levels of ``entropy``, as in TensorRT's calibration (Migacz 2017, GTC S7310)."""


def find_range(seen: Histogram, method: Method, scheme: Scheme) -> Range:
    """Return the least and the greatest value to tell apart, within what was seen.

    Args:
        seen: The values.
        method: ``minmax``: everything; ``percentile``: all but the outermost; ``entropy``: where the distribution
            loses least information; ``mse``: where rounding and cutting off together are least.
        scheme: How values will be stored.
    """
    if seen.is_empty or not seen.bound:
        return 0.0, 0.0
    low, high = _METHODS[method](seen, scheme)
    return max(seen.low, low), min(seen.high, high)


def _minmax(seen: Histogram, _: Scheme) -> Range:
    return seen.low, seen.high


def _percentile(seen: Histogram, _: Scheme) -> Range:
    total = np.cumsum(seen.counts)
    first, last = np.searchsorted(total, [_CUT * total[-1], (1 - _CUT) * total[-1]], side="right")
    edges = seen.centers
    return float(edges[first]) - seen.width, float(edges[min(last, len(edges) - 1)]) + seen.width


def _mse(seen: Histogram, scheme: Scheme) -> Range:
    """Return the range of least mean squared error, one end after the other, twice."""
    sums = _Sums(seen)
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    levels = scheme.highest - scheme.lowest
    if scheme.symmetric:
        bounds = max(-low, high) * _shrunk()
        best = float(bounds[np.argmin(sums.noise(-bounds, bounds, 2 * bounds / levels))])
        return -best, best
    for _ in range(2):
        highs = high * _shrunk()
        high = float(highs[np.argmin(sums.noise(low, highs, (highs - low) / levels))])
        lows = low * _shrunk()
        low = float(lows[np.argmin(sums.noise(lows, high, (high - lows) / levels))])
    return low, high


def _entropy(seen: Histogram, _: Scheme) -> Range:
    """Return the bound at which the distribution of magnitudes, told by few levels, diverges least from itself."""
    sizes, width = _magnitudes(seen)
    if len(sizes) <= _LEVELS:
        return seen.low, seen.high
    ends = np.unique(np.linspace(_LEVELS, len(sizes), _CANDIDATES).astype(int))
    best = float(ends[np.argmin([_divergence(sizes, int(end)) for end in ends])]) * width
    return -best, best


_METHODS: Mapping[Method, Callable[[Histogram, Scheme], Range]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _mse,
}


def _magnitudes(seen: Histogram) -> tuple[Array, float]:
    """Return counts of magnitudes up to the greatest, and a bin's width; in bins so wide that they are not bare."""
    half = len(seen.counts) // 2
    sizes = (seen.counts[half:] + seen.counts[:half][::-1]).astype(np.float64)
    sizes[0] = min(sizes[0], sizes[1])  # zero is stored as it is, and what Relu puts there would decide everything
    used = int(np.flatnonzero(sizes)[-1]) + 1 if sizes.any() else 0
    wanted = float(np.clip(sizes.sum() / _FILLED, 2 * _LEVELS, _MOST_BINS))
    merged = max(1, round(used / wanted))
    padded = np.pad(sizes[:used], (0, -used % merged))
    return padded.reshape(-1, merged).sum(1), merged * seen.width


def _shrunk() -> Array:
    """Return shares of a bound to try; the whole first, so that equals cut nothing off."""
    return np.geomspace(1.0, 0.05, _CANDIDATES)


class _Sums:
    """Running sums over the bins, so that the error of a range is known at once."""

    def __init__(self, seen: Histogram) -> None:
        counts, self._centers = seen.counts.astype(np.float64), seen.centers
        self._sums = np.array([np.cumsum(np.append(0.0, counts * self._centers**power)) for power in range(3)])
        self._zeros = counts[len(counts) // 2]

    def noise(self, low: Array | float, high: Array | float, step: Array) -> Array:
        """Return sums of squared errors: a twelfth of a step's square within a range, the distance outside.

        Zero is stored as it is, so that its bin has no error.
        """
        below = self._sums[:, np.searchsorted(self._centers, low)]
        above = self._sums[:, -1:] - self._sums[:, np.searchsorted(self._centers, high, side="right")].reshape(3, -1)
        below = below.reshape(3, -1)
        rounded = np.maximum(self._sums[0, -1] - below[0] - above[0] - self._zeros, 0.0)
        return np.asarray(rounded * step**2 / 12 + _beyond(below, low) + _beyond(above, high))


def _beyond(sums: Array, end: Array | float) -> Array:
    """Return the sum of squared distances to an end, from number, sum and sum of squares of what lies beyond it."""
    return np.asarray(sums[2] - 2 * end * sums[1] + np.square(end) * sums[0])


def _divergence(sizes: Array, end: int) -> float:
    """Return the Kullback-Leibler divergence of the first ``end`` bins, told by ``_LEVELS`` levels, from themselves."""
    true = sizes[:end].copy()
    true[-1] += sizes[end:].sum()
    level = np.arange(end) * _LEVELS // end
    filled = sizes[:end] > 0
    total = np.bincount(level, sizes[:end], _LEVELS)
    count = np.maximum(np.bincount(level, filled, _LEVELS), 1)
    told = np.where(filled, (total / count)[level], 0.0)
    p, q = true / true.sum(), told / max(told.sum(), 1.0)
    here = (p > 0) & (q > 0)
    missing = float(p[(p > 0) & (q == 0)].sum())
    return float((p[here] * np.log(p[here] / q[here])).sum()) + missing
