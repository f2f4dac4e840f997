"""The arithmetic of quantization: what is stored for a number, and what is read back.

One ``Scheme`` serves post-training quantization and quantization-aware training, so that their numbers cannot drift
apart. The formulas are those of QuantizeLinear and DequantizeLinear (ONNX operators, opset 21).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_ir

Array = np.ndarray[Any, Any]
Dtype = Literal["int4", "uint4", "int8", "uint8", "int16", "uint16", "int32"]

SMALLEST_SCALE = np.float32(2.0**-60)
"""Below it the product of two scales, which a bias is stored with, is no longer a normal float32."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """How numbers are stored.

    Attributes:
        dtype: The stored type.
        symmetric: Whether zero lies in the middle of the stored range, so that a signed zero point is 0.
        granularity: What shares a scale: the whole tensor, each index along an axis, or each block along it.
        block: Elements a block; 0 where there are none.
        bits: Bits used; fewer than the type has where a kernel's sums would overflow. None: all of them.
    """

    dtype: Dtype
    symmetric: bool
    granularity: Literal["tensor", "channel", "block"] = "tensor"
    block: int = 0
    bits: int | None = None

    @property
    def lowest(self) -> int:
        """The smallest number stored."""
        return -(1 << self._used - 1) if self._signed else 0

    @property
    def highest(self) -> int:
        """The largest number stored."""
        return (1 << self._used - 1) - 1 if self._signed else (1 << self._used) - 1

    @property
    def middle(self) -> int:
        """The zero point of a symmetric scheme."""
        return 0 if self._signed else 1 << self._used - 1

    @property
    def ir_type(self) -> onnx_ir.DataType:
        """The stored type as onnx-ir names it."""
        return onnx_ir.DataType[self.dtype.upper()]

    @property
    def _signed(self) -> bool:
        return not self.dtype.startswith("u")

    @property
    def _used(self) -> int:
        return self.bits or int(self.dtype.removeprefix("u").removeprefix("int"))


@dataclass(frozen=True, eq=False, slots=True)
class Quantization:
    """A scheme with its numbers.

    Attributes:
        scheme: How numbers are stored.
        scale: float32; [] a tensor, [channels], or the tensor's shape with its axis divided into blocks.
        zero_point: Of the scale's shape and the stored type.
        axis: The axis of channels or blocks; None for one scale.
    """

    scheme: Scheme
    scale: Array
    zero_point: Array
    axis: int | None = None


def fit(low: Array | float, high: Array | float, scheme: Scheme, axis: int | None = None) -> Quantization:
    """Return the quantization that covers ranges.

    Args:
        low: Least values to be told apart, one for each scale; zero is always covered.
        high: Greatest values, of the same shape.
        scheme: How numbers are stored.
        axis: Of channels or blocks.
    """
    least = np.minimum(np.asarray(low, np.float64), 0.0)
    most = np.maximum(np.asarray(high, np.float64), 0.0)
    if scheme.symmetric:
        scale = np.maximum(-least, most) / (scheme.highest - scheme.middle)
        zero = np.full(scale.shape, scheme.middle)
    else:
        scale = (most - least) / (scheme.highest - scheme.lowest)
        zero = np.rint(scheme.lowest - least / np.where(scale > 0, scale, 1.0))
    scale = np.where(scale > 0, np.maximum(scale, SMALLEST_SCALE), 1.0).astype(np.float32)
    zero = np.clip(zero, scheme.lowest, scheme.highest).astype(scheme.ir_type.numpy())
    return Quantization(scheme, scale, zero, axis)


def fit_array(array: Array, scheme: Scheme, axis: int = 0) -> Quantization:
    """Return the quantization that covers an array, with a scale for the whole of it, each channel or each block."""
    if scheme.granularity == "tensor" or not array.ndim:
        return fit(array.min(initial=0.0), array.max(initial=0.0), scheme)
    if scheme.granularity == "channel":
        others = tuple(i for i in range(array.ndim) if i != axis)
        return fit(array.min(others, initial=0.0), array.max(others, initial=0.0), scheme, axis)
    starts = np.arange(0, array.shape[axis], scheme.block)
    least, most = np.minimum.reduceat(array, starts, axis), np.maximum.reduceat(array, starts, axis)
    return fit(least, most, scheme, axis)


def quantize(array: Array, how: Quantization) -> Array:
    """Return what is stored for an array, as QuantizeLinear computes it: halves to even, saturating."""
    scale, zero = _spread(how, array.shape)
    stored = np.rint(array.astype(np.float32) / scale).astype(np.float64) + zero
    return np.clip(stored, how.scheme.lowest, how.scheme.highest).astype(how.zero_point.dtype)


def dequantize(stored: Array, how: Quantization) -> Array:
    """Return the float32 array that DequantizeLinear reads back."""
    scale, zero = _spread(how, stored.shape)
    return ((stored.astype(np.int64) - zero) * scale).astype(np.float32)


def _spread(how: Quantization, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Return scale (float32) and zero point (int64) in shapes that broadcast against ``shape``."""
    scale, zero = how.scale, how.zero_point.astype(np.int64)
    if how.axis is None:
        return scale, zero
    if how.scheme.granularity == "channel":
        along = [-1 if i == how.axis % len(shape) else 1 for i in range(len(shape))]
        return scale.reshape(along), zero.reshape(along)
    count = shape[how.axis]
    spread = (np.repeat(part, how.scheme.block, how.axis) for part in (scale, zero))
    wide, wide_zero = (np.take(part, range(count), how.axis) for part in spread)
    return wide, wide_zero
