"""The interface of a model: names, dtypes and shapes of its inputs and outputs.

This file imports nothing heavy: engines in child processes use it without loading onnx.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxopt.errors import DataError, did_you_mean

if TYPE_CHECKING:
    import numpy as np

    Feeds = Mapping[str, np.ndarray[Any, Any]]

Dim = int | str | None
"""A dimension: its size, its symbolic name, or None where nothing is known."""

STRING = "string"
_NUMPY_NAMES = {STRING: ("str", "bytes", "object")}


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output.

    Attributes:
        name: The name feeds and results go by.
        dtype: ONNX element type in lower case (``float32``, ``int64``, ``bfloat16``, ``string``), or the
            whole type (``sequence<float32>``) where it is not a tensor.
        shape: One entry a dimension; None if not even the rank is known.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...] | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}{shape_text(self.shape)}"

    def accepts_dtype(self, name: str) -> bool:
        """Whether an array of numpy dtype ``name`` can be fed here."""
        return name == self.dtype or any(name.startswith(n) for n in _NUMPY_NAMES.get(self.dtype, ()))

    def accepts_shape(self, shape: tuple[int, ...]) -> bool:
        """Whether the rank and every fixed dimension agree with ``shape``."""
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(
            not isinstance(want, int) or want == have for want, have in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs a caller must feed and outputs it gets, in order."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def input(self, name: str) -> Port:
        """Return the input called ``name``."""
        return next(port for port in self.inputs if port.name == name)

    def check_feeds(self, feeds: Feeds, where: str) -> None:
        """Raise DataError unless ``feeds`` has exactly the inputs, with fitting dtypes and shapes."""
        known = [port.name for port in self.inputs]
        for name in feeds:
            if name not in known:
                raise DataError(f"the model has no input {name!r}", where=where, hint=did_you_mean(name, known))
        for port in self.inputs:
            if port.name not in feeds:
                raise DataError(
                    f"the sample has no array for input '{port}'",
                    where=where,
                    hint=f"it has: {', '.join(sorted(feeds)) or 'nothing'}",
                )
            _check_array(port, feeds[port.name], where)

    def difference(self, other: Signature) -> str | None:
        """Return the first way in which ``other`` differs from this signature, or None."""
        return _ports_difference("input", self.inputs, other.inputs) or _ports_difference(
            "output", self.outputs, other.outputs
        )


def shape_text(shape: tuple[Dim, ...] | None) -> str:
    """Return ``[batch,3,?]`` for ``("batch", 3, None)`` and ``[...]`` for an unknown rank."""
    if shape is None:
        return "[...]"
    return "[" + ",".join("?" if dim is None else str(dim) for dim in shape) + "]"


def _check_array(port: Port, array: np.ndarray[Any, Any], where: str) -> None:
    if not port.accepts_dtype(array.dtype.name):
        raise DataError(
            f"input {port.name!r} is {port.dtype}, the sample holds {array.dtype.name}",
            where=where,
            hint=f"store it as {port.dtype}: array.astype({port.dtype!r})",
        )
    if not port.accepts_shape(array.shape):
        raise DataError(
            f"input {port.name!r} has shape {shape_text(port.shape)}, the sample {shape_text(array.shape)}",
            where=where,
            hint="arrays carry every dimension of the input, the batch too",
        )


def _ports_difference(kind: str, before: Iterable[Port], after: Iterable[Port]) -> str | None:
    old, new = list(before), list(after)
    if [port.name for port in old] != [port.name for port in new]:
        return f"{kind}s were {[port.name for port in old]}, are {[port.name for port in new]}"
    for a, b in zip(old, new, strict=True):
        if a != b:
            return f"{kind} was '{a}', is '{b}'"
    return None
