"""The exchange format: a folder of ``.npz`` files, one a sample, arrays named as the model's inputs."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from glob import escape, glob
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from onnxopt.data.sample import LABEL, Array, Sample, Samples, files_fingerprint
from onnxopt.data.source import Source, need
from onnxopt.errors import DataError, OutputError
from onnxopt.ir.model import Model
from onnxopt.ir.write import replaced_files
from onnxopt.options import option, options


@options
class Files(Source):
    """One ``.npz`` file a sample; shapes may vary between samples; an array ``label`` is the ground truth."""

    name: ClassVar[str] = "files"

    files: str = option("a folder, or a pattern such as samples/*.npz")
    limit: int | None = option("use only the first so many, in order of name", default=None, ge=1)

    def open(self, model: Model, base: Path) -> Samples:
        """Return the samples in order of file name."""
        place = base / self.files
        pattern = str(Path(escape(str(place))) / "*.npz") if place.is_dir() else str(place)
        found = tuple(Path(name) for name in sorted(glob(pattern)))  # noqa: PTH207  (the pattern may be absolute)
        need(bool(found), f"no .npz file matches {pattern}", self.files, "one file a sample, arrays named as inputs")
        return SampleFiles(found[: self.limit])


@dataclass(frozen=True, eq=False)
class SampleFiles(Samples):
    """Samples read from one file each when they are asked for."""

    paths: tuple[Path, ...]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the files' bytes, in order."""
        return files_fingerprint(self.paths)

    def read(self, index: int) -> Sample:
        """Read one file."""
        arrays = read_arrays(self.paths[index])
        label = arrays.pop(LABEL, None)
        return Sample(str(self.paths[index]), arrays, label)

    def __len__(self) -> int:
        return len(self.paths)


def read_arrays(path: Path) -> dict[str, Array]:
    """Return the arrays of an ``.npz`` file.

    Raises:
        DataError: It is no such file, is damaged, or holds Python objects, which are never unpickled.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: _array(archive, name) for name in archive.files}
    except Exception as error:  # numpy, zipfile and zlib raise what they like at a damaged file
        reason = "it holds Python objects" if "allow_pickle" in str(error) else str(error)
        raise DataError(
            f"cannot read the sample: {reason}", where=str(path), hint="write it with numpy.savez"
        ) from error


def _array(archive: Mapping[str, Any], name: str) -> Array:
    """Return an array of the archive; numpy hands out a member that is none as bytes."""
    array = archive[name]
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name!r} is no array")
    return array


def write_samples(samples: Iterable[Sample], folder: Path) -> int:
    """Write samples in the exchange format as ``00000.npz``, ``00001.npz``, …; return how many.

    Raises:
        OutputError: The folder holds samples, or cannot be written; no sample is left half-written.
        DataError: An array holds Python objects that are no texts.
    """
    if any(folder.glob("*.npz")):
        raise OutputError(f"{folder} holds samples already", hint="choose another --out folder, or empty that one")
    count = 0
    with replaced_files(folder) as scratch:
        for count, sample in enumerate(samples, start=1):
            arrays = {**sample.feeds, **({} if sample.label is None else {LABEL: sample.label})}
            stored = {name: _without_objects(name, array, sample) for name, array in arrays.items()}
            _write_arrays(stored, scratch / f"{count - 1:05d}.npz")
    return count


def _write_arrays(arrays: Mapping[str, Array], path: Path) -> None:
    """Write an ``.npz``; ``numpy.savez`` takes no array called ``file``, and pickles objects."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _without_objects(name: str, array: Array, sample: Sample) -> Array:
    """Return an array of texts that are Python objects as one of numpy's own texts; any other as it is."""
    plain = np.array(array.tolist()) if array.dtype == object else array
    need(plain.dtype != object, f"input {name!r} holds Python objects", sample.name, "give numbers or texts")
    return plain
