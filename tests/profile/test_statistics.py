"""Intervals that cover what they say, verdicts at their edges, and averages of ratios."""

from __future__ import annotations

import numpy as np
import pytest

from onnxopt.profile.statistics import Speedup, Verdict, bootstrap_median, geometric_mean, percentile, speedup, verdict

TRIALS = 400


def _rounds(random: np.random.Generator, ratio: float = 1.0, count: int = 25, noise: float = 0.03) -> np.ndarray:
    """Return ratios as an interleaved measurement gives them: skewed noise around the true one."""
    return ratio * np.exp(random.gamma(4, noise / 2, count) - random.gamma(4, noise / 2, count))


def _share(results: list[bool]) -> float:
    return sum(results) / len(results)


def test_the_interval_of_a_median_covers_it_95_times_of_100() -> None:
    random = np.random.default_rng(1)
    found = [bootstrap_median(_rounds(random)) for _ in range(TRIALS)]
    assert 0.91 < _share([low <= 1 <= high for low, high in found]) < 0.99


@pytest.mark.parametrize("ratio", [0.8, 1.0, 1.37, 4.0])
@pytest.mark.parametrize("shift", [0.96, 1.04])
def test_the_interval_of_one_launch_has_room_for_the_shift_of_a_whole_launch(ratio: float, shift: float) -> None:
    random = np.random.default_rng(2)
    found = [speedup(_rounds(random, ratio * shift, noise=0.01)) for _ in range(100)]
    assert _share([one.low <= ratio <= one.high for one in found]) > 0.95


@pytest.mark.parametrize(("ratio", "says"), [(1.1, Verdict.FASTER), (1 / 1.1, Verdict.SLOWER)])
def test_ten_percent_are_found_in_one_launch(ratio: float, says: Verdict) -> None:
    random = np.random.default_rng(3)
    assert _share([speedup(_rounds(random, ratio)).verdict == says for _ in range(TRIALS)]) > 0.95


@pytest.mark.parametrize("launches", [2, 3, 5])
@pytest.mark.parametrize("layout", [0.0, 0.01, 0.03], ids=lambda size: f"layout-{size:.0%}")
def test_a_shift_of_whole_launches_is_no_speedup(launches: int, layout: float) -> None:
    random = np.random.default_rng(4)
    same = []
    for _ in range(TRIALS):
        shifts = np.exp(random.normal(0, layout, launches))
        same.append(speedup(*(_rounds(random, shift, noise=0.01) for shift in shifts)).verdict == Verdict.SAME)
    assert 0.91 < _share(same) < 0.99


def test_ten_percent_are_found_over_three_launches() -> None:
    random = np.random.default_rng(5)
    found = [speedup(*(_rounds(random, 1.1 * np.exp(random.normal(0, 0.005))) for _ in range(3))) for _ in range(100)]
    assert _share([one.verdict == Verdict.FASTER for one in found]) > 0.9


def test_launches_count_alike_however_many_rounds_they_have() -> None:
    one = speedup([1.0] * 90, [4.0] * 10)
    assert one.ratio == pytest.approx(2.0)
    assert one.low < 1 < 4 < one.high
    assert one.launches == ((1.0,) * 90, (4.0,) * 10)


def test_the_same_rounds_give_the_same_interval() -> None:
    rounds = _rounds(np.random.default_rng(6))
    assert speedup(rounds) == speedup(rounds)
    assert speedup(rounds).ratio == pytest.approx(np.median(rounds))
    assert speedup(rounds[::-1], seed=1).low == pytest.approx(speedup(rounds).low, rel=0.01)


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (1.0001, 1.2, "faster"),
        (1.0, 1.2, "no significant difference"),
        (0.9, 1.1, "no significant difference"),
        (0.9, 1.0, "no significant difference"),
        (0.8, 0.9999, "slower"),
    ],
)
def test_only_an_interval_beside_one_is_a_verdict(low: float, high: float, says: str) -> None:
    assert verdict(low, high) == says


def test_a_speedup_prints_its_interval() -> None:
    assert str(Speedup(1.234, 1.1, 1.3, Verdict.FASTER)) == "1.23x [1.10, 1.30] faster"


def test_percentiles_interpolate() -> None:
    assert [percentile([4.0, 1.0, 3.0, 2.0], p) for p in (0, 50, 90, 100)] == pytest.approx([1, 2.5, 3.7, 4])


def test_the_median_of_one_value_has_no_width() -> None:
    assert bootstrap_median([0.5]) == (0.5, 0.5)


def test_a_ratio_and_its_inverse_average_to_one() -> None:
    assert geometric_mean([4.0, 0.25]) == pytest.approx(1.0)
    assert geometric_mean([2.0, 8.0]) == pytest.approx(4.0)
