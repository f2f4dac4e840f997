"""One ``.npz`` or ``.npy`` whose arrays hold all samples along their first axis."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from onnxopt.data.files import read_arrays
from onnxopt.data.sample import LABEL, Array, InMemory, Sample, Samples
from onnxopt.data.source import Source, need
from onnxopt.errors import DataError
from onnxopt.ir.model import Model
from onnxopt.options import option, options


@options
class Stacked(Source):
    """Samples stacked along the first axis; each becomes a batch of ``batch``."""

    name: ClassVar[str] = "stacked"

    stacked: str = option("an .npz with one array an input (and label), or an .npy for a model of one input")
    batch: int = option("samples fed at once", default=1, ge=1)
    limit: int | None = option("use only the first so many rows", default=None, ge=1)

    def open(self, model: Model, base: Path) -> Samples:
        """Return batches in order."""
        arrays = self._arrays(base / self.stacked, model)
        rows = self._rows(arrays)
        labels = arrays.pop(LABEL, None)
        starts = range(0, rows - rows % self.batch if rows >= self.batch else rows, self.batch)
        return InMemory(tuple(self._sample(arrays, labels, start) for start in starts))

    def _arrays(self, path: Path, model: Model) -> dict[str, Array]:
        need(path.is_file(), f"there is no file {path}", self.stacked)
        if path.suffix == ".npz":
            arrays = read_arrays(path)
            need(bool(arrays), "the file holds no arrays", str(path), "write it with numpy.savez")
            return arrays
        inputs = [port.name for port in model.signature.inputs]
        need(len(inputs) == 1, f"an .npy holds one array, the model has inputs {inputs}", self.stacked, "use an .npz")
        try:
            array = np.load(path, allow_pickle=False)
        except Exception as error:  # numpy raises what it likes at a damaged file
            raise DataError(f"cannot read the array: {error}", where=str(path)) from error
        need(isinstance(array, np.ndarray), "the file is no .npy but an archive", str(path), "call it .npz")
        return {inputs[0]: array}

    def _rows(self, arrays: dict[str, Array]) -> int:
        lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
        need(len(set(lengths.values())) == 1, f"arrays differ in length: {lengths}", self.stacked, "one row a sample")
        rows = next(iter(lengths.values()))
        need(rows > 0, "there are no samples", self.stacked)
        return min(rows, self.limit or rows)

    def _sample(self, arrays: dict[str, Array], labels: Array | None, start: int) -> Sample:
        rows = slice(start, start + self.batch)
        feeds = {name: array[rows] for name, array in arrays.items()}
        label = None if labels is None else labels[rows] if self.batch > 1 else labels[start]
        return Sample(f"{self.stacked}[{start}]", feeds, None if label is None else np.asarray(label))
