"""Measuring engines whose times are scripted: nothing here depends on how fast this machine is."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from onnxopt.compile.engine import Engine, Feeds, Results
from onnxopt.ir.signature import Signature
from onnxopt.profile import latency
from onnxopt.profile.latency import Plan, compare_latency, measure_latency
from onnxopt.profile.statistics import Verdict

FEEDS: list[Feeds] = [{"x": np.zeros(1, np.float32)}]
PLAN = Plan(burst_seconds=0.004)


class Clock:
    """Stands in for the module ``time``: it moves only when an engine runs."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Scripted(Engine):
    """Takes the seconds its script says, on the clock it is given."""

    def __init__(self, clock: Clock, script: Callable[[], float], name: str = "", log: list[str] | None = None) -> None:
        self._clock = clock
        self._script = script
        self._name = name
        self.turns: list[str] = [] if log is None else log
        self.told: list[float] = []

    @property
    def signature(self) -> Signature:
        return Signature((), ())

    def run(self, feeds: Feeds) -> Results:
        raise AssertionError("only timed")

    def time(self, feeds: Feeds, repeats: int) -> list[float]:
        self.turns.append(self._name)
        seconds = [self._script() for _ in range(repeats)]
        self.told += seconds
        self._clock.now += sum(seconds)
        return seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(latency, "time", made)
    return made


def _after(first: list[float], then: float) -> Callable[[], float]:
    script = itertools.chain(first, itertools.repeat(then))
    return lambda: next(script)


def _noisy(median: float, noise: float, seed: int) -> Callable[[], float]:
    random = np.random.default_rng(seed)
    return lambda: float(median * np.exp(random.normal(0, noise)))


def _always(seconds: float) -> Callable[[], float]:
    return lambda: seconds


def test_warm_up_ends_when_times_are_steady(clock: Clock) -> None:
    engine = Scripted(clock, _after([0.10, 0.06, 0.03, 0.01], 0.01))
    timing = measure_latency(engine, FEEDS, PLAN)
    assert (timing.warmup_runs, timing.steady) == (5, True)
    assert set(timing.samples) == {0.01}


def test_an_engine_that_never_gets_steady_is_told_as_such(clock: Clock) -> None:
    halving = (2.0**-n for n in itertools.count())
    timing = measure_latency(Scripted(clock, lambda: next(halving)), FEEDS, Plan(warmup_seconds=1.7, max_rounds=1))
    assert (timing.warmup_runs, timing.steady) == (3, False)


def test_warm_up_makes_at_least_one_pass_over_the_feeds(clock: Clock) -> None:
    timing = measure_latency(Scripted(clock, _always(9.0)), FEEDS * 3, Plan(warmup_seconds=0.0, max_rounds=1))
    assert (timing.warmup_runs, timing.steady) == (3, False)
    assert timing.samples == (9.0,) * 3


def test_all_samples_are_kept_in_order(clock: Clock) -> None:
    engine = Scripted(clock, _noisy(0.001, 0.2, seed=0))
    timing = measure_latency(engine, FEEDS * 2, PLAN)
    assert timing.samples == tuple(engine.told[timing.warmup_runs :])
    assert timing.p50 == pytest.approx(np.median(timing.samples))
    assert timing.p90 == pytest.approx(np.percentile(timing.samples, 90))
    assert timing.p50 < timing.p90 < timing.p99 <= max(timing.samples)


@pytest.mark.parametrize(("seconds", "repeats"), [(0.001, 4), (0.0015, 3), (0.5, 1)])
def test_short_runs_are_gathered_into_one_turn(clock: Clock, seconds: float, repeats: int) -> None:
    plan = Plan(burst_seconds=0.004, min_rounds=3, max_rounds=3)
    assert len(measure_latency(Scripted(clock, _always(seconds)), FEEDS, plan).samples) == 3 * repeats


def test_engines_take_turns_in_both_orders(clock: Clock) -> None:
    turns: list[str] = []
    a, b = (Scripted(clock, _always(0.002), name, turns) for name in "AB")
    plan = Plan(min_rounds=4, max_rounds=4)
    timing, other, _ = compare_latency(a, b, FEEDS, plan)
    measured = turns[timing.warmup_runs + other.warmup_runs :]
    assert "".join(measured) == "ABBAABBA"


