"""Medians, percentiles and bootstrap intervals; every sample stays available to whoever reads the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95


class Verdict(StrEnum):
    """What an interval of a ratio says."""

    FASTER = "faster"
    SLOWER = "slower"
    SAME = "no significant difference"


@dataclass(frozen=True, slots=True)
class Speedup:
    """How many times faster B is than A.

    Attributes:
        ratio: Median over rounds of A's time divided by B's.
        low: Lower end of its 95 % bootstrap interval.
        high: Upper end.
        verdict: ``faster`` if the interval lies above 1, ``slower`` if below, else neither.
        rounds: The ratio of each round, in the order measured.
    """

    ratio: float
    low: float
    high: float
    verdict: Verdict
    rounds: tuple[float, ...] = ()

    def __str__(self) -> str:
        return f"{self.ratio:.2f}x [{self.low:.2f}, {self.high:.2f}] {self.verdict}"


def percentile(samples: Sequence[float], percent: float) -> float:
    """Return a percentile with linear interpolation."""
    return float(np.percentile(np.asarray(samples), percent))


def speedup(*launches: Sequence[float], seed: int = 0) -> Speedup:
    """Return the median ratio with its percentile-bootstrap interval (Efron 1979).

    Args:
        launches: For each pair of processes, one ratio a round: time of A over time of B, measured side by side so
            that drift of the machine cancels. How a process happens to lie in memory shifts all its rounds, so
            launches are resampled first, and rounds within them (Kalibera and Jones 2013).
        seed: Of the resampling.
    """
    rounds = tuple(ratio for launch in launches for ratio in launch)
    if len(launches) == 1:
        low, high = bootstrap_median(rounds, seed)
    else:
        low, high = _bootstrap_launches([np.asarray(launch, dtype=np.float64) for launch in launches], seed)
    return Speedup(float(np.median(rounds)), low, high, verdict(low, high), rounds)


def _bootstrap_launches(launches: Sequence[np.ndarray[Any, Any]], seed: int) -> tuple[float, float]:
    random = np.random.default_rng(seed)
    medians = []
    for _ in range(RESAMPLES):
        chosen = [launches[i] for i in random.integers(0, len(launches), len(launches))]
        medians.append(np.median(np.concatenate([random.choice(launch, len(launch)) for launch in chosen])))
    return _ends(np.asarray(medians))


def bootstrap_median(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile-bootstrap interval of the median."""
    array = np.asarray(values, dtype=np.float64)
    picks = np.random.default_rng(seed).integers(0, len(array), size=(RESAMPLES, len(array)))
    return _ends(np.median(array[picks], axis=1))


def _ends(figures: np.ndarray[Any, Any]) -> tuple[float, float]:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(figures, [tail, 100 - tail])
    return float(low), float(high)


def verdict(low: float, high: float) -> Verdict:
    """Return what an interval of a speed-up says."""
    if low > 1:
        return Verdict.FASTER
    return Verdict.SLOWER if high < 1 else Verdict.SAME


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean, the right average for ratios (Fleming and Wallace 1986)."""
    return float(np.exp(np.mean(np.log(np.asarray(values, dtype=np.float64)))))
