"""Outputs kept on disk, one file a sample, so that memory does not grow with the number of samples."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxopt.compile.engine import Array, Results
from onnxopt.data.files import read_arrays


@dataclass(frozen=True, slots=True)
class OutputStore:
    """A folder of ``.npz`` files with the outputs of one model on some samples, in order."""

    folder: Path

    def write(self, index: int, outputs: Results) -> None:
        """Keep the tensors among the outputs of sample ``index``, strings too; sequences and maps are left out.

        ``numpy.savez`` cannot keep an output called ``file``, and pickles strings.
        """
        with zipfile.ZipFile(self._path(index), "w") as archive:
            for name, array in outputs.items():
                if isinstance(array, np.ndarray):
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, _without_objects(array), allow_pickle=False)

    def read(self, index: int) -> Results:
        """Return the outputs of sample ``index``."""
        return read_arrays(self._path(index))

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:06d}.npz"


def _without_objects(array: Array) -> Array:
    return array.astype(np.str_) if array.dtype == object else array
