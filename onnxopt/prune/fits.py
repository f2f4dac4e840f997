"""What to add to a layer's weights and bias so that it makes what the original made: three ways to tell.

A change is [groups, outputs, inputs + 1], float64: of the weights, with that of the bias behind them.
"""

from __future__ import annotations

import numpy as np

from onnxopt.data.sample import Array
from onnxopt.prune.moments import Folds, Moments

_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Of the mean square of an input; the largest hardly moves a weight."""

_ROUNDING = 1e-9
"""Of the energy; float32 rounds to less."""

_WIDEST = 4.0
"""A channel's scale changes by no more, either way: what hardly varies tells no scale."""


def least_squares(folds: Folds) -> Array:
    """Return the change that leaves the least squared error, held to the weights that are there by a ridge.

    The ridge is the one whose change, found on half of the samples, serves the other half best (ThiNet,
    arXiv:1707.06342, and channel pruning, arXiv:1707.06168, refit without one); no change if none serves.
    """
    one, other = folds
    held_out = [_error(one, _solved(other, ridge)) + _error(other, _solved(one, ridge)) for ridge in _RIDGES]
    best = np.argmin(held_out, 0)
    both, change = one + other, np.zeros(one.errors.shape)
    for place in np.unique(best):
        rows = (best == place) & (np.min(held_out, 0) < one.power + other.power)
        if rows.any():
            change = np.where(rows[:, :, None], _solved(both, _RIDGES[place]), change)
    return change


def statistics(folds: Folds, weights: Array, biases: Array) -> Array:
    """Return the change that gives each channel the mean and the variance it had.

    It is what estimating a batch normalisation behind the layer anew does (arXiv:2007.02491), where there is none too.

    Args:
        folds: What was seen.
        weights: [groups, outputs, inputs].
        biases: [groups, outputs].
    """
    both = folds[0] + folds[1]
    (mean, deviation), (wanted, varied) = (_mean_and_deviation(sums, both.rows) for sums in (both.made, both.wanted))
    factor = np.clip(varied / np.maximum(deviation, 1e-12), 1 / _WIDEST, _WIDEST)
    factor = np.where(deviation > 1e-6 * np.maximum(varied, 1e-12), factor, 1.0)
    shift = wanted - factor * mean
    grow = (factor - 1).reshape(biases.shape)
    return np.concatenate([weights * grow[:, :, None], (biases * grow + shift.reshape(biases.shape))[:, :, None]], 2)


def means(folds: Folds) -> Array:
    """Return the change that gives each channel the mean it had (arXiv:1906.04721, section 4.2)."""
    both = folds[0] + folds[1]
    change = np.zeros(both.errors.shape)
    change[:, :, -1] = ((both.wanted[0] - both.made[0]) / max(both.rows, 1)).reshape(both.power.shape)
    return change


def is_exact(folds: Folds) -> bool:
    """Whether a layer makes what it did, up to rounding."""
    both = folds[0] + folds[1]
    return float(both.power.sum()) <= _ROUNDING * float(both.wanted[1].sum())


def error_left(change: Array, folds: Folds) -> float:
    """Return which part of the squared error is left after a change, over all samples; 1 where there was none."""
    both = folds[0] + folds[1]
    before = float(both.power.sum())
    return float(_error(both, change).sum()) / before if before > 0 else 1.0


def without_bias(folds: Folds) -> Folds:
    """Return moments of a layer that cannot have a bias: no change of it is found."""
    one, other = (_without_ones(sums) for sums in folds)
    return one, other


def _without_ones(sums: Moments) -> Moments:
    inputs, errors = sums.inputs.copy(), sums.errors.copy()
    inputs[:, -1], inputs[:, :, -1], errors[:, :, -1] = 0, 0, 0
    return Moments(sums.rows, inputs, errors, sums.power, sums.made, sums.wanted)


def _solved(sums: Moments, ridge: float) -> Array:
    """Return the change that is best with a ridge, [groups, outputs, inputs + 1]."""
    diagonal = np.diagonal(sums.inputs, axis1=1, axis2=2)
    held = np.maximum(ridge * diagonal[:, :-1].mean(1), 1e-12)[:, None] * np.ones_like(diagonal)
    held[:, -1] = 1e-6 * np.maximum(diagonal[:, -1], 1.0)  # a bias is free
    regular = sums.inputs + held[:, :, None] * np.eye(diagonal.shape[1])
    return np.asarray(np.linalg.solve(regular, sums.errors.transpose(0, 2, 1)).transpose(0, 2, 1))


def _error(sums: Moments, change: Array) -> Array:
    """Return the squared error after a change, [groups, outputs]."""
    product = change @ sums.inputs
    return np.asarray(sums.power + np.einsum("goi,goi->go", product - 2 * sums.errors, change))


def _mean_and_deviation(sums: Array, rows: int) -> tuple[Array, Array]:
    mean = sums[0] / max(rows, 1)
    return mean, np.sqrt(np.maximum(sums[1] / max(rows, 1) - np.square(mean), 0))
