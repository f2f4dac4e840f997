"""The run record: everything a run found, with all samples, as values that become JSON."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, TypeVar

from onnxopt.evaluate.score import Scores
from onnxopt.options import adapter
from onnxopt.profile.latency import Timing
from onnxopt.profile.machine import Machine
from onnxopt.profile.statistics import Speedup

T = TypeVar("T")

SCHEMA = 1


class Status(StrEnum):
    """What became of a candidate."""

    BEST = "best"
    BASELINE = "baseline"
    KEPT = "kept"
    REJECTED = "rejected"
    SKIPPED = "skipped"
    DUPLICATE = "duplicate"
    FAILED = "failed"


@dataclass(frozen=True)
class StepRecord:
    """One step of a candidate.

    Attributes:
        name: The pass.
        options: Its options.
        digest: Of the model after it.
        cached: Whether the result was there already.
        reason: Why it ran, or that it was cached.
        seconds: Time it took when it ran.
        nodes: Of the model after it.
        verification: Largest error against the model before, as a share of the output's standard deviation;
            None for passes that are meant to change the numbers.
        warnings: What the pass had to say.
    """

    name: str
    options: dict[str, Any]
    digest: str
    cached: bool
    reason: str
    seconds: float
    nodes: int
    verification: float | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class CandidateRecord:
    """One way of running the model, and what came of it."""

    name: str
    status: Status
    reason: str
    runtime: str
    runtime_options: dict[str, Any]
    steps: tuple[StepRecord, ...] = ()
    digest: str | None = None
    nodes: int | None = None
    size_bytes: int | None = None
    operators: dict[str, int] = field(default_factory=dict)
    timing: Timing | None = None
    speedup: Speedup | None = None
    scores: Scores | None = None

    def decided(self, status: Status, reason: str) -> CandidateRecord:
        """Return the candidate with its verdict."""
        return replace(self, status=status, reason=reason)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values: what the record holds, with percentiles spelled out."""
        values: dict[str, Any] = plain(self)
        timing = values.pop("timing")
        values["latency"] = None
        if self.timing is not None:
            percentiles = {"p50": self.timing.p50, "p90": self.timing.p90, "p99": self.timing.p99}
            values["latency"] = {**percentiles, **timing}
        values["peak_memory_bytes"] = self.timing.peak_memory_bytes if self.timing else None
        values["load_seconds"] = self.timing.load_seconds if self.timing else None
        values["drop"] = values["scores"]["drop"] if values["scores"] else None
        return values


@dataclass(frozen=True)
class RunRecord:
    """A whole run.

    Attributes:
        command: What was asked for.
        model: Path, digest, size and nodes of the input.
        machine: Where it ran.
        baseline: The input in the runtime's defaults.
        best: What was chosen; the baseline where nothing beat it.
        candidates: Everything tried, in order, the baseline first.
        data: Where samples came from, how many, and their fingerprints.
        metric: Name of the metric, None for fidelity.
        budget: What could be lost.
        limits: What had to be kept.
        objective: What was to be made small.
        target: Name and threads.
        notes: What the reader must know, such as that samples were made up.
        seconds: Time of the whole run.
        seed: Of every random choice.
        created: UTC, ISO 8601.
        shortfall: The bound the best result misses, if any.
        schema: Version of this layout.
    """

    command: str
    model: dict[str, Any]
    machine: Machine
    baseline: CandidateRecord
    best: CandidateRecord
    candidates: tuple[CandidateRecord, ...]
    data: dict[str, Any]
    metric: str | None
    budget: dict[str, Any]
    limits: dict[str, Any]
    objective: str
    target: dict[str, Any]
    notes: tuple[str, ...]
    seconds: float
    seed: int
    created: str
    shortfall: str | None = None
    schema: int = field(default=SCHEMA)

    @property
    def improved(self) -> bool:
        """Whether something better than the input was found."""
        return self.best.name != self.baseline.name

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        values: dict[str, Any] = plain(self)
        values["baseline"] = self.baseline.to_dict()
        values["best"] = self.best.to_dict()
        values["candidates"] = [candidate.to_dict() for candidate in self.candidates]
        return values

    def to_json(self) -> str:
        """Return the record as ``run.json`` holds it."""
        return strict_json(self.to_dict())


def plain(value: Any) -> Any:
    """Return a dataclass as JSON values."""
    return adapter(type(value)).dump_python(value, mode="json")


def restore(cls: type[T], values: Any) -> T:
    """Return the dataclass that ``plain`` made these values of."""
    return adapter(cls).validate_python(values)


def strict_json(values: Any) -> str:
    """Return strict JSON: NaN and infinity, which JSON lacks, become null."""
    return json.dumps(_finite(values), indent=1, allow_nan=False, default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return value
