"""Pruning to several shares at once, each model scored and timed against the input: what is given up for what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxopt.compile.engine import make_backend
from onnxopt.context import Progress
from onnxopt.errors import UsageError
from onnxopt.evaluate.score import Scores
from onnxopt.explain.prunable import Prunable, find_prunable
from onnxopt.ir.write import write_model
from onnxopt.pipeline.making import ModelFile
from onnxopt.pipeline.measuring import Runnable
from onnxopt.pipeline.pruning import PruneGoal, PruneWay, prune_to
from onnxopt.pipeline.session import Session
from onnxopt.profile.latency import Plan
from onnxopt.profile.launches import LAUNCHES
from onnxopt.profile.machine import this_machine
from onnxopt.profile.statistics import Speedup


@dataclass(frozen=True)
class SweptModel:
    """The model of a share.

    Attributes:
        asked: Share of the multiply-accumulates, asked for.
        file: Name of its file in the folder.
        macs: Share of the multiply-accumulates that is left.
        parameters: Share of the parameters that is left.
        size_bytes: Of its file.
        scores: Against the input, on evaluation samples.
        speedup: Over the input, measured in turn.
    """

    asked: float
    file: str
    macs: float
    parameters: float
    size_bytes: int
    scores: Scores
    speedup: Speedup


@dataclass(frozen=True)
class Sweep:
    """A model pruned to several shares.

    Attributes:
        model: The input.
        method: What was removed.
        metric: What the models are scored by; None if by their outputs alone.
        baseline: The input's score by it.
        size_bytes: Of the input's file.
        models: One a share, the largest first.
        machine: Where they were timed.
        notes: What the reader must know, such as that samples were made up.
    """

    model: str
    method: str
    metric: str | None
    baseline: float | None
    size_bytes: int
    models: tuple[SweptModel, ...]
    machine: str
    notes: tuple[str, ...]


def file_name(model: Path, share: float) -> str:
    """Return what the model of a share is called, such as ``net-62.5.onnx``."""
    return f"{model.stem}-{100 * share:.6g}.onnx"


def check_shares(shares: Sequence[float]) -> None:
    """Raise UsageError unless there are shares, and each leaves something and not everything."""
    wrong = [share for share in shares if not 0 < share < 1]
    if wrong or not shares:
        told = f"{wrong[0]:g} leaves nothing or everything" if wrong else "there are no shares"
        raise UsageError(told, where="--sweep", hint="write shares such as 90%,70%,50%")


def sweep(
    session: Session,
    shares: Sequence[float],
    way: PruneWay,
    folder: Path,
    *,
    seconds: float,
) -> Sweep:
    """Return the input pruned to each share, the largest first, and write each model as soon as it is made.

    What was found before comes from the cache, so an interrupted run goes on where it stopped.

    Args:
        session: The open run.
        shares: Of the multiply-accumulates, each above 0 and below 1.
        way: How it is pruned; checked.
        folder: Where the models go.
        seconds: Time to measure each model's speed-up.

    Raises:
        OnnxoptError: The pass refuses the model.
    """
    asked = sorted(set(shares), reverse=True)
    samples = session.inputs.real_calibration
    before = find_prunable(session.inputs.model, samples)
    each = seconds / LAUNCHES
    plan = Plan(warmup_seconds=min(1.0, each), max_seconds=each)
    tell, models = session.listen, []
    for done, share in enumerate(asked):
        tell(Progress("shares", done, len(asked)))
        start = session.maker, session.source
        file = prune_to(PruneGoal(share), way, *start, samples=samples, seconds=_unasked, tell=tell)
        write_model(session.maker.load(file), folder / file_name(session.inputs.path, share))
        models.append(_measured(session, file, share, before, plan))
    return Sweep(
        model=str(session.inputs.path),
        method=way.method,
        metric=models[0].scores.metric,
        baseline=models[0].scores.baseline,
        size_bytes=session.source.size_bytes,
        models=tuple(models),
        machine=str(this_machine()),
        notes=session.inputs.notes,
    )


def _measured(session: Session, file: ModelFile, share: float, before: Prunable, plan: Plan) -> SweptModel:
    """Return what the model of a share comes to."""
    after = find_prunable(session.maker.load(file), session.inputs.real_calibration)
    runnable = Runnable(f"{share:.6g}", file, make_backend("ort"))
    return SweptModel(
        asked=share,
        file=file_name(session.inputs.path, share),
        macs=after.macs / max(before.macs, 1),
        parameters=after.parameters / max(before.parameters, 1),
        size_bytes=file.size_bytes,
        scores=session.measurer.score(runnable),
        speedup=session.measurer.compare(runnable, plan, LAUNCHES).speedup,
    )


def _unasked(_: ModelFile) -> float:
    """Stand for the measurement of a latency, which a share does not ask for."""
    raise AssertionError
