"""The exchange format: what is read, what is refused, and that nothing in it ever runs."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxopt.data.files import Files, read_arrays, write_samples
from onnxopt.data.sample import Sample, Samples
from onnxopt.errors import DataError, OutputError
from onnxopt.ir.model import Model
from tests.graphs import Array, mlp, samples

MODEL: Model = mlp()


def _open(folder: Path, **options: object) -> Samples:
    return Files(files=str(folder), **options).open(MODEL, Path())  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_samples(samples(MODEL, 4, labels=True), tmp_path / "data")
    return tmp_path / "data"


def test_what_was_written_is_read(folder: Path) -> None:
    read, written = _open(folder), samples(MODEL, 4, labels=True)

    assert sorted(path.name for path in folder.iterdir()) == ["00000.npz", "00001.npz", "00002.npz", "00003.npz"]
    assert [sample.name for sample in read] == [str(folder / f"0000{index}.npz") for index in range(4)]
    for one, other in zip(read, written, strict=True):
        assert one.digest() == other.digest()
        np.testing.assert_array_equal(one.label, other.label)


def test_samples_without_labels(tmp_path: Path) -> None:
    assert write_samples(samples(MODEL, 2), tmp_path) == 2
    assert [sample.label for sample in _open(tmp_path)] == [None, None]


@pytest.mark.parametrize("name", ["file", "allow_pickle", "a/b:0", "label_2", "x.npy", "ü"])
def test_inputs_of_any_name(tmp_path: Path, name: str) -> None:
    write_samples([Sample("a", {name: np.arange(3)})], tmp_path)

    assert read_arrays(tmp_path / "00000.npz")[name].tolist() == [0, 1, 2]


def test_texts_are_written_without_pickles(tmp_path: Path) -> None:
    write_samples([Sample("a", {"x": np.array(["ab", "c"], object), "y": np.array([b"d"], object)})], tmp_path)

    read = read_arrays(tmp_path / "00000.npz")
    assert (read["x"].tolist(), read["y"].tolist()) == (["ab", "c"], [b"d"])


def test_other_objects_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="input 'x' holds Python objects") as caught:
        write_samples([Sample("a", {"x": np.array([{}, set()], object)})], tmp_path)
    assert caught.value.where == "a"
    assert list(tmp_path.iterdir()) == []


def test_patterns_and_limits(folder: Path) -> None:
    assert [sample.name[-9:] for sample in _open(folder / "0000[13].npz")] == ["00001.npz", "00003.npz"]
    assert len(_open(folder, limit=3)) == 3
    assert len(Files(files="data/*2.npz").open(MODEL, folder.parent)) == 1


@pytest.mark.parametrize("name", ["odd [1] name*", "über ordner"])
def test_folders_of_any_name(tmp_path: Path, name: str) -> None:
    write_samples(samples(MODEL, 2), tmp_path / name)

    assert len(_open(tmp_path / name)) == 2


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        _open(tmp_path)
    assert caught.value.what == f"no .npz file matches {tmp_path}/*.npz"
    assert caught.value.hint == "one file a sample, arrays named as inputs"


def test_samples_are_read_when_they_are_asked_for(folder: Path) -> None:
    (folder / "00001.npz").write_bytes(b"damaged")
    read = _open(folder)

    assert read[0].feeds["x"].shape == (2, 8)
    with pytest.raises(DataError):
        read[1]


# Fingerprint


def test_fingerprint_follows_content_only(folder: Path, tmp_path: Path) -> None:
    first = _open(folder).fingerprint
    moved = folder.rename(tmp_path / "moved")
    for path in moved.iterdir():
        os.utime(path, (1, 1))

    assert _open(moved).fingerprint == first
    assert _open(moved, limit=3).fingerprint != first
    content = bytearray((moved / "00002.npz").read_bytes())
    content[200] ^= 1
    (moved / "00002.npz").write_bytes(bytes(content))
    assert _open(moved).fingerprint != first


# Hostile and damaged files


class _Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def _as_object_array(payload: _Payload) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, x=np.array([payload], dtype=object))
    return stream.getvalue()


def _as_npy(payload: _Payload) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([payload], dtype=object), allow_pickle=True)
    return stream.getvalue()


def _as_zip_of_pickle(payload: _Payload) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("x.npy", pickle.dumps(payload))
    return stream.getvalue()


@pytest.mark.parametrize("pack", [_as_object_array, _as_npy, pickle.dumps, _as_zip_of_pickle])
def test_nothing_is_ever_unpickled(tmp_path: Path, pack: Callable[[_Payload], bytes]) -> None:
    bait, trace = tmp_path / "bait.npz", tmp_path / "trace"
    bait.write_bytes(pack(_Payload(trace)))

    with pytest.raises(DataError):
        read_arrays(bait)
    assert not trace.exists()


def test_the_payload_would_have_worked(tmp_path: Path) -> None:
    bait, trace = tmp_path / "bait.npz", tmp_path / "trace"
    bait.write_bytes(_as_object_array(_Payload(trace)))

    with np.load(bait, allow_pickle=True) as archive:
        archive["x"]
    assert trace.exists()


def test_python_objects_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(_as_object_array(_Payload(tmp_path)))

    with pytest.raises(DataError) as caught:
        read_arrays(tmp_path / "a.npz")
    assert caught.value.what == "cannot read the sample: it holds Python objects"
    assert caught.value.where == str(tmp_path / "a.npz")
    assert caught.value.hint == "write it with numpy.savez"


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", b"\x93NUMPY\x01\x00"])
def test_what_is_no_npz(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)

    with pytest.raises(DataError, match=r"cannot read the sample: ."):
        read_arrays(tmp_path / "a.npz")


def test_a_zip_of_something_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("notes.txt", "hello")

    with pytest.raises(DataError, match=r"cannot read the sample: 'notes.txt' is no array"):
        read_arrays(tmp_path / "a.npz")


def test_an_npy_by_another_name(tmp_path: Path) -> None:
    with (tmp_path / "a.npz").open("wb") as handle:
        np.save(handle, np.ones(3))

    with pytest.raises(DataError, match="cannot read the sample"):
        read_arrays(tmp_path / "a.npz")


def _packed(save: Callable[..., None]) -> bytes:
    stream = io.BytesIO()
    save(stream, x=np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32), label=np.array(3))
    return stream.getvalue()


def _attempt(path: Path) -> dict[str, Array] | DataError:
    try:
        return read_arrays(path)
    except DataError as error:
        return error


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    whole=st.sampled_from([_packed(np.savez), _packed(np.savez_compressed)]),
    flips=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 2000),
)
def test_damaged_files_are_refused_or_read(
    whole: bytes, flips: list[tuple[int, int]], cut: int, tmp_path: Path
) -> None:
    content = bytearray(whole)
    for place, byte in flips:
        content[place % len(content)] = byte
    path = tmp_path / "a.npz"
    path.write_bytes(bytes(content[: cut or None]))

    result = _attempt(path)
    if isinstance(result, DataError):
        assert result.where == str(path)
    else:
        assert all(array.dtype != object for array in result.values())


def test_writing_fails_whole(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")

    with pytest.raises(OutputError, match="cannot write in"):
        write_samples(samples(MODEL, 2), tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "a file"


def test_a_source_that_fails_leaves_no_files(tmp_path: Path) -> None:
    def two_then_none() -> object:
        yield Sample("a", {"x": np.ones(1)})
        raise DataError("gone")

    with pytest.raises(DataError, match="gone"):
        write_samples(two_then_none(), tmp_path / "out")  # type: ignore[arg-type]
    assert list((tmp_path / "out").iterdir()) == []
