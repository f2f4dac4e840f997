"""How much time a run spends on measuring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnxopt.profile.latency import Plan
from onnxopt.profile.launches import LAUNCHES


@dataclass(frozen=True, slots=True)
class Effort:
    """How candidates are measured.

    Attributes:
        screening: Enough to tell a hopeless candidate.
        confirming: What a claim rests on, for each launch.
        launches: Pairs of fresh processes a claim must hold over; twice as many where they differ much.
        finalists: Candidates that are confirmed.
        tuned: Candidates whose session settings are varied.
    """

    screening: Plan
    confirming: Plan
    launches: int
    finalists: int
    tuned: int


NORMAL = Effort(
    screening=Plan(min_rounds=7, max_rounds=31, max_seconds=1.5, precision=0.02),
    confirming=Plan(warmup_seconds=0.5, min_rounds=11, max_rounds=41, max_seconds=2.0, precision=0.02),
    launches=LAUNCHES,
    finalists=3,
    tuned=2,
)

EFFORTS: Mapping[str, Effort] = {
    "quick": Effort(
        screening=Plan(warmup_seconds=0.3, min_rounds=5, max_rounds=15, max_seconds=0.6, precision=0.04),
        confirming=Plan(warmup_seconds=0.5, min_rounds=9, max_rounds=21, max_seconds=1.5, precision=0.02),
        launches=2,
        finalists=2,
        tuned=0,
    ),
    "normal": NORMAL,
    "thorough": Effort(
        screening=Plan(min_rounds=11, max_rounds=61, max_seconds=4.0, precision=0.01),
        confirming=Plan(warmup_seconds=2.0, min_rounds=31, max_rounds=151, max_seconds=12.0, precision=0.005),
        launches=5,
        finalists=6,
        tuned=3,
    ),
}
