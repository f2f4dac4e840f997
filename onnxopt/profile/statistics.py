"""Medians, percentiles and bootstrap intervals; every sample stays available to whoever reads the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95

LAUNCH_SPREAD = 0.05
"""How far one launch may be off as a whole: what equal engines differed by (benchmarks/null.py)."""

_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""97.5 % points of Student's t for 1, 2, … degrees of freedom."""


class Verdict(StrEnum):
    """What an interval of a ratio says."""

    FASTER = "faster"
    SLOWER = "slower"
    SAME = "no significant difference"


@dataclass(frozen=True, slots=True)
class Speedup:
    """How many times faster B is than A.

    Attributes:
        ratio: Median over rounds of A's time divided by B's; of several launches the geometric mean of their medians.
        low: Lower end of its 95 % interval.
        high: Upper end.
        verdict: ``faster`` if the interval lies above 1, ``slower`` if below, else neither.
        launches: The ratio of each round of each launch, in the order measured.
    """

    ratio: float
    low: float
    high: float
    verdict: Verdict
    launches: tuple[tuple[float, ...], ...] = ()

    def __str__(self) -> str:
        return f"{self.ratio:.2f}x [{self.low:.2f}, {self.high:.2f}] {self.verdict}"


def percentile(samples: Sequence[float], percent: float) -> float:
    """Return a percentile with linear interpolation."""
    return float(np.percentile(np.asarray(samples), percent))


def speedup(*launches: Sequence[float], seed: int = 0) -> Speedup:
    """Return the ratio with its interval.

    How a process happens to lie in memory shifts all its rounds, so several launches are compared as wholes (Kalibera
    and Jones 2013). One launch gives the percentile bootstrap of the median (Efron 1979), widened by what another
    launch might say.

    Args:
        launches: For each pair of processes, one ratio a round: time of A over time of B, measured side by side so
            that drift of the machine cancels.
        seed: Of the resampling.
    """
    ratio = geometric_mean([float(np.median(launch)) for launch in launches])
    low, high = _interval_of_one(launches[0], seed) if len(launches) == 1 else _interval_of_launches(launches)
    return Speedup(ratio, low, high, verdict(low, high), tuple(tuple(map(float, rounds)) for rounds in launches))


def _interval_of_one(rounds: Sequence[float], seed: int) -> tuple[float, float]:
    low, high = bootstrap_median(rounds, seed)
    return low * (1 - LAUNCH_SPREAD), high * (1 + LAUNCH_SPREAD)


def _interval_of_launches(launches: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Return Student's interval of the mean logarithm of the launches' medians.

    Resampling two to five launches instead would tell equal engines apart about one time in four.
    """
    logs = np.log([np.median(launch) for launch in launches])
    student = _STUDENT[min(len(logs) - 1, len(_STUDENT)) - 1]
    half = student * float(logs.std(ddof=1)) / len(logs) ** 0.5
    return float(np.exp(logs.mean() - half)), float(np.exp(logs.mean() + half))


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
