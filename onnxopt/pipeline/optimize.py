"""Recipe → the best artefact found, or the one its passes make, with the record of how it was found."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import zip_longest

from onnxopt.compile.engine import Backend
from onnxopt.compile.isolation import Limits as ChildLimits
from onnxopt.data.sample import Samples
from onnxopt.errors import MissingExtraError, UsageError
from onnxopt.evaluate.budget import judge
from onnxopt.ir.outputs import classifier_outputs
from onnxopt.passes import Pass
from onnxopt.pipeline.cache import Cache
from onnxopt.pipeline.candidates import baseline_backend
from onnxopt.pipeline.effort import NORMAL, Effort
from onnxopt.pipeline.events import Listener
from onnxopt.pipeline.making import ModelFile, described
from onnxopt.pipeline.measuring import Runnable
from onnxopt.pipeline.record import CandidateRecord, RunRecord, Status
from onnxopt.pipeline.search import Search
from onnxopt.pipeline.session import Session, open_session
from onnxopt.profile.machine import this_machine
from onnxopt.recipe.recipe import BASELINE, Recipe, SearchSpec


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        record: Everything found.
        chosen: The model and backend to ship.
    """

    record: RunRecord
    chosen: Runnable


@dataclass(frozen=True)
class Found:
    """The candidates, the best of them, and the bound it misses, if any."""

    candidates: Sequence[CandidateRecord]
    best: CandidateRecord
    shortfall: str | None


def run_recipe(
    recipe: Recipe,
    cache: Cache,
    listen: Listener,
    *,
    limits: ChildLimits | None = None,
    effort: Effort = NORMAL,
    command: str = "",
    timed: bool = True,
) -> Result:
    """Do what a recipe says.

    Args:
        recipe: With passes, or with a search.
        cache: Where results are kept.
        listen: Told what happens.
        limits: Of each child process.
        effort: Spent on measuring.
        command: Told in the record.
        timed: Whether speed is measured; only without may the target be another machine, and passes decide then.

    Raises:
        OnnxoptError: The inputs cannot be used, or a pass of the recipe fails.
    """
    if not recipe.target.is_local and (timed or recipe.passes is None):
        raise UsageError(
            f"target {recipe.target.name!r} is not this machine, and nothing can be measured there",
            hint="run onnxopt on the target itself, or leave the target out",
        )
    started = time.perf_counter()
    spec = recipe.search or SearchSpec()
    baseline = baseline_backend(spec) if recipe.passes is None else type(recipe.backend)()
    _need(baseline)
    with open_session(recipe, baseline, cache, listen, limits=limits, effort=effort) as session:
        if recipe.passes is None:
            found, chosen = _search(session, spec)
        else:
            found, chosen = _follow(session, recipe.passes, baseline, timed=timed)
        record = _record(session, found, spec.objective, time.perf_counter() - started, command)
    return Result(record, chosen)


def _need(backend: Backend) -> None:
    missing = backend.unavailable()
    if missing is not None:
        raise MissingExtraError(f"the runtime {backend.name} cannot be used: {missing}")


def _search(session: Session, spec: SearchSpec) -> tuple[Found, Runnable]:
    """Search for the best candidate."""
    recipe = session.recipe
    search = Search(
        session.maker,
        session.measurer,
        session.source,
        spec=spec,
        candidates=recipe.candidates,
        budget=recipe.budget,
        limits=recipe.limits,
        target=recipe.target,
        effort=session.effort,
        listen=session.listen,
    )
    best = search.run()
    assert best.runnable is not None
    records = [trial.record for trial in search.trials]
    return Found(records, best.record, _shortfall(best.record, recipe)), best.runnable


