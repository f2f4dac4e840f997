"""One file whose first axis is the sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxopt.data.sample import Samples
from onnxopt.data.stacked import Stacked
from onnxopt.errors import DataError
from tests.graphs import Array, from_text, mlp

ROWS = np.arange(40, dtype=np.float32).reshape(5, 8)
TWO = from_text(
    '<ir_version: 8, opset_import: ["" : 17]> g (float[n] a, float[n] b) => (float[n] y) { y = Add (a, b) }'
)


def _npz(folder: Path, **arrays: Array) -> Path:
    np.savez(folder / "all.npz", **arrays)  # type: ignore[arg-type]
    return folder / "all.npz"


def _open(path: Path, **options: Any) -> Samples:
    return Stacked(stacked=path.name, **options).open(mlp(), path.parent)


def test_each_row_is_a_batch_of_one(tmp_path: Path) -> None:
    read = _open(_npz(tmp_path, x=ROWS, label=np.array([4, 3, 2, 1, 0])))

    assert [sample.feeds["x"].tolist() for sample in read] == [[row] for row in ROWS.tolist()]
    assert [sample.label.tolist() for sample in read if sample.label is not None] == [4, 3, 2, 1, 0]
    assert read[3].name == "all.npz[3]"


def test_whole_batches_only(tmp_path: Path) -> None:
    read = _open(_npz(tmp_path, x=ROWS, label=np.arange(5)), batch=2)

    assert [sample.feeds["x"].shape for sample in read] == [(2, 8), (2, 8)]
    assert [sample.label.tolist() for sample in read if sample.label is not None] == [[0, 1], [2, 3]]


def test_fewer_rows_than_a_batch_are_one_sample(tmp_path: Path) -> None:
    assert [sample.feeds["x"].shape for sample in _open(_npz(tmp_path, x=ROWS), batch=8)] == [(5, 8)]


def test_limit_counts_rows(tmp_path: Path) -> None:
    path = _npz(tmp_path, x=ROWS)

    assert len(_open(path, limit=3)) == 3
    assert len(_open(path, limit=4, batch=2)) == 2
    assert len(_open(path, limit=99)) == 5


def test_an_npy_feeds_the_only_input(tmp_path: Path) -> None:
    np.save(tmp_path / "all.npy", ROWS)

    assert _open(tmp_path / "all.npy")[4].feeds["x"].tolist() == [ROWS[4].tolist()]


def test_an_npy_does_not_feed_two_inputs(tmp_path: Path) -> None:
    np.save(tmp_path / "all.npy", ROWS)

    with pytest.raises(DataError) as caught:
        Stacked(stacked="all.npy").open(TWO, tmp_path)
    assert caught.value.what == "an .npy holds one array, the model has inputs ['a', 'b']"
    assert caught.value.hint == "use an .npz"


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({"x": ROWS, "label": np.arange(4)}, "arrays differ in length: {'x': 5, 'label': 4}"),
        ({"x": ROWS, "label": np.array(1)}, "arrays differ in length: {'x': 5, 'label': 0}"),
        ({"x": ROWS[:0]}, "there are no samples"),
        ({}, "the file holds no arrays"),
    ],
)
def test_wrong_lengths(tmp_path: Path, arrays: dict[str, Array], what: str) -> None:
    with pytest.raises(DataError) as caught:
        _open(_npz(tmp_path, **arrays))
    assert caught.value.what == what


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file .*all\.npz"):
        _open(tmp_path / "all.npz")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x93NUMPY\x01\x00"])
def test_a_damaged_npy(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "all.npy").write_bytes(content)

    with pytest.raises(DataError, match="cannot read the array: ") as caught:
        _open(tmp_path / "all.npy")
    assert caught.value.where == str(tmp_path / "all.npy")


def test_an_npy_of_objects_is_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "all.npy", np.array([{}], object), allow_pickle=True)

    with pytest.raises(DataError, match=r"cannot read the array: .*allow_pickle"):
        _open(tmp_path / "all.npy")


def test_fingerprint_follows_content_only(tmp_path: Path) -> None:
    (tmp_path / "moved").mkdir()
    first = _open(_npz(tmp_path, x=ROWS)).fingerprint

    assert _open(_npz(tmp_path / "moved", x=ROWS)).fingerprint == first
    assert _open(_npz(tmp_path, x=ROWS + np.float32(1e-6))).fingerprint != first
    assert _open(_npz(tmp_path, x=ROWS, label=np.arange(5))).fingerprint != first
