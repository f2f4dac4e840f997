"""The exchange format: a folder of ``.npz`` files, one a sample, arrays named as the model's inputs."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from glob import glob
from pathlib import Path
from typing import ClassVar

import numpy as np

from onnxopt.data.sample import LABEL, Array, Sample, Samples
from onnxopt.data.source import Source, need
from onnxopt.errors import DataError
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
        pattern = str(place / "*.npz") if place.is_dir() else str(place)
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
        sha = hashlib.sha256()
        for path in self.paths:
            sha.update(hashlib.sha256(path.read_bytes()).digest())
        return sha.hexdigest()

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
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        reason = "it holds Python objects" if "allow_pickle" in str(error) else str(error)
        raise DataError(
            f"cannot read the sample: {reason}", where=str(path), hint="write it with numpy.savez"
        ) from error


def write_samples(samples: Iterable[Sample], folder: Path) -> int:
    """Write samples in the exchange format as ``00000.npz``, ``00001.npz``, …; return how many.

    Raises:
        OutputError: The folder cannot be written; no sample is left half-written.
    """
    count = 0
    with replaced_files(folder) as scratch:
        for count, sample in enumerate(samples, start=1):
            arrays = {**sample.feeds, **({} if sample.label is None else {LABEL: sample.label})}
            np.savez(scratch / f"{count - 1:05d}.npz", **arrays)  # type: ignore[arg-type]
    return count
