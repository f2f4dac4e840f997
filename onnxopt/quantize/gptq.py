"""GPTQ: each input's rounding error is made up for by the inputs that are rounded after it.

After Frantar et al. 2022 (arXiv:2210.17323), with the inputs in order of falling energy and the blocks' ranges fixed
beforehand, which keeps blocks as kernels read them.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from onnxopt.ir.quant import Array, Quantization, Scheme
from onnxopt.quantize.blocks import Blocks, with_numbers
from onnxopt.quantize.clipped import fit_clipped

_DAMPING = 0.05
"""Share of the mean energy added to every input's: directions the samples never took stay bounded. The 0.01 published
goes with 128 samples of 2,048 tokens; with few thousand tokens in all, more is better."""

_LAZY = 96
"""Inputs after which the rest is made up at once, by one large product."""


def round_gptq(weight: Array, scheme: Scheme, gram: Array) -> Blocks:
    """Return a weight rounded so that its products change least.

    Args:
        weight: [outputs, inputs], float32, of whole blocks.
        scheme: Of blocks.
        gram: [inputs, inputs], float32 or float64: the sum of xᵀx over all vectors x that the weight multiplies.
    """
    energy = np.diagonal(gram).astype(np.float64)
    how = fit_clipped(weight, scheme, energy if energy.any() else None)
    order = np.argsort(-energy, kind="stable")
    spread = _spread(gram.astype(np.float64)[np.ix_(order, order)])
    rest = np.ascontiguousarray(weight.T[order])
    stored = np.empty(rest.shape, np.uint8)
    ends = [*range(0, len(rest), _LAZY), len(rest)]
    for start, end in pairwise(ends):
        rows = slice(start, end)
        errors = _round_rows(rest[rows], stored[rows], order[rows], spread[rows, rows], how)
        rest[end:] -= spread[rows, end:].T @ errors
    return with_numbers(np.ascontiguousarray(stored[np.argsort(order)].T), how)


def _spread(gram: Array) -> Array:
    """Return the upper Cholesky factor of the damped inverse: row j tells what input j's error does to later ones."""
    from scipy.linalg import cho_solve, cholesky

    size = len(gram)
    damped = gram + np.eye(size) * (_DAMPING * gram.trace() / size or 1.0)
    inverse = cho_solve((cholesky(damped, lower=True), True), np.eye(size))
    return np.asarray(cholesky(inverse), np.float32)


def _round_rows(rest: Array, stored: Array, inputs: Array, spread: Array, how: Quantization) -> Array:
    """Round rows [rows, outputs] one after the other, in place, into ``stored``; return each one's error to spread."""
    errors = np.empty_like(rest)
    zeros, scheme = how.zero_point.astype(np.float32), how.scheme
    for row, block in enumerate(inputs // scheme.block):
        scale, zero = how.scale[:, block], zeros[:, block]
        numbers = np.clip(np.rint(rest[row] / scale) + zero, scheme.lowest, scheme.highest)
        stored[row] = numbers
        errors[row] = (rest[row] - (numbers - zero) * scale) / spread[row, row]
        rest[row + 1 :] -= spread[row, row + 1 :, None] * errors[row]
    return errors
