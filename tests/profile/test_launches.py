"""Engines compared over several launches of fresh processes; their latencies are scripted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from onnxopt.compile.fake import Fake
from onnxopt.compile.isolation import IsolatedEngine
from onnxopt.data.sample import InMemory, Sample
from onnxopt.profile.latency import Plan
from onnxopt.profile.launches import compare_launches, measure_engine, timed_feeds
from onnxopt.profile.statistics import Verdict
from onnxopt.targets.target import local_target

FEEDS = [{"x": np.ones((2, 8), np.float32)}]
PLAN = Plan(warmup_seconds=0.01, burst_seconds=0.0, min_rounds=5, max_rounds=5)


class Starter:
    """Starts a fake runtime, and remembers the processes it started."""

    def __init__(self, model: Path, latency: float, shift: float = 0.0) -> None:
        self.engines: list[IsolatedEngine] = []
        self._model = model
        self._latency = latency
        self._shift = shift

    @contextmanager
    def __call__(self) -> Iterator[IsolatedEngine]:
        latency = self._latency * (1 + self._shift * (len(self.engines) % 2))
        fake = Fake(latency=latency, noise=0.001, seed=len(self.engines))
        with IsolatedEngine(fake, self._model, local_target()) as engine:
            self.engines.append(engine)
            yield engine


@pytest.mark.parametrize("launches", [1, 3])
def test_each_launch_is_a_fresh_pair_of_processes(mlp_file: Path, launches: int) -> None:
    slow, fast = Starter(mlp_file, 0.002), Starter(mlp_file, 0.001)
    found = compare_launches(slow, fast, FEEDS, PLAN, launches)
    assert [len(rounds) for rounds in found.speedup.launches] == [5] * launches
    assert len(slow.engines) == len(fast.engines) == launches
    assert not any(engine.alive for engine in slow.engines + fast.engines)
    assert found.speedup.verdict == Verdict.FASTER
    assert found.speedup.ratio == pytest.approx(2.0, rel=0.02)


def test_launches_that_differ_much_are_followed_by_more(mlp_file: Path) -> None:
    slow, fast = Starter(mlp_file, 0.002), Starter(mlp_file, 0.001, shift=0.3)
    found = compare_launches(slow, fast, FEEDS, PLAN, 2)
    assert len(found.speedup.launches) == 4
    assert found.speedup.verdict == Verdict.FASTER
    assert found.speedup.low < 1.6 < 2 < found.speedup.high


def test_samples_of_all_launches_are_kept_with_load_time_and_memory(mlp_file: Path) -> None:
    one = compare_launches(Starter(mlp_file, 0.002), Starter(mlp_file, 0.001), FEEDS, PLAN, 1)
    found = compare_launches(Starter(mlp_file, 0.002), Starter(mlp_file, 0.001), FEEDS, PLAN, 2)
    assert len(found.candidate.samples) == 2 * len(one.candidate.samples)
    for timing in (found.baseline, found.candidate):
        assert timing.load_seconds is not None
        assert 0 < timing.load_seconds < 60
        assert timing.peak_memory_bytes is not None
        assert timing.peak_memory_bytes > 10_000_000


def test_one_engine_is_measured_with_its_costs(mlp_file: Path) -> None:
    found = measure_engine(Starter(mlp_file, 0.002), FEEDS, PLAN)
    assert found.p50 == pytest.approx(0.002, rel=0.02)
    assert found.load_seconds is not None
    assert found.peak_memory_bytes is not None


@pytest.mark.parametrize(("count", "timed"), [(1, [0]), (3, [0, 1, 2]), (5, [0, 1, 2, 3]), (100, [0, 25, 50, 75])])
def test_timed_feeds_are_spread_over_all_samples(count: int, timed: list[int]) -> None:
    samples = InMemory(tuple(Sample(str(index), {"x": np.array([index])}) for index in range(count)))
    assert [int(feeds["x"][0]) for feeds in timed_feeds(samples)] == timed
