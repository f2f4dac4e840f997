"""Half-quadratic quantization: ranges that leave a few large errors rather than many small ones.

After Badri and Shaji 2023 (HQQ, mobiusml.github.io/hqq_blog): the p-norm of the error, p < 1, is minimized by splitting
off what an outlier is off by, in turn with a fit to the rest. There the zero point is real; kernels here store whole
ones, so that the scale is fitted too, and the best of all rounds is kept for each block.
"""

from __future__ import annotations

import numpy as np

from onnxopt.ir.quant import Array, Quantization, Scheme, fit_array
from onnxopt.quantize.clipped import fitted_scale, steps

_NORM = 0.7
_SHARPNESS = 10.0
"""Of the split, for errors in steps; it grows by ``_GROWTH`` a round. Both as published."""

_GROWTH = 1.01
_ROUNDS = 20


def fit_hqq(weight: Array, scheme: Scheme) -> Quantization:
    """Return the scales and zero points of least p-norm error.

    Args:
        weight: [outputs, inputs], float32, of whole blocks.
        scheme: Of blocks.
    """
    parts = weight.reshape(len(weight), -1, scheme.block)
    best = how = fit_array(weight, scheme, 1)
    least = _cost(parts, how)
    for turn in range(_ROUNDS):
        how = _next(parts, how, _SHARPNESS * _GROWTH**turn)
        cost = _cost(parts, how)
        better = cost < least
        scale = np.where(better, how.scale, best.scale)
        zero = np.where(better, how.zero_point, best.zero_point).astype(how.zero_point.dtype)
        best, least = Quantization(scheme, scale, zero, 1), np.minimum(cost, least)
    return best


def _next(parts: Array, how: Quantization, sharpness: float) -> Quantization:
    """Return a fit to what is left of a weight without the outliers of its error."""
    count = steps(parts, how)
    wide = how.scale[..., None]
    rest = parts - _outliers(parts / wide - count, sharpness) * wide
    zero = how.zero_point.astype(np.float32)
    if how.scheme.symmetric:
        return Quantization(how.scheme, fitted_scale(rest, count, how.scale), how.zero_point, 1)
    zero = np.clip(np.rint(zero + (count - rest / wide).mean(2)), how.scheme.lowest, how.scheme.highest)
    moved = Quantization(how.scheme, how.scale, zero.astype(how.zero_point.dtype), 1)
    return Quantization(how.scheme, fitted_scale(rest, steps(parts, moved), how.scale), moved.zero_point, 1)


def _outliers(error: Array, sharpness: float) -> Array:
    """Return the part of each error, in steps, that is split off: generalized soft-thresholding for the p-norm."""
    size = np.abs(error)
    threshold = np.power(np.maximum(size, 1e-12), _NORM - 1) / sharpness
    return np.asarray(np.sign(error) * np.maximum(size - threshold, 0.0))


def _cost(parts: Array, how: Quantization) -> Array:
    error = np.abs(parts - steps(parts, how) * how.scale[..., None])
    return np.asarray(np.power(error, _NORM).sum(2))
