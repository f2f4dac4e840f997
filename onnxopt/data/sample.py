"""One sample, and the interface of everything samples come from."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Feeds = Mapping[str, Array]

LABEL = "label"
"""The array of a sample that is its ground truth and no input of the model."""


@dataclass(frozen=True, eq=False)
class Sample:
    """What one inference is fed, and what should come out.

    Attributes:
        name: Where it came from: a file, a line, an index.
        feeds: Arrays by input name, each with all dimensions of the input.
        label: Ground truth of any dtype and shape, or None.
    """

    name: str
    feeds: Feeds
    label: Array | None = None

    def digest(self) -> str:
        """Return the SHA-256 of names, dtypes, shapes and content of the feeds; the label does not count."""
        sha = hashlib.sha256()
        for key in sorted(self.feeds):
            _hash_array(sha, key, self.feeds[key])
        return sha.hexdigest()


class Samples(ABC, Sequence[Sample]):
    """Samples in a fixed order, read when asked for, so that memory does not grow with their number."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 over the content: equal content, equal fingerprint, whatever the path or date."""

    @property
    def synthetic(self) -> bool:
        """Whether the samples were made up, so that nothing measured on them speaks of accuracy."""
        return False

    @abstractmethod
    def read(self, index: int) -> Sample:
        """Return sample ``index``, from 0."""

    @abstractmethod
    def __len__(self) -> int: ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return Subset(self, tuple(range(*index.indices(len(self)))))
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self.read(index % len(self))

    def __iter__(self) -> Iterator[Sample]:
        return (self.read(index) for index in range(len(self)))


@dataclass(frozen=True, eq=False)
class Subset(Samples):
    """Some samples of another source, by index."""

    source: Samples
    indices: tuple[int, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the source's fingerprint and the indices."""
        return hashlib.sha256(f"{self.source.fingerprint}{self.indices}".encode()).hexdigest()

    @property
    def synthetic(self) -> bool:
        """Whether the source is synthetic."""
        return self.source.synthetic

    def read(self, index: int) -> Sample:
        """Return the sample at the ``index``-th chosen place."""
        return self.source.read(self.indices[index])

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True, eq=False)
class InMemory(Samples):
    """Samples that are there already.

    Attributes:
        samples: In order.
        made_up: Whether they are synthetic.
        code: Fingerprint of the code that made them, if any; part of theirs.
    """

    samples: tuple[Sample, ...]
    made_up: bool = False
    code: str = ""

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over feeds, labels and the code that made them."""
        sha = hashlib.sha256(self.code.encode())
        for sample in self.samples:
            sha.update(sample.digest().encode())
            if sample.label is not None:
                _hash_array(sha, LABEL, sample.label)
        return sha.hexdigest()

    @property
    def synthetic(self) -> bool:
        """As given."""
        return self.made_up

    def read(self, index: int) -> Sample:
        """Return the sample."""
        return self.samples[index]

    def __len__(self) -> int:
        return len(self.samples)


def files_fingerprint(
    paths: Iterable[Path], labels: Iterable[Array | None] = (), how: Mapping[str, Any] | None = None
) -> str:
    """Return the SHA-256 of the content of files, of their labels, and of how they are read."""
    sha = hashlib.sha256(repr(sorted((how or {}).items())).encode())
    for path in paths:
        sha.update(hashlib.sha256(path.read_bytes()).digest())
    for label in labels:
        if label is not None:
            _hash_array(sha, LABEL, label)
    return sha.hexdigest()


def _hash_array(sha: hashlib._Hash, key: str, array: Array) -> None:
    if array.dtype == object:
        array = array.astype(str)
    sha.update(f"{key}|{array.dtype.str}|{array.shape}|".encode())
    sha.update(np.ascontiguousarray(array).tobytes())
