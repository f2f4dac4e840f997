"""Measuring models: outputs, scores and latencies, each cached with all it depends on."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from onnxopt.compile.engine import Backend
from onnxopt.compile.isolation import IsolatedEngine, Limits
from onnxopt.data.sample import Samples
from onnxopt.evaluate.metrics import Metric
from onnxopt.evaluate.score import Scores, evaluate
from onnxopt.evaluate.store import OutputStore
from onnxopt.pipeline.making import ModelFile
from onnxopt.pipeline.record import plain, restore
from onnxopt.pipeline.steps import CachedSteps, fingerprint
from onnxopt.profile.latency import Plan
from onnxopt.profile.launches import Comparison, Start, compare_launches, timed_feeds
from onnxopt.profile.machine import library_versions, this_machine
from onnxopt.targets.target import Target


@dataclass(frozen=True)
class Runnable:
    """A model file and the backend it runs in; the name is for people."""

    name: str
    file: ModelFile
    backend: Backend


class Measurer:
    """Scores and times models against one baseline, whose engine stays up."""

    def __init__(
        self,
        steps: CachedSteps,
        target: Target,
        evaluation: Samples,
        baseline: Runnable,
        metric: Metric | None,
        *,
        limits: Limits | None = None,
    ) -> None:
        """Make a measurer.

        Args:
            steps: Runs steps through the cache.
            target: Gives the number of threads.
            evaluation: What models are judged by; calibration has not seen it.
            baseline: What everything is compared with.
            metric: What models are scored by; None for their outputs' drift alone.
            limits: Of each child process.
        """
        self._steps = steps
        self._target = target
        self._evaluation = evaluation
        self._baseline = baseline
        self._metric = metric
        self._scored_by = metric.fingerprint if metric else None
        self._limits = limits
        self._engine: IsolatedEngine | None = None
        self._machine = this_machine().fingerprint

    def close(self) -> None:
        """End the baseline's process."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def score(self, one: Runnable) -> Scores:
        """Return a model's score on the evaluation samples, its drop and drift against the baseline.

        Raises:
            DataError: The metric needs labels, or they do not fit.
            EngineError: The model does not run.
        """
        reference = self._baseline_outputs()

        def make(_: Path) -> Any:
            with self._start(one) as engine:
                return plain(evaluate(engine, self._evaluation, self._metric, reference=reference))

        parts = {
            "step": "score",
            "metric": self._scored_by,
            "baseline": self._identity(self._baseline),
            **self._parts(one),
        }
        entry, _ = self._steps.run(f"score {one.name}", parts, make)
        return restore(Scores, entry.value)

    def compare(self, one: Runnable, plan: Plan, launches: int = 1) -> Comparison:
        """Return a model timed in turn with the baseline.

        Args:
            one: The model.
            plan: How long to measure, a launch.
            launches: Pairs of fresh processes; more than one shows what memory layout alone does.
        """

        def make(_: Path) -> Any:
            slow: Start = self._resident if launches == 1 else partial(self._start, self._baseline)
            return plain(
                compare_launches(slow, partial(self._start, one), timed_feeds(self._evaluation), plan, launches)
            )

        parts = {
            "step": "compare",
            "plan": plain(plan),
            "launches": launches,
            "baseline": self._identity(self._baseline),
            **self._parts(one),
        }
        entry, _ = self._steps.run(
            f"time {one.name}" + (f" in {launches} launches" if launches > 1 else ""), parts, make
        )
        return restore(Comparison, entry.value)

    def _resident(self) -> AbstractContextManager[IsolatedEngine]:
        """Return the baseline's engine that stays up."""
        return nullcontext(self._baseline_engine())

    def _baseline_outputs(self) -> OutputStore:
        def make(folder: Path) -> int:
            evaluate(self._baseline_engine(), self._evaluation, keep=OutputStore(folder))
            return len(self._evaluation)

        parts = {"step": "outputs", **self._parts(self._baseline)}
        entry, _ = self._steps.run("outputs of the input", parts, make)
        return OutputStore(entry.folder)

    def _baseline_engine(self) -> IsolatedEngine:
        """Return the baseline's engine; a new one where the last has died."""
        if self._engine is not None and not self._engine.alive:
            self.close()
        self._engine = self._engine or self._start(self._baseline)
        return self._engine

    def _start(self, one: Runnable) -> IsolatedEngine:
        return IsolatedEngine(one.backend, one.file.path, self._target, self._limits)

    def _parts(self, one: Runnable) -> dict[str, Any]:
        """Return what running a model on the evaluation samples depends on."""
        return {
            "input": one.file.digest,
            "runtime": one.backend.name,
            "options": one.backend.options,
            "libraries": library_versions(("onnxopt", *one.backend.libraries)),
            "evaluation": fingerprint(self._evaluation),
            "threads": self._target.threads,
            "machine": self._machine,
        }

    def _identity(self, one: Runnable) -> list[Any]:
        return [one.file.digest, one.backend.name, one.backend.options]
