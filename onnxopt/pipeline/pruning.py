"""Pruning to a goal: a share is asked of the pass; a size or a latency is found by trying shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from onnxopt.context import Progress, Warned
from onnxopt.data.sample import Samples
from onnxopt.errors import BudgetError, NothingToPruneError, UsageError, did_you_mean
from onnxopt.explain.prunable import Prunable, find_prunable
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

_IN_ROUNDS = ("channels", "heads", "layers", "weights")
"""Methods that can be applied to what they made."""

Schedule = Literal["geometric", "linear", "cubic"]

_SCHEDULES: Mapping[Schedule, Callable[[float, float], float]] = {
    "geometric": lambda share, done: share**done,
    "linear": lambda share, done: 1 - (1 - share) * done,
    "cubic": lambda share, done: 1 - (1 - share) * (1 - (1 - done) ** 3),
}
"""What is left when a part of the rounds is done: as much of what is left in each, as much of the whole in each, or
most in the first rounds (Zhu and Gupta, arXiv:1710.01878)."""


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


@dataclass(frozen=True)
class PruneWay:
    """How a model is pruned.

    Attributes:
        method: One of ``METHODS``.
        options: Of its pass.
        recover: Passes that win accuracy back after each round, of ``RECOVERIES``; None: the first where there are
            samples and the method leaves it something to do.
        rounds: In which the goal is come to.
        schedule: How much goes in each.
    """

    method: str = "channels"
    options: Mapping[str, Any] = field(default_factory=dict)
    recover: Sequence[str] | None = None
    rounds: int = 1
    schedule: Schedule = "geometric"

    def check(self, goal: PruneGoal) -> None:
        """Raise UsageError if there is no such way, or it cannot come to a goal."""
        if self.method not in METHODS:
            raise UsageError(f"there is no method {self.method!r}", hint=did_you_mean(self.method, METHODS))
        if self.schedule not in _SCHEDULES:
            raise UsageError(f"there is no schedule {self.schedule!r}", hint=did_you_mean(self.schedule, _SCHEDULES))
        self._check_recoveries()
        self._check_rounds(goal)
        if "keep" in self.options and goal != PruneGoal(of=goal.of):
            raise UsageError("there is a goal, and the option keep as well", hint="give one of them")
        _check_reachable(goal, self.method)

    def _check_rounds(self, goal: PruneGoal) -> None:
        if self.rounds < 1:
            raise UsageError(f"there are {self.rounds} rounds", hint="give 1 or more")
        if self.rounds > 1 and self.method not in _IN_ROUNDS:
            raise UsageError(
                f"method {self.method!r} is not done in rounds",
                hint=f"leave rounds out; methods that can be repeated: {', '.join(_IN_ROUNDS)}",
            )
        if self.rounds > 1 and goal == PruneGoal(of=goal.of):
            raise UsageError(
                "rounds come to a goal, and there is none", hint="give --macs, --params, --size or --latency"
            )

    def _check_recoveries(self) -> None:
        for name in self.recover or ():
            if name not in RECOVERIES:
                raise UsageError(f"{name!r} recovers nothing", hint=did_you_mean(name, RECOVERIES))
        if self.method in _ZEROS and RECOVERIES[0] in (self.recover or ()):
            hint = "leave it out: with samples the pass refits what stays by itself"
            raise UsageError(f"method {self.method!r} leaves zeros, and {RECOVERIES[0]} would fill them", hint=hint)

    def recoveries(self, *, data: bool) -> Sequence[str]:
        """Return the passes to recover by: those asked for, or where nobody asked the first that samples allow."""
        if self.recover is not None:
            return self.recover
        return RECOVERIES[:1] if data and self.method not in _ZEROS else ()


def prune_to(
    goal: PruneGoal,
    way: PruneWay,
    maker: Maker,
    source: ModelFile,
    *,
    samples: Samples | None,
    seconds: Callable[[ModelFile], float],
    tell: Callable[[Progress | Warned], None],
) -> ModelFile:
    """Return the model pruned as little as the goal allows, with what was lost won back as far as passes do.

    Args:
        goal: What is to be left.
        way: How it is pruned; checked.
        maker: Applies passes.
        source: The model.
        samples: What the maker's passes may use; None if there are none.
        seconds: Measures the median latency of a model.
        tell: Told of tries.

    Raises:
        BudgetError: No share reaches the goal; it tells the least there is.
        OnnxoptError: The pass refuses the model.
    """
    pruner = _Pruner(goal, way, maker, source, samples)
    return pruner.recovered(_pruned_to(goal, pruner, seconds=seconds, tell=tell))


def _pruned_to(
    goal: PruneGoal,
    pruner: _Pruner,
    *,
    seconds: Callable[[ModelFile], float],
    tell: Callable[[Progress | Warned], None],
) -> ModelFile:
    """Return the pruned model, before what the last round lost is won back."""
    if goal.size is None and goal.latency is None:
        return pruner.to(goal.share)
    tried = replace(pruner, maker=pruner.maker.trying()).to
    if goal.size is not None:
        share = _largest_that_fits(pruner.source, tried, lambda file: float(file.size_bytes), goal.size, "bytes", tell)
    else:
        assert goal.latency is not None
        share = _largest_that_fits(pruner.source, tried, seconds, goal.latency, "s", tell)
    return pruner.source if share == 1 else pruner.to(share)


@dataclass(frozen=True)
class _Pruner:
    """Prunes a model to shares, in rounds."""

    goal: PruneGoal
    way: PruneWay
    maker: Maker
    source: ModelFile
    samples: Samples | None

    def to(self, share: float | None) -> ModelFile:
        """Return the model with a share left, or with what the method leaves by itself."""
        if share is None or self.way.rounds == 1:
            return self._pruned(self.source, share)
        file = self.source
        for done in range(self.way.rounds):
            file = self.recovered(file) if done else file
            keep = self._still_to_keep(share, done, file)
            try:
                file = self._pruned(file, keep) if keep < 1 else file
            except NothingToPruneError:
                if not done:
                    raise
                break  # what is left is as near as it gets, of which the round before has warned
        return file

    def recovered(self, file: ModelFile) -> ModelFile:
        """Return a model with what it lost won back as far as passes do."""
        for name in self.way.recoveries(data=self.samples is not None):
            file = self.maker.apply(make_pass(name, {}), file)
        return file

    def _pruned(self, file: ModelFile, share: float | None) -> ModelFile:
        counted = {"of": self._of} if self.way.method in _BY_EITHER else {}
        kept = {} if share is None else {"keep": share}
        return self.maker.apply(make_pass(METHODS[self.way.method], {**counted, **self.way.options, **kept}), file)

    @property
    def _of(self) -> str:
        by_seconds = self.goal.latency is not None and self.way.method in _BY_SECONDS
        return str(self.way.options.get("of", "seconds" if by_seconds else self.goal.of))

    def _still_to_keep(self, share: float, done: int, file: ModelFile) -> float:
        """Return the share of what so many rounds have left that the next one keeps; of zeros that of the source."""
        before, after = (_SCHEDULES[self.way.schedule](share, one / self.way.rounds) for one in (done, done + 1))
        if self.way.method in _ZEROS:
            return after
        return after / (before if not done or self._of == "seconds" else self._left(file))

    def _left(self, file: ModelFile) -> float:
        """Return the share of the source that is left."""
        now, whole = find_prunable(self.maker.load(file), self.samples), self._whole
        return now.parameters / whole.parameters if self._of == "parameters" else now.macs / whole.macs

    @cached_property
    def _whole(self) -> Prunable:
        return find_prunable(self.maker.load(self.source), self.samples)


def _check_reachable(goal: PruneGoal, method: str) -> None:
    """Raise UsageError if a method cannot reach such a goal, or nothing can."""
    if (goal.size is not None and goal.size <= 0) or (goal.latency is not None and goal.latency <= 0):
        raise UsageError("a goal of nothing", hint="write a size such as 5MB, or a latency such as 4ms")
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
    tell: Callable[[Progress | Warned], None],
) -> float:
    """Return the largest share whose model's measure is small enough, by halving; 1 if the source's is."""
    if (now := measure(source)) <= most:
        tell(Warned(f"the model has {now:.4g} {unit}, which the goal of {most:.4g} {unit} allows: nothing is removed"))
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
