"""Ranges of blocks that lose least: what cutting off costs against what the finer step saves, then the best scale."""

from __future__ import annotations

import numpy as np

from onnxopt.ir.quant import Array, Quantization, Scheme, fit

_SHARES = np.linspace(1.0, 0.6, 17)
"""Shares of a block's range that are tried; the whole first, so that equals cut nothing off."""

_REFINED = 2
"""Times the scale is fitted to the numbers chosen, and they to it; more changes nothing."""


def fit_clipped(weight: Array, scheme: Scheme, importance: Array | None = None) -> Quantization:
    """Return the scales and zero points of least squared error.

    Args:
        weight: [outputs, inputs], float32, of whole blocks.
        scheme: Of blocks.
        importance: [inputs]; what an input's squared error counts. None: all the same.
    """
    parts = weight.reshape(len(weight), -1, scheme.block)
    root = None if importance is None else np.sqrt(importance, dtype=np.float32).reshape(parts.shape[1:])
    low, high = parts.min(2), parts.max(2)
    best, chosen = np.full(low.shape, np.inf, np.float32), np.ones(low.shape, np.float32)
    for share in _SHARES:
        error = _squared(parts, fit(low * share, high * share, scheme, 1), root)
        better = error < best
        best[better], chosen[better] = error[better], share
    how = fit(low * chosen, high * chosen, scheme, 1)
    for _ in range(_REFINED):
        finer = _refitted(parts, how, root)
        error = _squared(parts, finer, root)
        scale = np.where(error < best, finer.scale, how.scale)
        how, best = Quantization(scheme, scale, how.zero_point, 1), np.minimum(error, best)
    return how


def steps(parts: Array, how: Quantization) -> Array:
    """Return how many steps from zero each of [outputs, blocks, block] numbers is stored as, float32."""
    zero = how.zero_point.astype(np.float32)[..., None]
    count = parts / how.scale[..., None]
    np.rint(count, out=count)
    np.clip(count, how.scheme.lowest - zero, how.scheme.highest - zero, out=count)
    return np.asarray(count)


def fitted_scale(parts: Array, count: Array, otherwise: Array) -> Array:
    """Return the scale of least squared error for given steps, [outputs, blocks]; ``otherwise`` where none is > 0."""
    power = np.einsum("nbk,nbk->nb", count, count)
    scale = np.einsum("nbk,nbk->nb", count, parts) / np.where(power > 0, power, 1)
    return np.where(scale > 0, scale, otherwise).astype(np.float32)


def _refitted(parts: Array, how: Quantization, root: Array | None) -> Quantization:
    count = steps(parts, how)
    if root is not None:
        parts, count = parts * root, count * root
    return Quantization(how.scheme, fitted_scale(parts, count, how.scale), how.zero_point, 1)


def _squared(parts: Array, how: Quantization, root: Array | None) -> Array:
    """Return each block's squared error, [outputs, blocks]."""
    error = steps(parts, how)
    error *= how.scale[..., None]
    error -= parts
    if root is not None:
        error *= root
    return np.asarray(np.einsum("nbk,nbk->nb", error, error))
