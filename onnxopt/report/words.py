"""Figures as people read them; shared by all formats."""

from __future__ import annotations

from onnxopt.evaluate.drift import EXACT_DB
from onnxopt.pipeline.record import CandidateRecord
from onnxopt.profile.statistics import Speedup


def milliseconds(seconds: float | None) -> str:
    """Return ``1.23 ms``, with three significant digits."""
    return "-" if seconds is None else f"{seconds * 1e3:.3g} ms"


def size(count: int | None) -> str:
    """Return ``1.2 MB``."""
    if count is None:
        return "-"
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= step:
            return f"{count / step:.3g} {unit}"
    return f"{count} B"


def speed(speedup: Speedup | None) -> str:
    """Return ``1.53x [1.50, 1.56]``."""
    return "-" if speedup is None else f"{speedup.ratio:.2f}x [{speedup.low:.2f}, {speedup.high:.2f}]"


def drop(candidate: CandidateRecord) -> str:
    """Return the loss of the metric as ``0.12 %``, or ``-``."""
    if candidate.scores is None or candidate.scores.drop is None:
        return "-"
    return f"{100 * candidate.scores.drop.value + 0.0:.2f} %"


def score(candidate: CandidateRecord) -> str:
    """Return the score with four decimals, or ``-``."""
    if candidate.scores is None or candidate.scores.score is None:
        return "-"
    return f"{candidate.scores.score.value:.4f}"


def fidelity(candidate: CandidateRecord) -> str:
    """Return the worst output's SQNR."""
    drift = candidate.scores.drift if candidate.scores else None
    return decibel(drift.sqnr_db if drift else None)


def decibel(sqnr: float | None) -> str:
    """Return ``41.2 dB``, ``exact`` or ``-``."""
    if sqnr is None:
        return "-"
    return "exact" if sqnr >= EXACT_DB else f"{sqnr:.1f} dB"


def percent(share: float) -> str:
    """Return ``0.012 %``, with two significant digits below 1 %, or ``0``."""
    if not share:
        return "0"
    return f"{100 * share:.3g} %" if share >= 0.01 else f"{100 * share:.2g} %"
