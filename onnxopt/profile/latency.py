"""Latency of one engine, and of two engines interleaved: the only way this project claims a speed-up."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from onnxopt.compile.engine import Engine, Feeds
from onnxopt.profile.statistics import Speedup, bootstrap_median, percentile, speedup

_MOST_REPEATS = 1000
"""Runs in one turn: every sample is kept, and a model of a microsecond would leave millions."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure.

    Attributes:
        warmup_seconds: Most time spent until latencies are steady.
        burst_seconds: One engine's turn in a round; many short runs are gathered into one turn.
        min_rounds: Rounds measured whatever happens.
        max_rounds: Rounds after which measuring stops.
        max_seconds: Time after which measuring stops, warm-up not counted.
        precision: Measuring stops early once the interval's half width is this share of the ratio.
    """

    warmup_seconds: float = 1.0
    burst_seconds: float = 0.03
    min_rounds: int = 15
    max_rounds: int = 101
    max_seconds: float = 8.0
    precision: float = 0.01


@dataclass(frozen=True, slots=True)
class Timing:
    """Latencies of one engine.

    Attributes:
        samples: Seconds of every counted run, in the order measured; with several feeds, each feed in turn.
        warmup_runs: Runs before them, until the times were steady.
        steady: Whether they were, within the time for warming up.
        load_seconds: Time to compile or load the engine, if it was measured.
        peak_memory_bytes: Most memory the engine's process had resident, if it was measured.
    """

    samples: tuple[float, ...]
    warmup_runs: int = 0
    steady: bool = True
    load_seconds: float | None = None
    peak_memory_bytes: int | None = None

    @property
    def p50(self) -> float:
        """Median seconds."""
        return percentile(self.samples, 50)

    @property
    def p90(self) -> float:
        """90th percentile, seconds."""
        return percentile(self.samples, 90)

    @property
    def p99(self) -> float:
        """99th percentile, seconds."""
        return percentile(self.samples, 99)


@dataclass(slots=True)
class _Lane:
    """One engine's side of an interleaved measurement."""

    engine: Engine
    feeds: Sequence[Feeds]
    repeats: int = 1
    warmup_runs: int = 0
    steady: bool = False
    samples: list[float] = field(default_factory=list)

    def warm_up(self, plan: Plan) -> None:
        """Run until the last pass over the feeds is no faster than the one before, then size a turn."""
        end = time.perf_counter() + plan.warmup_seconds
        previous = math.inf
        while not self.steady and (self.warmup_runs == 0 or time.perf_counter() < end):
            took = sum(self._one_pass(1))
            self.warmup_runs += len(self.feeds)
            self.steady = took > 0.95 * previous
            previous = min(previous, took)
        self.repeats = min(max(1, math.ceil(plan.burst_seconds / max(previous, 1e-9))), _MOST_REPEATS)

    def turn(self) -> float:
        """Time one turn; return its median pass over the feeds, in seconds."""
        times = [self.engine.time(feeds, self.repeats) for feeds in self.feeds]
        self.samples.extend(second for passes in times for second in passes)
        return sum(median(passes) for passes in times)

    def timing(self) -> Timing:
        return Timing(tuple(self.samples), self.warmup_runs, self.steady)

    def _one_pass(self, repeats: int) -> list[float]:
        return [second for feeds in self.feeds for second in self.engine.time(feeds, repeats)]


def measure_latency(engine: Engine, feeds: Sequence[Feeds], plan: Plan | None = None) -> Timing:
    """Measure one engine over some feeds.

    Args:
        engine: Preferably in a process of its own, so that nothing else runs beside it.
        feeds: Real samples; shapes may differ, and one pass over all of them counts as the unit.
        plan: How long to measure.
    """
    plan = plan or Plan()
    lane = _Lane(engine, feeds)
    lane.warm_up(plan)
    turns: list[float] = []
    _rounds(plan, lambda: turns.append(lane.turn()), lambda: _uncertainty(turns))
    return lane.timing()


def compare_latency(
    slow: Engine,
    fast: Engine,
    feeds: Sequence[Feeds],
    plan: Plan | None = None,
) -> tuple[Timing, Timing, Speedup]:
    """Measure two engines in turn, A B B A …, and how many times faster the second is.

    Args:
        slow: The engine to compare against (A).
        fast: The engine that may be faster (B).
        feeds: What both are fed.
        plan: How long to measure.

    Returns:
        Timing of A, timing of B, and the speed-up of B over A with its interval.
    """
    plan = plan or Plan()
    a, b = _Lane(slow, feeds), _Lane(fast, feeds)
    a.warm_up(plan)
    b.warm_up(plan)
    ratios: list[float] = []

    def one_round() -> None:
        ratios.append(_ratio(a, b, flipped=len(ratios) % 2 == 1))

    _rounds(plan, one_round, lambda: _uncertainty(ratios))
    return a.timing(), b.timing(), speedup(ratios)


def _ratio(a: _Lane, b: _Lane, *, flipped: bool) -> float:
    """Time both, in one order or the other, so that a drift of the machine favours neither."""
    if flipped:
        after = b.turn()
        return a.turn() / after
    before = a.turn()
    return before / b.turn()


def _rounds(plan: Plan, one_round: Callable[[], None], uncertainty: Callable[[], float]) -> None:
    """Repeat until the result is precise, or time or rounds run out. Stopping never looks at who wins."""
    end = time.perf_counter() + plan.max_seconds
    for done in range(1, plan.max_rounds + 1):
        one_round()
        if done >= plan.min_rounds and (uncertainty() < plan.precision or time.perf_counter() > end):
            return


def _uncertainty(values: Sequence[float]) -> float:
    low, high = bootstrap_median(values)
    return (high - low) / 2 / median(values)
