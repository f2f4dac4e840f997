"""How the inputs of a layer go together: the Gram matrix of what each output is a product with, over samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Self

import numpy as np
import onnx_ir

from onnxopt.compile.engine import Array
from onnxopt.context import Context
from onnxopt.data.sample import Samples
from onnxopt.errors import DataError
from onnxopt.evaluate.batches import fitting
from onnxopt.evaluate.collect import collect
from onnxopt.evaluate.statistic import Statistic, stride
from onnxopt.ir.windows import Window

_MOST_BYTES = 512 << 20
"""Of matrices that are gathered together."""

_BYTES = 8
"""Of a number of theirs."""

_MOST_ROWS = 512
"""Places of one sample that are looked at, spread over all; neighbours are much alike."""


_ARRAYS = ("matrix", "sums", "sizes")


class Gram(Statistic):
    """The sum of the outer products of what outputs are products with.

    Attributes:
        window: Of a convolution; None for a matrix product, whose rows lie along the last axis.
        matrix: [groups, inputs, inputs], float64; inputs as in a weight: channels, then places of the kernel.
        sums: [groups, inputs], float64: of the rows themselves.
        sizes: [groups, inputs], float64: of their magnitudes.
        rows: Taken in.
    """

    def __init__(self, window: Window | None) -> None:
        self.window = window
        self.matrix = np.zeros((0, 0, 0))
        self.sums = self.sizes = np.zeros((0, 0))
        self.rows = 0

    def add(self, array: Array) -> None:
        """Take in an array, or of a large one a regular part; what is not finite is left out."""
        if not array.size:
            return
        rows = self._rows(array).astype(np.float32, copy=False)
        some = rows[:, np.isfinite(rows).all((0, 2))]
        found = (some.transpose(0, 2, 1) @ some).astype(np.float64)
        total, size = some.sum(1, dtype=np.float64), np.abs(some).sum(1, dtype=np.float64)
        before = (self.matrix, self.sums, self.sizes) if self.rows else (0.0, 0.0, 0.0)
        self.matrix, self.sums, self.sizes = (old + new for old, new in zip(before, (found, total, size), strict=True))
        self.rows += some.shape[1]

    def _rows(self, array: Array) -> Array:
        return rows_read(array, self.window)

    def state(self) -> dict[str, Any]:
        """Return window, matrix, sums, sizes and rows."""
        window = None if self.window is None else asdict(self.window)
        arrays = {name: getattr(self, name).tolist() for name in _ARRAYS}
        return {"window": window, **arrays, "rows": self.rows}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Self:
        """Return the Gram matrix of a state."""
        told = state["window"]
        made = cls(None if told is None else Window(**{key: _tuples(value) for key, value in told.items()}))
        made.matrix, made.sums, made.sizes = (np.asarray(state[name], np.float64) for name in _ARRAYS)
        made.rows = state["rows"]
        return made


def find_grams(
    graph: onnx_ir.Model, tensors: Sequence[tuple[onnx_ir.Value, int]], samples: Samples, ctx: Context
) -> Iterator[Mapping[str, Array]]:
    """Yield Gram matrices of rows by name of tensor, [size, size] float32, group after group in the order given.

    Args:
        graph: Sorted and uniquely named; must not be changed before the last group.
        tensors: Float tensors of the main graph, each with the size of its last axis.
        samples: Read one at a time, once for each group, whose matrices fit in memory together.
        ctx: Gives ``scratch``; told of progress.

    Raises:
        DataError: There are no samples, or a tensor took no finite value in any.
    """
    for group in fitting(tensors, lambda pair: _BYTES * pair[1] ** 2, _MOST_BYTES):
        wanted = {value: Gram(None) for value, _ in group}
        found = collect(graph, wanted, samples, ctx, what="measuring what weights multiply")
        yield {name: _seen(name, one) for name, one in found.items()}


def spread(count: int) -> Array:
    """Return which of ``count`` rows of a sample are looked at."""
    return np.arange(0, count, stride(count, _MOST_ROWS))


def rows_read(array: Array, window: Window | None) -> Array:
    """Return what outputs are products with, [groups, rows, inputs], the rows of a sample that are looked at."""
    if window is not None:
        return patches(array, window)
    rows = array.reshape(1, -1, array.shape[-1])
    return rows[:, spread(rows.shape[1])]


def rows_made(array: Array, axis: int) -> Array:
    """Return what a layer makes, [rows, channels], in the rows that ``rows_read`` tells of."""
    rows = np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])
    return rows[spread(len(rows))]


def patches(array: Array, window: Window) -> Array:
    """Return what each place of a convolution looks at, [groups, places, inputs a group x kernel], some of many."""
    seen = window.rows(array, 0, spread)
    ordered = np.moveaxis(seen, -1, 1)  # [places, channels, kernel...]
    return np.ascontiguousarray(ordered.reshape(len(seen), window.groups, -1).transpose(1, 0, 2))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value


def _seen(name: str, gram: Gram) -> Array:
    if not gram.rows:
        hint = "look at the samples: a NaN or an infinite input spreads through the model"
        raise DataError(f"tensor {name!r} took no finite value in any sample", hint=hint)
    return np.asarray(gram.matrix[0], np.float32)
