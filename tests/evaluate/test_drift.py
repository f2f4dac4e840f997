"""Drift in figures worked out by hand, whatever the outputs' size, offset or type."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from onnxopt.errors import VerificationError
from onnxopt.evaluate.drift import (
    EXACT_DB,
    DriftMeter,
    OutputDrift,
    compare_outputs,
    decision_axis,
    is_constant,
    merged,
)


def _drift(*pairs: tuple[Any, Any]) -> OutputDrift:
    found = compare_outputs([({"y": np.asarray(a)}, {"y": np.asarray(b)}) for a, b in pairs])
    assert [output.name for output in found.outputs] == ["y"]
    return found.outputs[0]


@pytest.fixture
def signal() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((50, 20)).astype(np.float32)


@pytest.fixture
def noisy(signal: np.ndarray) -> np.ndarray:
    return signal + 0.01 * np.random.default_rng(1).standard_normal(signal.shape).astype(np.float32)


def test_the_figures_of_a_small_example() -> None:
    found = _drift(([[1.0, 3.0], [5.0, 7.0]], [[1.0, 3.0], [5.0, 5.0]]), ([[2.0, 0.0]], [[0.0, 2.0]]))
    reference, value = np.array([1, 3, 5, 7, 2, 0.0]), np.array([1, 3, 5, 5, 0, 2.0])
    assert found.sqnr_db == pytest.approx(10 * math.log10(reference.var() * 6 / 12))
    assert found.max_error == pytest.approx(2 / reference.std())
    assert found.cosine == pytest.approx(reference @ value / np.linalg.norm(reference) / np.linalg.norm(value))
    assert found.agreement == pytest.approx(1 / 3)
    assert (found.nonfinite, found.constant, found.elements) == (0, False, 6)


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1.0, 1e8])
def test_tiny_outputs_count_as_much_as_large_ones(signal: np.ndarray, noisy: np.ndarray, scale: float) -> None:
    found = _drift((signal.astype(np.float64) * scale, noisy.astype(np.float64) * scale))
    plain = _drift((signal, noisy))
    assert found.sqnr_db == pytest.approx(40, abs=0.3)
    assert found.sqnr_db == pytest.approx(plain.sqnr_db, abs=1e-6)
    assert found.max_error == pytest.approx(plain.max_error)
    assert found.agreement == plain.agreement


@pytest.mark.parametrize("offset", [-300.0, 1000.0])
def test_an_offset_hides_no_error(signal: np.ndarray, noisy: np.ndarray, offset: float) -> None:
    found = _drift((signal + np.float32(offset), noisy + np.float32(offset)))
    assert found.sqnr_db == pytest.approx(40, abs=0.3)
    assert found.cosine == pytest.approx(1.0, abs=1e-6)


def test_equal_outputs_are_exact(signal: np.ndarray) -> None:
    found = _drift((signal, signal.copy()))
    assert (found.sqnr_db, found.max_error, found.agreement) == (EXACT_DB, 0.0, 1.0)


def test_a_reference_without_signal_is_constant_and_any_error_infinite() -> None:
    found = _drift(([[2.0, 2.0]], [[2.0, 2.5]]))
    assert (found.constant, found.sqnr_db, found.max_error) == (True, -EXACT_DB, math.inf)
    assert compare_outputs([({"y": np.ones(3)}, {"y": np.ones(3)})]).sqnr_db is None


def test_a_value_that_is_nonfinite_on_one_side_is_counted_and_left_out() -> None:
    nan, inf = math.nan, math.inf
    found = _drift(([1.0, nan, inf, 4.0, nan, inf], [1.0, nan, inf, nan, 5.0, 2.0]))
    assert (found.nonfinite, found.elements) == (3, 1)


@pytest.mark.parametrize(
    ("reference", "value", "share"),
    [
        (np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5]), 0.75),
        (np.array([[True, False]]), np.array([[True, True]]), 0.5),
        (np.array(["a", "b", "c"], dtype=object), np.array(["a", "b", "x"], dtype=object), 2 / 3),
        (np.array(["a", "b"]), np.array(["a", "b"], dtype=object), 1.0),
        (np.array(7), np.array(7), 1.0),
    ],
    ids=["ints", "bools", "strings", "stored-strings", "rank-0"],
)
def test_values_that_are_no_floats_agree_or_not(reference: np.ndarray, value: np.ndarray, share: float) -> None:
    found = _drift((reference, value))
    assert (found.sqnr_db, found.max_error, found.cosine) == (None, None, None)
    assert found.agreement == pytest.approx(share)
    assert found.elements == reference.size


def test_integers_are_constant_only_if_no_sample_differs() -> None:
    assert _drift(([1, 2], [1, 2]), ([1, 2], [3, 4])).constant
    assert not _drift(([1, 2], [1, 2]), ([1, 3], [1, 3])).constant


@pytest.mark.parametrize("name", ["float16", "float64", "bfloat16"])
def test_floats_of_any_width(name: str, signal: np.ndarray) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="gives numpy bfloat16")
    rounded = signal.astype(getattr(ml_dtypes, name, name))
    found = _drift((signal, rounded.astype(np.float32)), (rounded, rounded))
    decibels = {"float16": 75, "float64": EXACT_DB, "bfloat16": 53}[name]
    assert found.sqnr_db == pytest.approx(decibels, abs=6)


@pytest.mark.parametrize(
    ("shape", "axis"), [((), None), ((4,), None), ((4, 1), None), ((1, 5), 1), ((2, 5, 1, 1), 1), ((2, 3, 7), 2)]
)
def test_decisions_are_never_over_the_batch(shape: tuple[int, ...], axis: int | None) -> None:
    assert decision_axis(shape) == axis
    assert (_drift((np.ones(shape), np.ones(shape))).agreement is None) == (axis is None)


@pytest.mark.parametrize("bounds", [(0.0, 0.0), (5.0, 5.0), (1e-9, 1e-9), (-1e6, -1e6 + 0.5)])
def test_what_float32_cannot_tell_apart_is_constant(bounds: tuple[float, float]) -> None:
    assert is_constant(*bounds)
    assert not is_constant(bounds[0], bounds[0] + 1e-3 * abs(bounds[0]) + 1e-30)


def test_another_shape_and_a_missing_output_are_told() -> None:
    with pytest.raises(VerificationError, match=r"output 'y' has the shape \[1, 2\], it was \[2, 1\]"):
        _drift((np.ones((2, 1)), np.ones((1, 2))))
    with pytest.raises(VerificationError, match="output 'y' is missing\n  hint: there are: z, w"):
        compare_outputs([({"y": np.ones(1)}, {"z": np.ones(1), "w": np.ones(1)})])


def test_the_worst_output_speaks_for_all(signal: np.ndarray, noisy: np.ndarray) -> None:
    constant = np.ones(3, np.float32)
    found = compare_outputs(
        [({"exact": signal, "off": signal, "same": constant}, {"exact": signal, "off": noisy, "same": constant})]
    )
    off = next(output for output in found.outputs if output.name == "off")
    assert (found.sqnr_db, found.agreement) == (off.sqnr_db, off.agreement)
    assert compare_outputs([({"k": np.array([1])}, {"k": np.array([2])})]).sqnr_db is None


_VALUES = st.floats(-100, 100, width=32) | st.sampled_from([math.nan, math.inf])
_ARRAYS = arrays.arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 4)), elements=_VALUES)


@st.composite
def _pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    reference = draw(_ARRAYS)
    return reference, draw(arrays.arrays(np.float32, reference.shape, elements=_VALUES))


@given(st.lists(_pairs(), min_size=1, max_size=5), st.integers(0, 5))
def test_meters_merged_are_one_meter(pairs: list[tuple[np.ndarray, np.ndarray]], cut: int) -> None:
    whole, first, second = DriftMeter(), DriftMeter(), DriftMeter()
    for index, (reference, value) in enumerate(pairs):
        outputs = ({"y": reference, "k": reference > 0}, {"y": value, "k": value > 0})
        for meter in (whole, first if index < cut else second):
            meter.add(*outputs)
    for one, other in zip(merged([first, second]).outputs, whole.result().outputs, strict=True):
        assert (one.name, one.nonfinite, one.constant, one.elements) == (
            other.name,
            other.nonfinite,
            other.constant,
            other.elements,
        )
        assert (one.worst_part is None) == (other.worst_part is None)
        for have, want in zip(_figures(one), _figures(other), strict=True):
            assert have == want or have == pytest.approx(want, rel=1e-9, abs=1e-9)


def _figures(found: OutputDrift) -> tuple[float | None, ...]:
    return found.sqnr_db, found.max_error, found.cosine, found.agreement


@pytest.mark.parametrize(
    ("reference", "value", "count"),
    [
        ([np.inf, 1.0], [np.inf, 1.0], 0),
        ([np.nan, 1.0], [np.nan, 1.0], 0),
        ([np.inf, 1.0], [-np.inf, 1.0], 1),
        ([-np.inf, 1.0], [np.nan, 1.0], 1),
        ([np.inf, np.nan], [1.0, 1.0], 2),
    ],
)
def test_values_that_are_not_finite_are_compared_by_kind(reference: Any, value: Any, count: int) -> None:
    assert _drift((reference, value)).nonfinite == count


def test_a_lost_part_is_found_behind_large_values() -> None:
    """Boxes of hundreds and scores below one in one output, as of a detector; all scores become zero."""
    random = np.random.default_rng(0)
    outputs = [np.concatenate([640 * random.random((1, 4, 50)), random.random((1, 3, 50))], axis=1) for _ in range(4)]
    lost = [np.concatenate([array[:, :4], 0 * array[:, 4:]], axis=1) for array in outputs]
    found = _drift(*zip(outputs, lost, strict=True))
    assert found.sqnr_db > 40
    assert found.worst_part is not None
    assert (found.worst_part.axis, found.worst_part.sqnr_db < 0) == (1, True)
    assert found.worst_part.index in (4, 5, 6)


def test_parts_of_samples_that_differ_in_size_are_not_compared() -> None:
    pairs = [(np.ones((1, 3, 50)), np.ones((1, 3, 50))), (np.ones((1, 5, 50)), np.ones((1, 5, 50)))] * 2
    assert _drift(*pairs).worst_part is None


def test_noise_where_nothing_happens_is_no_lost_part() -> None:
    reference = np.zeros((4, 2, 50))
    reference[:, 0] = np.linspace(0, 1, 50)
    value = reference + 1e-4 * np.random.default_rng(0).standard_normal(reference.shape)
    assert _drift((reference, value)).worst_part.index == 0


@pytest.mark.parametrize(("scores", "decisive"), [([[0, 1], [0, 1]], False), ([[0, 1], [1, 0]], True)])
def test_a_reference_that_always_says_the_same_is_not_decisive(scores: Any, decisive: bool) -> None:
    scores = np.asarray(scores, dtype=np.float32)
    assert _drift((scores, scores)).decisive is decisive
