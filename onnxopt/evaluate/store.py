"""Outputs kept on disk, one file a sample, so that memory does not grow with the number of samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxopt.compile.engine import Engine, Feeds, Results
from onnxopt.data.files import read_arrays


@dataclass(frozen=True, slots=True)
class OutputStore:
    """A folder of ``.npz`` files with the outputs of one model on some samples, in order."""

    folder: Path

    def write(self, index: int, outputs: Results) -> None:
        """Keep the outputs of sample ``index``."""
        np.savez(self._path(index), **outputs)  # type: ignore[arg-type]

    def read(self, index: int) -> Results:
        """Return the outputs of sample ``index``."""
        return read_arrays(self._path(index))

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:06d}.npz"


def run_all(engine: Engine, feeds: Iterator[Feeds], store: OutputStore) -> int:
    """Run an engine on every feed and keep the outputs; return how many."""
    count = 0
    for count, one in enumerate(feeds, start=1):
        store.write(count - 1, engine.run(one))
    return count
