"""Rounding weights so that what a layer makes changes least: each up or down, with the others in view."""

from __future__ import annotations

import numpy as np

from onnxopt.ir.quant import Array

_DAMPING = 0.01
"""Of the mean diagonal, added to the diagonal (GPTQ, arXiv:2210.17323, section 3.3)."""

_BLOCK = 128
"""Columns whose errors are passed on to all later ones at once (the same, section 3.3)."""


def round_jointly(weight: Array, gram: Array, scale: Array) -> Array:
    """Return weights on a grid around zero, rounded column by column; later columns make up for earlier errors.

    That is the procedure of GPTQ, columns in the order of their weight in the Gram matrix. In each row what is largest
    stays as it is, and nothing becomes larger, so that the same grid is found again. A row that comes out no better
    than rounded to nearest is rounded to nearest.

    Args:
        weight: [groups, outputs, inputs], float32.
        gram: [groups, inputs, inputs], float64: sums of products of the inputs.
        scale: [groups, outputs, 1], float32: steps of the grid.
    """
    peak = np.abs(weight).max(2, keepdims=True)
    top = np.floor(peak / scale.astype(np.float64) + 1e-3)
    order = np.argsort(-np.diagonal(gram, axis1=1, axis2=2), axis=1, kind="stable")
    own = np.take_along_axis(weight, order[:, None], 2).astype(np.float64)
    sorted_gram = np.take_along_axis(np.take_along_axis(gram, order[:, :, None], 1), order[:, None], 2)
    steps = _stepwise(own / scale, sorted_gram, top)
    nearest = np.clip(np.rint(own / scale), -top, top)
    off, off_nearest = (_error(one * scale - own, sorted_gram) for one in (steps, nearest))
    steps = np.where((off < off_nearest)[:, :, None], steps, nearest)
    back = np.take_along_axis(steps, np.argsort(order, axis=1)[:, None], 2).astype(np.float32) * scale
    rounded = np.clip(back, -peak, peak)
    return np.asarray(np.where(np.abs(weight) == peak, weight, rounded), np.float32)


def _stepwise(wanted: Array, gram: Array, top: Array) -> Array:
    """Return integers for numbers in steps, [groups, outputs, inputs]; the largest of a row is never moved."""
    left, chosen = wanted.copy(), np.empty_like(wanted)
    fixed = np.abs(wanted) >= np.abs(wanted).max(2, keepdims=True)
    whole = np.rint(wanted)
    passing = _passing(gram)
    count = wanted.shape[2]
    for start in range(0, count, _BLOCK):
        end = min(start + _BLOCK, count)
        errors = np.empty_like(left[:, :, start:end])
        for i in range(start, end):
            free = np.clip(np.rint(left[:, :, i : i + 1]), -top, top)[:, :, 0]
            chosen[:, :, i] = np.where(fixed[:, :, i], whole[:, :, i], free)
            error = (left[:, :, i] - chosen[:, :, i]) / passing[:, None, i, i]
            left[:, :, i:end] -= error[:, :, None] * passing[:, None, i, i:end]
            errors[:, :, i - start] = error
        left[:, :, end:] -= errors @ passing[:, start:end, end:]
    return chosen


def _passing(gram: Array) -> Array:
    """Return the upper Cholesky factor of the inverse: how the error of a column passes to later ones."""
    diagonal = np.diagonal(gram, axis1=1, axis2=2)
    mean = diagonal.mean(1)
    damping = np.where(mean > 0, _DAMPING * mean, 1.0)[:, None] + np.where(diagonal > 0, 0.0, mean[:, None])
    damped = gram + damping[:, :, None] * np.eye(gram.shape[1])
    return np.linalg.cholesky(np.linalg.inv(damped)).transpose(0, 2, 1)


def _error(change: Array, gram: Array) -> Array:
    """Return what a change of weights does to the squared outputs, [groups, outputs]."""
    return np.asarray(np.einsum("goi,goi->go", change @ gram, change))
