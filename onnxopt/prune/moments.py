"""What a changed layer reads, and what it makes beside the original's: sums over samples, gathered in a child."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from onnxopt.compile.ort import OnnxRuntime
from onnxopt.data.files import SampleFiles
from onnxopt.data.sample import Array
from onnxopt.evaluate.gram import rows_made, rows_read
from onnxopt.ir.windows import Window
from onnxopt.targets.machine import processor
from onnxopt.targets.target import local_target


@dataclass(frozen=True, eq=False)
class Watched:
    """A layer whose tensors are looked at.

    Attributes:
        read: Name of what it reads, in the changed model.
        made: Name of what it makes, in both models.
        axis: Of the channels of what it makes.
        kept: Positions of the original's channels that are left, [channels]; None for all.
        window: Of a convolution.
    """

    read: str
    made: str
    axis: int
    kept: Array | None
    window: Window | None

    @property
    def groups(self) -> int:
        """Parts that read other channels."""
        return 1 if self.window is None else self.window.groups


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over rows; inputs are those of an output, with a one behind them for the bias.

    Attributes:
        rows: How many.
        inputs: [groups, inputs + 1, inputs + 1], float64, as all that follow: products of inputs.
        errors: [groups, outputs, inputs + 1]: of inputs with what the layer makes too little.
        power: [groups, outputs]: squares of what it makes too little.
        made: [2, channels]: what the layer makes, and its squares.
        wanted: [2, channels]: the same of the original.
    """

    rows: int
    inputs: Array
    errors: Array
    power: Array
    made: Array
    wanted: Array

    @classmethod
    def of(cls, read: Array, made: Array, wanted: Array) -> Self:
        """Return the sums of one sample.

        Args:
            read: [groups, rows, inputs].
            made: [rows, channels].
            wanted: The same of the original.
        """
        groups, count, _ = read.shape
        ones = np.ones((groups, count, 1), np.float32)
        inputs = np.concatenate([read.astype(np.float32, copy=False), ones], 2)
        off = (wanted - made).T.reshape(groups, -1, count)
        return cls(
            rows=count,
            inputs=(inputs.transpose(0, 2, 1) @ inputs).astype(np.float64),
            errors=(off @ inputs).astype(np.float64),
            power=np.square(off, dtype=np.float64).sum(2),
            made=_sums(made),
            wanted=_sums(wanted),
        )

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.rows + other.rows,
            self.inputs + other.inputs,
            self.errors + other.errors,
            self.power + other.power,
            self.made + other.made,
            self.wanted + other.wanted,
        )


Folds = tuple[Moments, Moments]
"""Of every other sample, and of those between: what is found on the ones is judged on the others."""


def find_moments(original: str, changed: str, folder: str, layers: Mapping[str, Watched]) -> dict[str, Folds]:
    """Return the moments of layers, by name; those whose tensors do not line up are left out. Called in a child.

    Args:
        original: File of a model whose outputs are what the original's layers make.
        changed: File of a model whose outputs are what the changed layers read and make.
        folder: Of samples, two at least.
        layers: By name.
    """
    found: dict[str, list[Moments | None]] = {name: [None, None] for name in layers}
    whole = local_target().with_threads(processor().cores)
    with (
        OnnxRuntime(spinning=False).compile(Path(original), whole) as one,
        OnnxRuntime(spinning=False).compile(Path(changed), whole) as other,
    ):
        for index, sample in enumerate(SampleFiles(tuple(sorted(Path(folder).glob("*.npz"))))):
            before, after = one.run(sample.feeds), {**sample.feeds, **other.run(sample.feeds)}
            for name in list(found):
                seen = _seen(layers[name], before, after)
                if seen is None:
                    del found[name]
                else:
                    sums = found[name][index % 2]
                    found[name][index % 2] = seen if sums is None else sums + seen
    return {name: (one, other) for name, (one, other) in found.items() if one is not None and other is not None}


def _seen(layer: Watched, before: Mapping[str, Array], after: Mapping[str, Array]) -> Moments | None:
    wanted, made = before[layer.made], after[layer.made]
    if layer.kept is not None:
        wanted = np.take(wanted, layer.kept, layer.axis)
    if wanted.shape != made.shape:
        return None
    arrays = rows_made(made, layer.axis), rows_made(wanted, layer.axis)
    read = rows_read(after[layer.read], layer.window)
    finite = np.isfinite(read).all((0, 2)) & _finite(arrays)
    return Moments.of(read[:, finite], *(array[finite] for array in arrays))


def _finite(arrays: Sequence[Array]) -> Array:
    return np.asarray(np.all([np.isfinite(array).all(1) for array in arrays], 0))


def _sums(array: Array) -> Array:
    """Return sums and sums of squares of channels, [2, channels], float64."""
    return np.stack([array.sum(0, dtype=np.float64), np.square(array, dtype=np.float64).sum(0)])
