"""Pruning to a goal: a share is asked of the pass; a size or a latency is found by trying shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from onnxopt.context import Progress
from onnxopt.errors import BudgetError, UsageError, did_you_mean
from onnxopt.passes import make_pass
from onnxopt.pipeline.making import Maker, ModelFile

METHODS: Mapping[str, str] = {
    "channels": "prune-channels",
    "heads": "prune-heads",
    "layers": "prune-layers",
    "low-rank": "factorise-weights",
    "separable": "separate-convolutions",
    "weights": "prune-weights",
    "n-m": "prune-n-m",
}
"""The pass behind each method."""

_ZEROS = ("weights", "n-m")
"""Methods that leave zeros; after the others a model is smaller and faster."""

RECOVERIES = ("reconstruct-weights", "match-statistics", "correct-means")
"""Passes that win accuracy back on samples, without training; the first is the default where there are some."""

_BY_EITHER = ("channels", "heads", "layers")
"""Methods that count parameters as well as multiply-accumulates."""

_BY_SECONDS = ("channels", "heads")
"""Methods that count what nodes take on this machine, which is what they give up for a latency."""

_TRIES = 7
"""Halvings of what is not known of the share: to a hundredth."""

_BY_MACS = ("low-rank", "separable")
"""Methods that count multiply-accumulates alone."""

_LEAST = 0.03


@dataclass(frozen=True)
class PruneGoal:
    """What is to be left: one of these; what the method leaves by itself if there is none.

    Attributes:
        share: Of ``of``, above 0 and below 1.
        of: What the share is of; also what is given up for a size.
        size: Bytes of the file at most.
        latency: Seconds at the median at most.
    """

    share: float | None = None
    of: Literal["macs", "parameters"] = "macs"
    size: int | None = None
    latency: float | None = None


def prune_to(
    goal: PruneGoal,
    method: str,
    options: Mapping[str, Any],
    maker: Maker,
    source: ModelFile,
    *,
    recover: Sequence[str] = (),
    seconds: Callable[[ModelFile], float],
    tell: Callable[[Progress], None],
) -> ModelFile:
    """Return the model pruned as little as the goal allows, with what was lost won back as far as passes do.

    Args:
        goal: What is to be left.
        method: One of ``METHODS``.
        options: Of its pass.
        maker: Applies it.
        source: The model.
        recover: Passes that follow, of ``RECOVERIES``.
        seconds: Measures the median latency of a model.
        tell: Told of tries.

    Raises:
        BudgetError: No share reaches the goal; it tells the least there is.
        UsageError: There is no such method, or no such pass to recover by.
        OnnxoptError: The pass refuses the model.
    """
    if method not in METHODS:
        raise UsageError(f"there is no method {method!r}", hint=did_you_mean(method, METHODS))
    for name in recover:
        if name not in RECOVERIES:
            raise UsageError(f"{name!r} recovers nothing", hint=did_you_mean(name, RECOVERIES))
    if method in _ZEROS and RECOVERIES[0] in recover:
        hint = "leave it out: with samples the pass refits what stays by itself"
        raise UsageError(f"method {method!r} leaves zeros, and {RECOVERIES[0]} would fill them", hint=hint)
    _check_reachable(goal, method)
    pruned = _pruned_to(goal, method, options, maker, source, seconds=seconds, tell=tell)
    for name in recover:
        pruned = maker.apply(make_pass(name, {}), pruned)
    return pruned


def recoveries(method: str, asked: Sequence[str] | None, *, data: bool) -> Sequence[str]:
    """Return the passes to recover by: those asked for, or where nobody asked the first that the samples allow."""
    if asked is not None:
        return asked
    return RECOVERIES[:1] if data and method not in _ZEROS else ()


def _pruned_to(
    goal: PruneGoal,
    method: str,
    options: Mapping[str, Any],
    maker: Maker,
    source: ModelFile,
    *,
    seconds: Callable[[ModelFile], float],
    tell: Callable[[Progress], None],
) -> ModelFile:
    of = "seconds" if goal.latency is not None and method in _BY_SECONDS else goal.of
    counted = {"of": of} if method in _BY_EITHER else {}

    def made(share: float | None, by: Maker = maker) -> ModelFile:
        kept = {} if share is None else {"keep": share}
        return by.apply(make_pass(METHODS[method], {**counted, **options, **kept}), source)

    if goal.size is None and goal.latency is None:
        return made(goal.share)
    tried = partial(made, by=maker.trying())
    if goal.size is not None:
        share = _largest_that_fits(source, tried, lambda file: float(file.size_bytes), goal.size, "bytes", tell)
    else:
        assert goal.latency is not None
        share = _largest_that_fits(source, tried, seconds, goal.latency, "s", tell)
    return source if share == 1 else made(share)


def _check_reachable(goal: PruneGoal, method: str) -> None:
    """Raise UsageError if a method cannot reach such a goal."""
    if method in _ZEROS and (goal.size is not None or goal.latency is not None):
        raise UsageError(
            f"method {method!r} leaves zeros: neither the file nor a CPU's latency shrinks by them",
            hint="choose channels; or give --params, and ship the file compressed",
        )
    if goal.share is not None and method == "n-m":
        raise UsageError("method 'n-m' leaves n of every m", hint="give --option n=2 --option m=4 in place of a share")
    if goal.share is not None and goal.of == "parameters" and method in _BY_MACS:
        raise UsageError(f"method {method!r} counts multiply-accumulates", hint="give --macs in place of --params")


def _largest_that_fits(
    source: ModelFile,
    made: Callable[[float], ModelFile],
    measure: Callable[[ModelFile], float],
    most: float,
    unit: str,
    tell: Callable[[Progress], None],
) -> float:
    """Return the largest share whose model's measure is small enough, by halving; 1 if the source's is."""
    if measure(source) <= most:
        return 1.0
    least = measure(made(_LEAST))
    if least > most:
        raise BudgetError(
            f"the goal is {most:.4g} {unit}, and pruned as far as it goes the model still has {least:.4g} {unit}",
            hint="nothing was written; inspect --groups tells what cannot be removed, and why",
        )
    low, high = _LEAST, 1.0
    for done in range(_TRIES):
        tell(Progress("shares tried", done, _TRIES))
        middle = (low + high) / 2
        low, high = (middle, high) if measure(made(middle)) <= most else (low, middle)
    return low