def _follow(session: Session, passes: Sequence[Pass], usual: Backend, *, timed: bool) -> tuple[Found, Runnable]:
    """Apply the recipe's passes and measure the result against the input in the runtime's defaults."""
    recipe, file = session.recipe, session.source
    for index, change in enumerate(passes):
        file = session.maker.apply(change, file, place=f"passes[{index}] {change.name}")
    _check_lock(recipe, session.source, file)
    baseline = _measured(session, Runnable(BASELINE, session.source, usual), timed=timed)
    name = " > ".join(change.name for change in passes) or "the model as it is"
    chosen = Runnable(f"{name} in {recipe.backend}", file, recipe.backend)
    result = _measured(session, chosen, timed=timed)
    lost = None if result.status is Status.BEST else f"the result loses too much: {result.reason}"
    return Found([baseline, result], result, lost or _shortfall(result, recipe)), chosen


def _measured(session: Session, one: Runnable, *, timed: bool) -> CandidateRecord:
    baseline = one.name == BASELINE
    scores = session.measurer.score(one)
    verdict = judge(scores, session.recipe.budget, classifier_outputs(session.inputs.model.graph.graph))
    status = Status.BASELINE if baseline else Status.BEST if verdict.kept else Status.REJECTED
    record = CandidateRecord(one.name, status, verdict.reason, one.backend.name, dict(one.backend.options))
    measured = described(replace(record, scores=scores), one.file)
    return _timed(session, one, measured) if timed else measured


def _timed(session: Session, one: Runnable, record: CandidateRecord) -> CandidateRecord:
    effort = session.effort
    plan, launches = (effort.screening, 1) if one.name == BASELINE else (effort.confirming, effort.launches)
    found = session.measurer.compare(one, plan, launches)
    return replace(record, timing=found.candidate, speedup=found.speedup)


def _check_lock(recipe: Recipe, source: ModelFile, file: ModelFile) -> None:
    """Raise if a locked recipe no longer gives what it gave, naming the first step that differs."""
    if recipe.lock is None:
        return
    wanted = ["the input", *(f"passes[{index}] {step.name}" for index, step in enumerate(file.steps))]
    have = [source.digest, *(step.digest for step in file.steps)]
    locked = [str(recipe.lock.get("input", "")), *(str(digest) for digest in recipe.lock.get("steps", []))]
    for place, mine, theirs in zip_longest(wanted, have, locked, fillvalue=""):
        if mine != theirs:
            raise UsageError(
                f"{place or 'a missing step'} is {mine[:12] or 'nothing'}, the lock says {theirs[:12] or 'nothing'}",
                where=recipe.source,
                hint="the model, the data, the passes or a library changed since; remove the key `lock` to accept that",
            )


def _shortfall(best: CandidateRecord, recipe: Recipe) -> str | None:
    """Return the bound a result misses, if any."""
    missed = recipe.limits.missed(best.timing.p50 if best.timing else None, best.size_bytes)
    return f"the best result {missed}" if missed else None


def _record(session: Session, found: Found, objective: str, seconds: float, command: str) -> RunRecord:
    recipe, inputs = session.recipe, session.inputs
    return RunRecord(
        command=command,
        model={
            "path": str(inputs.path),
            "digest": session.source.digest,
            "size_bytes": session.source.size_bytes,
            "nodes": session.source.nodes,
        },
        machine=this_machine(),
        baseline=found.candidates[0],
        best=found.best,
        candidates=tuple(found.candidates),
        data={
            "calibration": _samples(inputs.data.calibration),
            "evaluation": _samples(inputs.data.evaluation),
        },
        metric=inputs.metric.label if inputs.metric else None,
        budget=asdict(recipe.budget),
        limits=asdict(recipe.limits),
        objective=objective,
        target={"name": recipe.target.name, "threads": recipe.target.threads},
        notes=(*inputs.notes, *_unsteady(found)),
        seconds=seconds,
        seed=recipe.seed,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        shortfall=found.shortfall,
    )


def _unsteady(found: Found) -> list[str]:
    """Return a note for each of the two whose latency a claim rests on that never became steady."""
    timed = {one.name: one.timing for one in (found.candidates[0], found.best) if one.timing}
    text = "latency was still changing after warming up, so its figures mean less"
    return [f"{name}: {text}" for name, timing in timed.items() if not timing.steady]


def _samples(samples: Samples) -> dict[str, object]:
    return {"samples": len(samples), "fingerprint": samples.fingerprint, "synthetic": samples.synthetic}