@pytest.mark.parametrize(
    ("noise", "plan", "rounds"),
    [
        (0.0, Plan(min_rounds=7, max_rounds=50), 7),
        (0.5, Plan(burst_seconds=0.0, min_rounds=7, max_rounds=23, precision=1e-6), 23),
        (0.5, Plan(burst_seconds=0.0, min_rounds=7, max_seconds=0.0, precision=1e-6), 7),
    ],
    ids=["precise", "rounds", "time"],
)
def test_measuring_stops_by_precision_rounds_or_time(clock: Clock, noise: float, plan: Plan, rounds: int) -> None:
    a, b = Scripted(clock, _noisy(0.001, noise, 1)), Scripted(clock, _noisy(0.001, noise, 2))
    _, _, speed = compare_latency(a, b, FEEDS, plan)
    assert len(speed.launches[0]) == rounds


def test_time_ends_a_measurement_between_rounds(clock: Clock) -> None:
    plan = Plan(burst_seconds=0.0, min_rounds=2, max_seconds=1.0, precision=0.0)
    a, b = Scripted(clock, _noisy(0.1, 0.01, 1)), Scripted(clock, _noisy(0.1, 0.01, 2))
    _, _, speed = compare_latency(a, b, FEEDS, plan)
    assert len(speed.launches[0]) in (5, 6)


def test_stopping_does_not_look_at_who_wins(clock: Clock) -> None:
    plan = Plan(burst_seconds=0.0, min_rounds=5, max_seconds=1e9, precision=0.04)
    rounds = set()
    for scale in (0.25, 0.9, 1.0, 3.0):
        a, b = Scripted(clock, _noisy(0.001, 0.1, 1)), Scripted(clock, _noisy(0.001 * scale, 0.1, 2))
        _, _, speed = compare_latency(a, b, FEEDS, plan)
        assert speed.ratio == pytest.approx(1.0 / scale, rel=0.1)
        rounds.add(len(speed.launches[0]))
    assert len(rounds) == 1
    assert plan.min_rounds < rounds.pop() < plan.max_rounds


def test_a_machine_that_slows_down_favours_nobody(clock: Clock) -> None:
    a, b = (Scripted(clock, lambda: 0.001 * (1 + clock.now)) for _ in "AB")
    _, _, speed = compare_latency(a, b, FEEDS, Plan(min_rounds=40, max_rounds=40))
    assert max(a.told) > 2 * min(a.told)
    assert speed.verdict == Verdict.SAME
    assert speed.ratio == pytest.approx(1.0, abs=0.01)


def test_an_outlier_in_every_turn_does_not_count(clock: Clock) -> None:
    spiky = itertools.cycle([0.001, 0.001, 0.001, 0.1])
    a, b = Scripted(clock, _always(0.002)), Scripted(clock, lambda: next(spiky))
    _, timing, speed = compare_latency(a, b, FEEDS, Plan(burst_seconds=0.01))
    assert speed.ratio == pytest.approx(2.0)
    assert max(timing.samples) == 0.1


@pytest.mark.parametrize(("ratio", "says"), [(1.1, Verdict.FASTER), (0.9, Verdict.SLOWER)])
def test_a_difference_of_ten_percent_is_found_and_named(clock: Clock, ratio: float, says: Verdict) -> None:
    a, b = Scripted(clock, _noisy(0.001 * ratio, 0.05, 1)), Scripted(clock, _noisy(0.001, 0.05, 2))
    _, _, speed = compare_latency(a, b, FEEDS, PLAN)
    assert speed.verdict == says
    assert speed.ratio == pytest.approx(ratio, rel=0.02)


def test_equal_engines_are_seldom_told_apart(clock: Clock) -> None:
    plan = Plan(burst_seconds=0.0, min_rounds=15, max_rounds=31)
    said = [_verdict_of_equals(clock, seed, plan) for seed in range(60)]
    assert said.count(Verdict.SAME) >= 53


def _verdict_of_equals(clock: Clock, seed: int, plan: Plan) -> Verdict:
    a, b = Scripted(clock, _noisy(0.001, 0.05, seed)), Scripted(clock, _noisy(0.001, 0.05, 1000 + seed))
    return compare_latency(a, b, FEEDS, plan)[2].verdict


def test_one_pass_over_all_feeds_is_the_unit(clock: Clock) -> None:
    """A has one slow feed of two; per pass B is 11 / 2 times faster."""
    slow: Iterator[float] = itertools.cycle([0.001, 0.010])
    a, b = Scripted(clock, lambda: next(slow)), Scripted(clock, _always(0.001))
    _, _, speed = compare_latency(a, b, FEEDS * 2, Plan(burst_seconds=0.0))
    assert speed.ratio == pytest.approx(5.5)
