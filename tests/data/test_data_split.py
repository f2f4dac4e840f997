"""Calibration and evaluation never share a sample, and what does not fit the model is refused before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxopt.data.files import write_samples
from onnxopt.data.sample import InMemory, Sample, Samples
from onnxopt.data.split import (
    MAX_CALIBRATION,
    Split,
    check_sample,
    check_samples,
    checked_split,
    open_split,
    split,
    synthetic_split,
)
from onnxopt.errors import DataError, UsageError
from tests.graphs import Array, from_text, mlp, samples

MODEL = mlp()


def _sample(value: float, name: str = "", label: Array | None = None) -> Sample:
    return Sample(name or f"sample {value}", {"x": np.full((1, 8), value, np.float32)}, label)


def _many(values: list[int]) -> InMemory:
    return InMemory(tuple(_sample(value, f"{place}: {value}") for place, value in enumerate(values)))


def _digests(part: Samples) -> set[str]:
    return {sample.digest() for sample in part}


# Splitting


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 12), min_size=2, max_size=60).filter(lambda values: len(set(values)) > 1),
    st.integers(0, 1000),
    st.floats(0.05, 0.9),
)
def test_duplicates_never_cross(values: list[int], seed: int, share: float) -> None:
    parts = split(_many(values), seed=seed, share=share)

    names = [sample.name for part in (parts.calibration, parts.evaluation) for sample in part]
    assert sorted(names) == sorted(sample.name for sample in _many(values))
    assert _digests(parts.calibration).isdisjoint(_digests(parts.evaluation))
    assert len(parts.calibration) > 0
    assert len(parts.evaluation) > 0


def test_the_seed_decides() -> None:
    many = samples(MODEL, 20)
    first = split(many, seed=1)

    assert split(many, seed=1).calibration.fingerprint == first.calibration.fingerprint
    assert split(many, seed=1).evaluation.fingerprint == first.evaluation.fingerprint
    assert len({split(many, seed=seed).calibration.fingerprint for seed in range(5)}) > 3


@pytest.mark.parametrize(
    ("count", "share", "calibration"), [(10, 0.3, 3), (10, 0.01, 1), (2, 0.3, 1), (2, 0.9, 1), (3, 0.99, 2)]
)
def test_shares(count: int, share: float, calibration: int) -> None:
    parts = split(_many(list(range(count))), share=share)

    assert (len(parts.calibration), len(parts.evaluation)) == (calibration, count - calibration)


def test_calibration_is_bounded() -> None:
    parts = split(_many(list(range(1000))))

    assert (len(parts.calibration), len(parts.evaluation)) == (MAX_CALIBRATION, 1000 - MAX_CALIBRATION)


def test_order_is_kept() -> None:
    parts = split(_many(list(range(30))))

    for part in (parts.calibration, parts.evaluation):
        places = [int(sample.name.split(":")[0]) for sample in part]
        assert places == sorted(places)


@pytest.mark.parametrize(
    ("values", "what"), [([], "0 samples hold 0 different ones"), ([5, 5, 5], "3 samples hold 1 different ones")]
)
def test_too_few_different_samples(values: list[int], what: str) -> None:
    with pytest.raises(DataError, match=f"{what}; calibration and evaluation need one each") as caught:
        split(_many(values))
    assert caught.value.hint == "give more samples, or a folder with the subfolders calibration and evaluation"


# Checking


def test_overlap_is_refused() -> None:
    parts = Split(_many([1, 2, 3]), InMemory((_sample(9, "fine"), _sample(2, "twin"))))

    with pytest.raises(DataError) as caught:
        checked_split(parts, MODEL.signature)
    assert caught.value.what == "twin is also in the calibration part, as 1: 2"
    assert caught.value.hint == "a result judged by what it was tuned on proves nothing: remove one of the two"


def test_overlap_is_found_whatever_the_label() -> None:
    parts = Split(InMemory((_sample(1, label=np.array(1)),)), InMemory((_sample(1, label=np.array(2)),)))

    with pytest.raises(DataError, match="is also in the calibration part"):
        checked_split(parts, MODEL.signature)


@pytest.mark.parametrize("place", ["calibration", "evaluation"])
@pytest.mark.parametrize(
    ("feeds", "what"),
    [
        ({"y": np.zeros((1, 8), np.float32)}, "the model has no input 'y'"),
        ({}, "the sample has no array for input 'x: float32[batch,8]'"),
        ({"x": np.zeros((1, 8))}, "input 'x' is float32, the sample holds float64"),
        ({"x": np.zeros((1, 9), np.float32)}, "input 'x' has shape [batch,8], the sample [1,9]"),
        ({"x": np.zeros(8, np.float32)}, "input 'x' has shape [batch,8], the sample [8]"),
        ({"x": np.full((1, 8), np.nan, np.float32)}, "input 'x' has 8 NaN values"),
    ],
)
def test_samples_that_do_not_fit(place: str, feeds: dict[str, Array], what: str) -> None:
    whole, broken = _many([1, 2]), InMemory((_sample(3), Sample("the bad one", feeds)))
    parts = Split(broken, whole) if place == "calibration" else Split(whole, broken)

    with pytest.raises(DataError) as caught:
        checked_split(parts, MODEL.signature)
    assert caught.value.what == what
    assert caught.value.where == "the bad one"
    assert caught.value.hint


def test_one_nan_of_many_numbers() -> None:
    array = np.ones((2, 8), np.float32)
    array[1, 3] = np.nan

    with pytest.raises(DataError, match="input 'x' has 1 NaN values"):
        check_samples([_sample(1), Sample("b", {"x": array})], MODEL.signature)


def test_infinity_is_a_number() -> None:
    sample = Sample("a", {"x": np.full((1, 8), np.inf, np.float32)})

    assert check_sample(sample, MODEL.signature) is sample


def test_labels_of_some_samples_only() -> None:
    labelled = InMemory((_sample(1, label=np.array(1)), _sample(2), _sample(3, label=np.array(1)), _sample(4)))

    with pytest.raises(DataError) as caught:
        checked_split(Split(_many([9]), labelled), MODEL.signature)
    assert caught.value.what == "2 of 4 samples have no label"
    assert caught.value.where == "sample 2"
    assert caught.value.hint == "label all or none"


# Opening


def _folder(place: Path, **parts: list[int]) -> str:
    for name, values in parts.items():
        write_samples(_many(values), place / name)
    return str(place)


def test_parts_that_are_given_are_taken(tmp_path: Path) -> None:
    parts = open_split(_folder(tmp_path, calibration=[1, 2, 3], evaluation=[4, 5]), MODEL)

    assert [float(sample.feeds["x"][0, 0]) for sample in parts.calibration] == [1, 2, 3]
    assert [float(sample.feeds["x"][0, 0]) for sample in parts.evaluation] == [4, 5]


def test_parts_that_overlap_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        open_split(_folder(tmp_path, calibration=[1, 2, 3], evaluation=[4, 3]), MODEL)
    assert caught.value.what == (
        f"{tmp_path}/evaluation/00001.npz is also in the calibration part, as {tmp_path}/calibration/00002.npz"
    )


def test_a_part_that_is_empty(tmp_path: Path) -> None:
    (tmp_path / "calibration").mkdir()

    with pytest.raises(DataError, match=r"no \.npz file matches .*calibration"):
        open_split(_folder(tmp_path, evaluation=[1]), MODEL)


def test_one_part_alone_is_no_split(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has evaluation/ and not the other"):
        open_split(_folder(tmp_path, evaluation=[1, 2]), MODEL)


def test_anything_else_is_split(tmp_path: Path) -> None:
    write_samples(_many(list(range(10))), tmp_path / "data")

    parts = open_split(str(tmp_path / "data"), MODEL, seed=3)
    again = open_split(str(tmp_path / "data"), MODEL, seed=3)
    assert (len(parts.calibration), len(parts.evaluation)) == (3, 7)
    assert parts.evaluation.fingerprint == again.evaluation.fingerprint


def test_what_does_not_fit_is_refused_while_opening(tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", x=np.ones((5, 9), np.float32) * np.arange(5, dtype=np.float32)[:, None])

    with pytest.raises(DataError, match=r"input 'x' has shape \[batch,8\], the sample \[1,9\]"):
        open_split(str(tmp_path / "all.npz"), MODEL)


def test_made_up_parts_differ_and_say_so() -> None:
    parts = synthetic_split(MODEL, seed=4)
    again: Any = synthetic_split(MODEL, seed=4)

    assert parts.calibration.synthetic
    assert parts.evaluation.synthetic
    assert _digests(parts.calibration).isdisjoint(_digests(parts.evaluation))
    assert parts.evaluation.fingerprint == again.evaluation.fingerprint
    assert synthetic_split(MODEL, seed=5).evaluation.fingerprint != parts.evaluation.fingerprint


def test_made_up_samples_of_a_small_input_may_be_in_both_parts() -> None:
    model = from_text(
        """<ir_version: 8, opset_import: ["" : 17]> g (int64[n] ids) => (float[n, 4] y) { y = Gather (table, ids) }""",
        {"table": np.eye(4, dtype=np.float32)},
    )
    parts = synthetic_split(model)
    assert len(parts.calibration) == len(parts.evaluation) > 0
    assert {sample.digest() for sample in parts.calibration} & {sample.digest() for sample in parts.evaluation}
