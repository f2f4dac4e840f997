"""Two engines compared over several launches of fresh processes: what a claimed speed-up rests on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from onnxopt.compile.engine import Feeds
from onnxopt.compile.isolation import IsolatedEngine
from onnxopt.data.sample import Samples
from onnxopt.profile.latency import Plan, Timing, compare_latency, measure_latency
from onnxopt.profile.statistics import Speedup, speedup

Start = Callable[[], AbstractContextManager[IsolatedEngine]]
"""Starts an engine in a process of its own."""

LAUNCHES = 3
"""Pairs of processes, where nothing else is said: the fewest that show how much launches differ."""

WIDE = 1.1
"""An interval whose upper end is more times its lower end than this gets more launches, up to twice as many. Who leads
is not looked at: stopping by width leaves 91 to 95 of 100 intervals over the truth, for spreads of 0.5 to 10 %."""


_TIMED_FEEDS = 4


@dataclass(frozen=True)
class Comparison:
    """Two engines timed in turn: the baseline, the other, and how many times faster the other is."""

    baseline: Timing
    candidate: Timing
    speedup: Speedup


def compare_launches(slow: Start, fast: Start, feeds: Sequence[Feeds], plan: Plan, launches: int) -> Comparison:
    """Start both engines, time them in turn, and do it again.

    How a process happens to lie in memory shifts all its times, so rounds of one launch say little about the next
    (Kalibera and Jones 2013). On a busy machine launches differ more, and there are more of them.

    Args:
        slow: Starts the engine to compare against.
        fast: Starts the engine that may be faster.
        feeds: What both are fed.
        plan: How long to measure, each launch.
        launches: How often to start; if more than once and the interval is wide, up to twice as often.
    """
    found = [_launch(slow, fast, feeds, plan) for _ in range(launches)]
    while 1 < launches <= len(found) < 2 * launches and _is_wide(_pooled(found).speedup):
        found.append(_launch(slow, fast, feeds, plan))
    return _pooled(found)


def timed_feeds(samples: Samples) -> list[Feeds]:
    """Return feeds of the sizes that occur: a few samples, spread evenly over all."""
    step = max(1, len(samples) // _TIMED_FEEDS)
    return [sample.feeds for sample in samples[: step * _TIMED_FEEDS : step]]


def measure_engine(start: Start, feeds: Sequence[Feeds], plan: Plan) -> Timing:
    """Start one engine and time it, with what loading it took and the memory its process had."""
    with start() as engine:
        return _with_costs(measure_latency(engine, feeds, plan), engine)


def _launch(slow: Start, fast: Start, feeds: Sequence[Feeds], plan: Plan) -> Comparison:
    with slow() as a, fast() as b:
        baseline, candidate, ratio = compare_latency(a, b, feeds, plan)
        return Comparison(_with_costs(baseline, a), _with_costs(candidate, b), ratio)


def _with_costs(timing: Timing, engine: IsolatedEngine) -> Timing:
    return replace(timing, load_seconds=engine.load_seconds, peak_memory_bytes=engine.peak_memory())


def _is_wide(found: Speedup) -> bool:
    return found.high > WIDE * found.low


def _pooled(found: Sequence[Comparison]) -> Comparison:
    baseline = _joined([one.baseline for one in found])
    candidate = _joined([one.candidate for one in found])
    return Comparison(baseline, candidate, speedup(*(rounds for one in found for rounds in one.speedup.launches)))


def _joined(timings: Sequence[Timing]) -> Timing:
    return replace(
        timings[0],
        samples=tuple(second for timing in timings for second in timing.samples),
        steady=all(timing.steady for timing in timings),
        load_seconds=min((t.load_seconds for t in timings if t.load_seconds is not None), default=None),
        peak_memory_bytes=max((t.peak_memory_bytes for t in timings if t.peak_memory_bytes is not None), default=None),
    )
