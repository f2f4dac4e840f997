"""What a run tells while it runs; a listener prints, records or ignores it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnxopt.context import Event as PassEvent


@dataclass(frozen=True, slots=True)
class StepDone:
    """A step has a result.

    Attributes:
        step: What it is, for people.
        cached: Whether the result was there already.
        reason: Why it ran, or that it was cached.
        seconds: Time it took now; 0 if it was cached.
    """

    step: str
    cached: bool
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class CandidateStarted:
    """A candidate is being tried: number ``index`` of the ``total`` known so far, from 1."""

    name: str
    index: int
    total: int


@dataclass(frozen=True, slots=True)
class CandidateDone:
    """A candidate has been judged."""

    name: str
    status: str
    reason: str
    speedup: str


Event = PassEvent | StepDone | CandidateStarted | CandidateDone
Listener = Callable[[Event], None]
