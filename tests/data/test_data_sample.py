"""Samples as a sequence, and fingerprints that follow the content and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from onnxopt.data.sample import InMemory, Sample, files_fingerprint
from tests.graphs import Array, mlp, samples


def _sample(value: Array, label: Array | None = None, name: str = "x") -> Sample:
    return Sample("somewhere", {name: value}, label)


BASE = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize(
    "other",
    [
        _sample(BASE + np.float32(1e-6)),
        _sample(BASE.astype(np.float64)),
        _sample(BASE.reshape(3, 2)),
        _sample(BASE, name="y"),
        Sample("somewhere", {"x": BASE, "y": BASE}),
    ],
)
def test_digest_follows_names_types_shapes_and_content(other: Sample) -> None:
    assert other.digest() != _sample(BASE).digest()


def test_digest_leaves_out_name_layout_and_label() -> None:
    same = Sample("elsewhere", {"x": np.asfortranarray(BASE)}, np.array(3))

    assert same.digest() == _sample(BASE).digest()


def test_digest_of_objects_follows_their_content() -> None:
    def digest(*words: str) -> str:
        return _sample(np.array(["".join(word) for word in words], object)).digest()

    assert digest("ab", "cd") == digest("ab", "cd")
    assert digest("ab", "cd") != digest("ab", "ce")


def test_fingerprint_counts_labels_order_and_code() -> None:
    one, two = _sample(BASE, np.array(1)), _sample(BASE + 1, np.array(2))
    variants = [
        InMemory((one, two)),
        InMemory((two, one)),
        InMemory((one,)),
        InMemory((one, _sample(BASE + 1, np.array(3)))),
        InMemory((one, _sample(BASE + 1))),
        InMemory((one, two), code="f"),
    ]

    assert len({variant.fingerprint for variant in variants}) == len(variants)
    assert InMemory((one, two)).fingerprint == variants[0].fingerprint


def test_samples_are_a_sequence() -> None:
    many = samples(mlp(), 5)

    assert many[-1].name == "sample 4"
    assert [sample.name for sample in many[1:4:2]] == ["sample 1", "sample 3"]
    assert [sample.name for sample in many[::-1][:2]] == ["sample 4", "sample 3"]
    assert len(list(many)) == len(many) == 5
    for index in (5, -6):
        with pytest.raises(IndexError):
            many[index]


def test_a_subset_has_its_own_fingerprint() -> None:
    many = samples(mlp(), 5)

    assert many[:2].fingerprint == many[0:2].fingerprint
    assert len({many[:2].fingerprint, many[1:3].fingerprint, many[:].fingerprint, many.fingerprint}) == 4


def test_a_subset_of_made_up_samples_is_made_up() -> None:
    assert not samples(mlp(), 3)[:2].synthetic
    assert InMemory(samples(mlp(), 3).samples, made_up=True)[:2].synthetic


@pytest.fixture
def two_files(tmp_path: Path) -> list[Path]:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode() * 100)
    return [tmp_path / "a", tmp_path / "b"]


def test_files_fingerprint_leaves_out_path_and_date(two_files: list[Path], tmp_path: Path) -> None:
    first = files_fingerprint(two_files)
    moved = [path.rename(tmp_path / f"{path.name}-moved") for path in two_files]
    for path in moved:
        os.utime(path, (1, 1))

    assert files_fingerprint(moved) == first


@pytest.mark.parametrize(
    "change",
    [
        lambda paths: files_fingerprint(paths[::-1]),
        lambda paths: files_fingerprint(paths[:1]),
        lambda paths: files_fingerprint(paths, how={"resize": 8}),
        lambda paths: files_fingerprint(paths, [np.array(0.1), np.array(0.2)]),
        lambda paths: files_fingerprint(paths, [np.array(0.1), np.array(0.2 + 1e-12)]),
    ],
)
def test_files_fingerprint_counts_all_else(two_files: list[Path], change: Callable[[list[Path]], str]) -> None:
    others = [files_fingerprint(two_files), files_fingerprint(two_files, [np.array(0.1), np.array(0.3)])]

    assert change(two_files) not in others


def test_files_fingerprint_counts_one_byte(two_files: list[Path]) -> None:
    first = files_fingerprint(two_files)
    content = bytearray(two_files[1].read_bytes())
    content[50] ^= 1
    two_files[1].write_bytes(bytes(content))

    assert files_fingerprint(two_files) != first
