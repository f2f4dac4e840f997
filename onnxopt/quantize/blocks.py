"""Weights in blocks of few bits, and the layout runtimes store them in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxopt.ir.quant import Array, Quantization, Scheme, quantize


@dataclass(frozen=True, eq=False, slots=True)
class Blocks:
    """A weight in blocks along its inputs.

    Attributes:
        stored: [outputs, inputs padded to whole blocks], uint8, one number an element.
        scale: [outputs, blocks], float32.
        zero_point: [outputs, blocks], uint8; None where it is the middle of the range.
        block: Elements a block.
        bits: Of a number.
    """

    stored: Array
    scale: Array
    zero_point: Array | None
    block: int
    bits: int


def block_scheme(bits: int, block: int, *, symmetric: bool) -> Scheme:
    """Return the scheme of weights of 4 or 8 bits in blocks."""
    return Scheme("uint4" if bits == 4 else "uint8", symmetric, "block", block)


def padded(weight: Array, block: int) -> Array:
    """Return a weight as float32, [outputs, inputs], zeros added until its inputs are whole blocks."""
    return np.pad(weight.astype(np.float32), ((0, 0), (0, -weight.shape[1] % block)))


def nearest(weight: Array, how: Quantization) -> Blocks:
    """Return a weight of whole blocks, each number rounded to the nearest that is stored."""
    return with_numbers(quantize(weight, how).astype(np.uint8), how)


def with_numbers(stored: Array, how: Quantization) -> Blocks:
    """Return blocks of chosen numbers, [outputs, inputs] uint8, read back by ``how``."""
    scheme = how.scheme
    zero = None if scheme.symmetric else how.zero_point.astype(np.uint8)
    return Blocks(stored, how.scale, zero, scheme.block, 4 if scheme.dtype == "uint4" else 8)


def read_back(blocks: Blocks, inputs: int) -> Array:
    """Return the [outputs, inputs] float32 weight that is read back."""
    middle = np.uint8(1 << blocks.bits - 1)
    zero = np.full(blocks.scale.shape, middle) if blocks.zero_point is None else blocks.zero_point
    wide = (np.repeat(part, blocks.block, 1) for part in (zero.astype(np.float32), blocks.scale))
    offset, scale = wide
    return np.asarray(((blocks.stored.astype(np.float32) - offset) * scale)[:, :inputs])


def packed(numbers: Array, bits: int) -> Array:
    """Return numbers of 4 bits two a byte along the last axis, the first in the lower half; those of 8 as they are."""
    if bits == 8:
        return numbers
    even = np.pad(numbers, [(0, 0)] * (numbers.ndim - 1) + [(0, numbers.shape[-1] % 2)])
    return np.asarray(even[..., 0::2] | even[..., 1::2] << 4, np.uint8)
