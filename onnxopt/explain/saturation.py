"""What sums that saturate do to a layer's output, simulated on the very numbers it multiplies.

x86 CPUs without VNNI multiply uint8 by int8 with VPMADDUBSW (Intel's manual, volume 2), which multiplies two neighbours
along the reduction and adds both products in an int16, cut off at its ends: 2 * 255 * 127 is twice what fits. Which
two are neighbours is a kernel's choice. Simulated is ONNX Runtime's: a row of MatMul and Gemm as it lies; a window of
Conv channels last, [kernel..., channels], which its im2col and its indirect kernels have in common. A kernel that packs
channels first, or in blocks, adds other pairs; so the channels are counted too in which *some* two numbers could
saturate, whatever the order. Kernels that add at once four products in an int32 (VNNI) never saturate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxopt.evaluate.drift import EXACT_DB
from onnxopt.ir.quant import Array, Scheme, dequantize, fit_array, quantize
from onnxopt.targets.kernels import NARROW_BITS

_LOWEST, _HIGHEST = -(1 << 15), (1 << 15) - 1
_LARGEST_INPUT = 255
_AT_ONCE = 1 << 22
"""Sums of two products that are held in memory together."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What was seen of a layer; tallies of other rows, or other groups of channels, add up.

    Attributes:
        numbers: Numbers of its output.
        total: Their sum, in steps of the input's scale.
        squares: The sum of their squares.
        sums: Sums of two products.
        cut: How many of them saturate.
        cut_noise: The sum of squares of what that takes from the output.
        narrow_noise: The sum of squares of what 7-bit weights take from it.
    """

    numbers: int = 0
    total: float = 0.0
    squares: float = 0.0
    sums: int = 0
    cut: int = 0
    cut_noise: float = 0.0
    narrow_noise: float = 0.0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    @property
    def share(self) -> float:
        """Of the sums that saturate."""
        return self.cut / self.sums if self.sums else 0.0

    def sqnr_db(self, noise: float) -> float:
        """Return the variance of the output over a noise, in dB."""
        signal = self.squares - self.total**2 / self.numbers if self.numbers else 0.0
        if noise <= 0:
            return EXACT_DB
        return min(10 * math.log10(signal / noise), EXACT_DB) if signal > 0 else -EXACT_DB


@dataclass(frozen=True, eq=False)
class Product:
    """A product with a weight, as a kernel sums it up.

    Attributes:
        weight: [inputs, outputs], int8, in the order the kernel goes along the inputs.
        scale: [outputs], float32.
        zero_point: [outputs], int8.
    """

    weight: Array
    scale: Array
    zero_point: Array

    def tally(self, rows: Array, zero: int) -> Tally:
        """Return what rows do.

        Args:
            rows: [rows, inputs], uint8, in the weight's order.
            zero: Their zero point.
        """
        moved = rows.astype(np.float32) - zero
        output = (moved @ self._read_back).astype(np.float64)
        narrow = (moved @ self._narrowed).astype(np.float64)
        cut, cut_noise = self._cut(rows)
        return Tally(
            numbers=output.size,
            total=float(output.sum()),
            squares=float(np.square(output).sum()),
            sums=output.size * -(-len(self.weight) // 2),
            cut=cut,
            cut_noise=cut_noise,
            narrow_noise=float(np.square(narrow).sum()),
        )

    @property
    def could(self) -> int:
        """Outputs of which some two weights saturate with inputs of 255, whatever stands beside what."""
        if len(self.weight) < 2:
            return 0
        ends = np.sort(self.weight, 0).astype(np.int32)
        return int(np.count_nonzero(_too_much(ends[-2:]) | _too_little(ends[:2])))

    def _cut(self, rows: Array) -> tuple[int, float]:
        """Return how many sums saturate, and the sum of squares of what that takes from the output."""
        outputs, pairs = self._risky
        if not len(outputs):
            return 0, 0.0
        first, second = (half[pairs, outputs] for half in self._halves)
        starts = np.flatnonzero(np.diff(outputs, prepend=-1))
        scale = self.scale[outputs[starts]]
        even = _even(rows, 1)
        count, noise, step = 0, 0.0, max(1, _AT_ONCE // len(outputs))
        for start in range(0, len(even), step):
            part = even[start : start + step].astype(np.int32)
            sums = part[:, 0::2][:, pairs] * first + part[:, 1::2][:, pairs] * second
            lost = np.clip(sums, _LOWEST, _HIGHEST) - sums
            count += int(np.count_nonzero(lost))
            noise += float(np.square(np.add.reduceat(lost, starts, axis=1) * scale.astype(np.float64)).sum())
        return count, noise

    @cached_property
    def _halves(self) -> tuple[Array, Array]:
        """The weights of the first and of the second number of each pair, [pairs, outputs]."""
        even = _even(self.weight, 0).astype(np.int32)
        return even[0::2], even[1::2]

    @cached_property
    def _risky(self) -> tuple[Array, Array]:
        """The places [outputs, pairs] whose sums can saturate at all: few, so that looking at these alone is fast."""
        both = np.stack(self._halves)
        outputs, pairs = np.nonzero((_too_much(both) | _too_little(both)).T)
        return outputs, pairs

    @cached_property
    def _read_back(self) -> Array:
        moved = self.weight.astype(np.float32) - self.zero_point.astype(np.float32)
        return np.asarray(moved * self.scale, np.float32)

    @cached_property
    def _narrowed(self) -> Array:
        """What 7 bits take from the weights that are read back."""
        how = fit_array(self._read_back, Scheme("int8", symmetric=True, granularity="channel", bits=NARROW_BITS), 1)
        return dequantize(quantize(self._read_back, how), how) - self._read_back


def _too_much(pair: Array) -> Array:
    """Whether two weights, [2, ...], can sum up beyond the largest int16."""
    return np.asarray(_LARGEST_INPUT * np.maximum(pair, 0).sum(0) > _HIGHEST)


def _too_little(pair: Array) -> Array:
    return np.asarray(_LARGEST_INPUT * np.minimum(pair, 0).sum(0) < _LOWEST)


def _even(array: Array, axis: int) -> Array:
    """Return an array of even length along an axis: what has no neighbour stands beside a zero."""
    widths = [(0, array.shape[i] % 2 if i == axis else 0) for i in range(array.ndim)]
    return np.pad(array, widths)
