"""How far one output may move: in its own spread, by what rounding explains, and never past a NaN."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from onnxopt.evaluate.tolerance import CEILING, FLOORS, OutputCheck, check_output


@pytest.fixture
def probes() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.standard_normal((2, 50)).astype(np.float32) for _ in range(3)]


def _moved(arrays: Sequence[np.ndarray], by: float, probe: int = 1) -> list[np.ndarray]:
    """Move one value of one probe by a share of that probe's standard deviation."""
    moved = [array.copy() for array in arrays]
    moved[probe].flat[7] += by * float(moved[probe].std())
    return moved


@pytest.mark.parametrize("scale", [1e-7, 1.0, 1e6])
@pytest.mark.parametrize(("by", "passed"), [(2e-5, True), (1e-4, False), (1.0, False)])
def test_one_value_that_moved_is_seen(probes: list[np.ndarray], scale: float, by: float, passed: bool) -> None:
    before = [array * np.float32(scale) for array in probes]
    found = check_output("y", before, before, _moved(before, by))
    assert found.passed is passed
    assert found.error == pytest.approx(by, rel=0.05, abs=1e-6)
    assert (found.worst, found.informative, found.tolerance) == (1, (0, 1, 2), FLOORS["float32"])


def _all_moved(probes: list[np.ndarray], by: float) -> list[np.ndarray]:
    for index in range(len(probes)):
        probes = _moved(probes, by, probe=index)
    return probes


def test_what_the_runtime_moves_a_change_may_move_tenfold(probes: list[np.ndarray]) -> None:
    noisy = _all_moved(probes, 1e-3)
    assert check_output("y", probes, noisy, _moved(probes, 9e-3, probe=2)).passed
    assert not check_output("y", probes, noisy, _moved(probes, 2e-2, probe=2)).passed


def test_what_one_probe_may_move_another_may_not(probes: list[np.ndarray]) -> None:
    noisy = _moved(probes, 4e-3, probe=0)
    assert check_output("y", probes, noisy, _moved(probes, 3e-2, probe=0)).passed
    found = check_output("y", probes, noisy, _moved(_moved(probes, 3e-2, probe=0), 1e-3, probe=2))
    assert (found.passed, found.worst, found.tolerance) == (False, 2, FLOORS["float32"])


def test_a_probe_of_noise_is_not_informative_and_does_not_widen_the_tolerance(probes: list[np.ndarray]) -> None:
    noisy = _moved(probes, 0.2, probe=0)
    found = check_output("y", probes, noisy, _moved(probes, 0.3, probe=0))
    assert found.passed
    assert (found.informative, found.tolerance) == ((1, 2), FLOORS["float32"])
    assert not check_output("y", probes, noisy, _moved(probes, 0.3, probe=2)).passed


def test_the_tolerance_has_a_ceiling(probes: list[np.ndarray]) -> None:
    assert check_output("y", probes, _all_moved(probes, 0.04), probes).tolerance == CEILING


def test_single_numbers_are_held_against_their_spread_over_probes() -> None:
    before = [np.array([value], np.float32) for value in (1.0, 2.0, 4.0)]
    spread = float(np.std([1.0, 2.0, 4.0]))
    found = check_output("y", before, before, [*before[:2], before[2] + np.float32(0.01)])
    assert found.error == pytest.approx(0.01 / spread, rel=1e-3)
    assert not found.passed


@pytest.mark.parametrize(
    ("reference", "value"),
    [
        ([1.0, 2.0], [1.0, math.nan]),
        ([1.0, math.nan], [1.0, 2.0]),
        ([1.0, math.inf], [1.0, -math.inf]),
        ([1.0, 2.0], [1.0, math.inf]),
        ([1.0, 2.0], [[1.0, 2.0]]),
        ([1.0, 2.0], [1.0, 2.0, 3.0]),
        ([1.0, 2.0], None),
    ],
)
def test_what_no_tolerance_covers(reference: list[float], value: list[float] | None) -> None:
    before = [np.array(reference), np.array([5.0, 6.0])]
    after = [None if value is None else np.array(value), before[1]]
    found = check_output("y", before, before, after)
    assert found.error == math.inf
    assert (found.worst, found.passed) == (0, False)


def test_another_dtype_is_no_rounding() -> None:
    before = [np.array([1.0, 2.0], np.float32)]
    assert check_output("y", before, before, [before[0].astype(np.float64)]).error == math.inf


def test_nan_and_infinity_in_the_same_places_pass() -> None:
    before = [np.array([1.0, 2.0, math.nan, math.inf, -math.inf])]
    assert check_output("y", before, before, [before[0].copy()]).passed


@pytest.mark.parametrize(
    "arrays",
    [
        [np.zeros(4), np.zeros(4)],
        [np.full(4, 3.0), np.full(4, 3.0)],
        [np.full(4, math.nan), np.full(4, math.inf)],
        [np.zeros(0), np.zeros((0, 3)).reshape(0)],
        [np.array([2, 2]), np.array([2])],
        [np.array([True]), np.array([True])],
        [np.array(["a"], object), np.array(["a"], object)],
    ],
    ids=["zeros", "constant", "nonfinite", "empty", "integers", "bools", "strings"],
)
def test_an_output_that_never_varies_is_not_informative(arrays: list[np.ndarray]) -> None:
    assert check_output("y", arrays, arrays, arrays).informative == ()


@pytest.mark.parametrize(
    ("value", "share"), [([1, 2, 3, 4], 0.0), ([1, 2, 3, 9], 0.25), ([9, 9, 9, 9], 1.0)], ids=["same", "one", "all"]
)
def test_integers_may_not_move_at_all(value: list[int], share: float) -> None:
    before = [np.array([1, 2, 3, 4])]
    found = check_output("y", before, before, [np.array(value)])
    assert (found.error, found.passed) == (share, share == 0.0)


def test_a_check_passes_up_to_its_tolerance() -> None:
    assert [OutputCheck("y", error, 0.01, (0,), 0).passed for error in (0.01, 0.011, math.nan)] == [True, False, False]
