"""The main job: try candidates, keep what is proved, return the fastest. Doing nothing is always a candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from onnxopt.compile.engine import Backend
from onnxopt.errors import EngineError, OnnxoptError, OutputError
from onnxopt.evaluate.budget import Budget, judge
from onnxopt.ir.outputs import classifier_outputs
from onnxopt.pipeline.candidates import (
    FLOAT,
    Candidate,
    Steps,
    float_candidates,
    numeric_candidates,
    on_the_other_graph,
    recovered_candidates,
    refined_candidates,
    rewritten_for,
    session_candidates,
)
from onnxopt.pipeline.effort import Effort
from onnxopt.pipeline.events import CandidateDone, CandidateStarted, Listener
from onnxopt.pipeline.making import Maker, ModelFile, described
from onnxopt.pipeline.measuring import Measurer, Runnable
from onnxopt.pipeline.record import CandidateRecord, Status
from onnxopt.profile.statistics import Speedup, Verdict
from onnxopt.recipe.recipe import BASELINE, CandidateSpec, Limits, SearchSpec
from onnxopt.targets.target import Target

_LITTLE = 1.5
"""Times faster than the input below which uniform int8 is taken to have layers that lose time by it."""

HOPELESS = 0.85
"""A candidate whose interval ends below this share of the best ratio so far is not looked at further."""


@dataclass(frozen=True)
class Trial:
    """A candidate, what it became, and the record of it."""

    candidate: Candidate
    record: CandidateRecord
    runnable: Runnable | None = None

    @property
    def ratio(self) -> float:
        """How many times faster than the baseline; 0 if it was not timed."""
        return self.record.speedup.ratio if self.record.speedup else 0.0


class Search:
    """Tries candidates one after the other and knows what each came to."""

    def __init__(
        self,
        maker: Maker,
        measurer: Measurer,
        source: ModelFile,
        *,
        spec: SearchSpec,
        candidates: Sequence[CandidateSpec],
        budget: Budget,
        limits: Limits,
        target: Target,
        effort: Effort,
        listen: Listener,
    ) -> None:
        """Make a search over one model; see ``Recipe`` for what the arguments mean."""
        self._maker = maker
        self._measurer = measurer
        self._source = source
        self._spec = spec
        self._own = [Candidate(own.name, own.passes, own.backend) for own in candidates]
        self._budget = budget
        self._limits = limits
        self._target = target
        self._effort = effort
        self._listen = listen
        self._classifiers = classifier_outputs(maker.load(source).graph.graph)
        self._convolutions = "Conv" in maker.load(source).operators
        self._recovered_in: set[str] = set()
        self.trials: list[Trial] = []

    def run(self) -> Trial:
        """Try everything worth trying and return the best, confirmed; the baseline if nothing beats it."""
        self._try_all([*float_candidates(self._spec, self._target), *self._own])
        if self._spec.only:
            return self._confirmed()
        small = self._spec.objective == "size" or self._limits.size is not None
        self._try_all([*numeric_candidates(self._spec, self._target, self._better_graphs(), small=small)])
        for trial in self._to_refine():
            if not self._may_beat_all(trial):
                continue
            if trial.record.scores is None or not self._recovered(trial.candidate):
                self._refine(trial.candidate)
        for candidate in self._gaining_little():
            self._refine(candidate)
        self._try_all([on_the_other_graph(candidate) for candidate in self._best_numerics()])
        self._try_all(
            [c for trial in self._leaders()[: self._effort.tuned] for c in session_candidates(trial.candidate)]
        )
        return self._confirmed()

    def _try_all(self, candidates: Sequence[Candidate]) -> None:
        total = len(self.trials) + len(candidates)
        for candidate in candidates:
            self._listen(CandidateStarted(candidate.name, len(self.trials) + 1, total))
            self._keep(self._try(candidate))

    def _try(self, candidate: Candidate) -> Trial:
        """Return what became of a candidate; what it runs into costs the candidate, not the run."""
        record = CandidateRecord(
            candidate.name, Status.FAILED, "", candidate.backend.name, dict(candidate.backend.options)
        )
        missing = candidate.backend.unavailable()
        if missing is not None:
            return Trial(candidate, record.decided(Status.SKIPPED, missing))
        try:
            return self._measured(candidate, record)
        except OutputError:
            raise
        except OnnxoptError as error:
            if candidate.name == BASELINE:
                raise
            return Trial(candidate, record.decided(Status.FAILED, error.what))

    def _measured(self, candidate: Candidate, record: CandidateRecord) -> Trial:
        file = self._source
        for change in candidate.passes:
            file = self._maker.apply(change, file)
        record = described(record, file)
        runnable = Runnable(candidate.name, file, candidate.backend)
        twin = self._twin(runnable)
        if twin is not None:
            return Trial(
                candidate, record.decided(Status.DUPLICATE, f"the same model and settings as {twin}"), runnable
            )
        return self._judged(Trial(candidate, record, runnable))

    def _judged(self, trial: Trial) -> Trial:
        assert trial.runnable is not None
        found = self._measurer.compare(trial.runnable, self._effort.screening)
        record = replace(trial.record, timing=found.candidate, speedup=found.speedup)
        hopeless = self._hopeless(trial.candidate, record)
        if hopeless:
            return replace(trial, record=record.decided(Status.REJECTED, hopeless))
        scores = self._measurer.score(trial.runnable)
        verdict = judge(scores, self._budget, self._classifiers)
        status = Status.KEPT if verdict.kept else Status.REJECTED
        if trial.candidate.name == BASELINE:
            status = Status.BASELINE
        return replace(trial, record=replace(record, scores=scores).decided(status, verdict.reason))

    def _hopeless(self, candidate: Candidate, record: CandidateRecord) -> str | None:
        """Return why a candidate is not worth scoring, judged by its latency alone."""
        speed = record.speedup
        if candidate.name == BASELINE or speed is None:
            return None
        if speed.verdict is Verdict.SLOWER:
            return "slower than the input"
        if self._spec.objective == "latency" and speed.high < HOPELESS * self._best_ratio():
            return "far from the fastest so far"
        return None

    def _confirmed(self) -> Trial:
        """Return the best candidate whose claim holds in several launches of fresh processes."""
        confirmed = [self.trials[0]]
        for leader in self._leaders():
            if len(confirmed) > self._effort.finalists or not self._may_win(leader, confirmed):
                break
            confirmed += self._confirm(leader)
        winner = min(confirmed, key=self._rank)
        if winner is self.trials[0]:
            return winner
        best = replace(winner, record=winner.record.decided(Status.BEST, winner.record.reason))
        self._replace(best)
        return best

    def _may_win(self, leader: Trial, confirmed: Sequence[Trial]) -> bool:
        """Whether a leader, by the interval of its screening, can be better than what was confirmed."""
        best = min(confirmed, key=self._rank)
        if self._spec.objective != "latency" or leader.record.speedup is None or self._missed(best):
            return True
        return leader.record.speedup.high > -self._cost(best)

    def _confirm(self, trial: Trial) -> list[Trial]:
        """Return the trial with what several launches say, or nothing if its claim does not hold."""
        assert trial.runnable is not None
        self._listen(CandidateStarted(f"confirming {trial.candidate.name}", 1, 1))
        try:
            found = self._measurer.compare(trial.runnable, self._effort.confirming, self._effort.launches)
        except EngineError as error:
            self._replace(replace(trial, record=trial.record.decided(Status.FAILED, error.what)))
            return []
        record = replace(trial.record, timing=found.candidate, speedup=found.speedup)
        holds = found.speedup.verdict is not Verdict.SLOWER
        if self._spec.objective == "latency" and self._missed(self.trials[0]) is None:
            holds = found.speedup.verdict is Verdict.FASTER
        if not holds:
            record = record.decided(
                Status.REJECTED, f"not confirmed in {len(found.speedup.launches)} launches of fresh processes"
            )
        tested = replace(trial, record=record)
        self._replace(tested)
        return [tested] if holds else []

    def _leaders(self) -> list[Trial]:
        """Return the candidates that were kept, the best first."""
        return sorted((trial for trial in self.trials if trial.record.status is Status.KEPT), key=self._rank)

    def _better_graphs(self) -> dict[Backend, Steps]:
        """Return for each runtime the graph to build on: rewritten, unless the runtime is clearly slower with it."""
        speeds: dict[tuple[Backend, bool], Speedup | None] = {}
        for trial in self.trials:
            if trial.candidate.name == BASELINE or trial.candidate.numerics is FLOAT:
                speeds[trial.candidate.backend, bool(trial.candidate.passes)] = trial.record.speedup
        return {
            backend: rewritten_for(backend.name) if _holds_its_own(after, speeds.get((backend, False))) else ()
            for (backend, changed), after in speeds.items()
            if changed
        }

    def _best_numerics(self) -> list[Candidate]:
        """Return the best candidate of each backend that was kept, where it is not the float model."""
        best: dict[Backend, Candidate] = {}
        for trial in self._leaders():
            best.setdefault(trial.candidate.backend, trial.candidate)
        return [one for one in best.values() if one.numerics not in (FLOAT, None)]

    def _gaining_little(self) -> list[Candidate]:
        """Return the best uniform int8 of each backend that was kept, where it is hardly faster than the input."""
        best: dict[Backend, Trial] = {}
        for trial in self._leaders():
            if any(refined_candidates(trial.candidate)):
                best.setdefault(trial.candidate.backend, trial)
        return [trial.candidate for trial in best.values() if trial.ratio < _LITTLE]

    def _to_refine(self) -> list[Trial]:
        """Return candidates that lost too much, the fastest first, and then those that are slow."""
        rejected = [trial for trial in self.trials if trial.record.status is Status.REJECTED]
        lossy = [trial for trial in rejected if trial.record.scores is not None]
        return [*sorted(lossy, key=lambda trial: -trial.ratio), *(one for one in rejected if one not in lossy)]

    def _may_beat_all(self, trial: Trial) -> bool:
        """Whether something like a rejected candidate can be the fastest: no faster than it, unless it was slow."""
        speed = trial.record.speedup
        return trial.record.scores is None or (speed is not None and speed.high > self._best_ratio())

    def _recovered(self, candidate: Candidate) -> bool:
        """Try what keeps int8 everywhere and loses less, once for each runtime; return whether it is kept."""
        if candidate.backend.name in self._recovered_in:
            return False
        self._recovered_in.add(candidate.backend.name)
        for recovered in recovered_candidates(candidate, convolutions=self._convolutions):
            self._try_all([recovered])
            if self.trials[-1].record.status is Status.KEPT:
                return True
        return False

    def _refine(self, candidate: Candidate) -> None:
        """Try what may do better, from daring to harmless, for as long as nothing but the loss is against it."""
        for refined in refined_candidates(candidate):
            self._try_all([refined])
            record = self.trials[-1].record
            lossy = record.status is Status.REJECTED and record.scores is not None
            if not lossy and record.status is not Status.DUPLICATE:
                return

    def _rank(self, trial: Trial) -> tuple[bool, float]:
        """Return what trials are ordered by: those within the limits first, then the cheaper."""
        return self._missed(trial) is not None, self._cost(trial)

    def _missed(self, trial: Trial) -> str | None:
        record = trial.record
        return self._limits.missed(record.timing.p50 if record.timing else None, record.size_bytes)

    def _cost(self, trial: Trial) -> float:
        record = trial.record
        if self._spec.objective == "size":
            return float(record.size_bytes or 0)
        if self._spec.objective == "memory":
            return float(record.timing.peak_memory_bytes or 0) if record.timing else 0.0
        if trial.candidate.name == BASELINE:
            return -1.0
        return -record.speedup.low if record.speedup else 0.0

    def _best_ratio(self) -> float:
        """Return the largest ratio of a candidate that was kept and is within the limits; the input's is 1."""
        kept = (trial for trial in self.trials if trial.record.status is Status.KEPT and self._missed(trial) is None)
        return max((trial.ratio for trial in kept), default=1.0)

    def _twin(self, runnable: Runnable) -> str | None:
        """Return the name of an earlier trial of the same model in the same backend."""
        for trial in self.trials:
            other = trial.runnable
            if other and (other.file.digest, other.backend) == (runnable.file.digest, runnable.backend):
                return trial.candidate.name
        return None

    def _keep(self, trial: Trial) -> None:
        self.trials.append(trial)
        record = trial.record
        speed = str(record.speedup) if record.speedup else ""
        self._listen(CandidateDone(record.name, record.status, record.reason, speed))

    def _replace(self, trial: Trial) -> None:
        self.trials = [trial if t.candidate.name == trial.candidate.name else t for t in self.trials]


def _holds_its_own(after: Speedup | None, before: Speedup | None) -> bool:
    """Whether a changed graph was timed, and is not slower than it was by both intervals."""
    return after is not None and (before is None or after.high >= before.low)
