"""Recipe → the best artefact found, or the one its passes make, with the record of how it was found."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from onnxopt.compile.isolation import Limits as ChildLimits
from onnxopt.data.sample import Samples
from onnxopt.errors import UsageError
from onnxopt.evaluate.budget import judge
from onnxopt.ir.outputs import classifier_outputs
from onnxopt.pipeline.cache import Cache
from onnxopt.pipeline.candidates import BASELINE, baseline_backend
from onnxopt.pipeline.events import Listener
from onnxopt.pipeline.making import ModelFile, described
from onnxopt.pipeline.measuring import Runnable
from onnxopt.pipeline.record import CandidateRecord, RunRecord, Status
from onnxopt.pipeline.search import CONFIRMING, LAUNCHES, SCREENING, Search
from onnxopt.pipeline.session import Session, open_session
from onnxopt.profile.machine import this_machine
from onnxopt.recipe.recipe import Recipe, SearchSpec


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        record: Everything found.
        chosen: The model and backend to ship.
    """

    record: RunRecord
    chosen: Runnable


def run_recipe(
    recipe: Recipe, cache: Cache, listen: Listener, *, limits: ChildLimits | None = None, command: str = ""
) -> Result:
    """Do what a recipe says.

    Args:
        recipe: With passes, or with a search.
        cache: Where results are kept.
        listen: Told what happens.
        limits: Of each child process.
        command: Told in the record.

    Raises:
        OnnxoptError: The inputs cannot be used, or a pass of the recipe fails.
    """
    if not recipe.target.is_local:
        raise UsageError(
            f"target {recipe.target.name!r} is not this machine, and nothing can be measured there",
            hint="run onnxopt on the target itself, or leave the target out",
        )
    if recipe.passes is None:
        return _optimize(recipe, recipe.search or SearchSpec(), cache, listen, limits, command)
    return _follow(recipe, cache, listen, limits, command)


def _optimize(
    recipe: Recipe, spec: SearchSpec, cache: Cache, listen: Listener, limits: ChildLimits | None, command: str
) -> Result:
    started = time.perf_counter()
    with open_session(recipe, baseline_backend(spec), cache, listen, limits) as session:
        search = Search(
            session.maker,
            session.measurer,
            session.source,
            spec=spec,
            candidates=recipe.candidates,
            metric=session.inputs.metric,
            budget=recipe.budget,
            target=recipe.target,
            listen=listen,
        )
        best = search.run()
        assert best.runnable is not None
        records = [trial.record for trial in search.trials]
        record = _record(session, records, best.record, spec.objective, time.perf_counter() - started, command)
        return Result(replace(record, shortfall=_shortfall(best.record, recipe)), best.runnable)


def _follow(recipe: Recipe, cache: Cache, listen: Listener, limits: ChildLimits | None, command: str) -> Result:
    """Apply the recipe's passes and measure the result."""
    started = time.perf_counter()
    assert recipe.passes is not None
    with open_session(recipe, type(recipe.backend)(), cache, listen, limits) as session:
        file = session.source
        for index, change in enumerate(recipe.passes):
            file = session.maker.apply(change, file, place=f"passes[{index}] {change.name}")
        _check_lock(recipe, file)
        baseline = _measured(session, Runnable(BASELINE, session.source, type(recipe.backend)()))
        name = " > ".join(change.name for change in recipe.passes) or "the model as it is"
        chosen = Runnable(f"{name} in {recipe.backend}", file, recipe.backend)
        result = _measured(session, chosen)
        record = _record(session, [baseline, result], result, "latency", time.perf_counter() - started, command)
        lost = None if result.status is Status.BEST else f"the result loses too much: {result.reason}"
        return Result(replace(record, shortfall=lost or _shortfall(result, recipe)), chosen)


def _measured(session: Session, one: Runnable) -> CandidateRecord:
    baseline = one.name == BASELINE
    found = session.measurer.compare(one, SCREENING if baseline else CONFIRMING, 1 if baseline else LAUNCHES)
    scores = session.measurer.score(one, session.inputs.metric)
    verdict = judge(scores, session.recipe.budget, classifier_outputs(session.inputs.model.graph.graph))
    status = Status.BASELINE if baseline else Status.BEST if verdict.kept else Status.REJECTED
    record = CandidateRecord(one.name, status, verdict.reason, one.backend.name, dict(one.backend.options))
    measured = replace(record, timing=found.candidate, speedup=found.speedup, scores=scores)
    return described(measured, one.file)


def _check_lock(recipe: Recipe, file: ModelFile) -> None:
    """Raise if a locked recipe no longer gives what it gave, naming the first step that differs."""
    wanted = (recipe.lock or {}).get("steps", [])
    for index, (step, digest) in enumerate(zip(file.steps, wanted, strict=False)):
        if step.digest != digest:
            raise UsageError(
                f"passes[{index}] {step.name} gives {step.digest[:12]}, the lock says {str(digest)[:12]}",
                where=recipe.source,
                hint="the model, the data or a library changed since; remove the key `lock` to accept that",
            )


def _shortfall(best: CandidateRecord, recipe: Recipe) -> str | None:
    """Return the bound a result misses, if any."""
    latency = best.timing.p50 if best.timing else None
    bound = recipe.limits.latency
    if bound is not None and latency is not None and latency > bound:
        return f"the fastest result takes {latency * 1e3:.3g} ms, more than the {bound * 1e3:.3g} ms asked for"
    most = recipe.limits.size
    if most is not None and best.size_bytes is not None and best.size_bytes > most:
        return f"the result has {best.size_bytes:,} bytes, more than the {most:,} asked for"
    return None


def _record(
    session: Session,
    candidates: Sequence[CandidateRecord],
    best: CandidateRecord,
    objective: str,
    seconds: float,
    command: str,
) -> RunRecord:
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
        baseline=candidates[0],
        best=best,
        candidates=tuple(candidates),
        data={
            "calibration": _samples(inputs.data.calibration),
            "evaluation": _samples(inputs.data.evaluation),
        },
        metric=inputs.metric.label if inputs.metric else None,
        budget=asdict(recipe.budget),
        limits=asdict(recipe.limits),
        objective=objective,
        target={"name": recipe.target.name, "threads": recipe.target.threads},
        notes=inputs.notes,
        seconds=seconds,
        seed=recipe.seed,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _samples(samples: Samples) -> dict[str, object]:
    return {"samples": len(samples), "fingerprint": samples.fingerprint, "synthetic": samples.synthetic}
