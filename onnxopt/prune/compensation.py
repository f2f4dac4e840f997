"""What a layer loses with single weights, and how the others of an output make up for those that are gone.

Weights are [groups, outputs, inputs], float64; ``moments`` are the mean products of what they are multiplied with,
[groups, inputs, inputs]. A layer's error is then the mean square of what its outputs are off by.
"""

from __future__ import annotations

import numpy as np

from onnxopt.data.sample import Array

_DAMPING = 1e-2
"""Of the mean square of the inputs, added to each: samples are few (SparseGPT, arXiv:2301.00774, section 3.4)."""

_ROUNDS = 8
"""In which weights go: those of a round are chosen by what has been made up for so far."""

_MOST_STEPS = 100
_ENOUGH = 1e-6
"""Of the square of the gradient, where refitting ends."""


def damped(moments: Array) -> Array:
    """Return moments that can be inverted, though some inputs may be zero in all samples."""
    squares = np.diagonal(moments, axis1=1, axis2=2)
    extra = np.maximum(_DAMPING * squares.mean(1), 1e-30)
    return np.asarray(moments + extra[:, None, None] * np.eye(moments.shape[-1]))


def lost_alone(weights: Array, moments: Array) -> Array:
    """Return which part of a layer's outputs each weight is by itself (Wanda, arXiv:2306.11695, squared)."""
    squares = np.diagonal(moments, axis1=1, axis2=2)
    return np.asarray(np.square(weights) * squares[:, None] / _energy(weights, moments))


def lost_compensated(weights: Array, moments: Array) -> Array:
    """Return which part of a layer's outputs is lost without each weight, the others making up for it.

    Optimal brain surgeon (Hassibi and Stork, 1992): the square of the weight over the inverse's diagonal.
    """
    return np.asarray(np.square(weights) * _precision(moments) / _energy(weights, moments))


def remove_in_rounds(weights: Array, counts: Array, moments: Array) -> Array:
    """Return weights of which so many of each output stay, refitted after each of a few rounds.

    Args:
        weights: [groups, outputs, inputs], float64.
        counts: [groups, outputs], int: weights that stay in the end.
        moments: [groups, inputs, inputs], float64.
    """
    found, inputs, precision = weights, weights.shape[-1], _precision(moments)
    shares = counts[..., None] / inputs
    for done in range(1, _ROUNDS + 1):
        ranks = np.argsort(np.argsort(-np.square(found) * precision, axis=-1, kind="stable"), axis=-1)
        found = refit(weights, ranks < np.round(inputs * shares ** (done / _ROUNDS)), moments)
    return found


def refit(weights: Array, stays: Array, moments: Array) -> Array:
    """Return weights that are zero where they do not stay, the others of each output refitted to what it made.

    Conjugate gradients over all outputs at once, which comes to the least squares of each over its own inputs.

    Args:
        weights: [groups, outputs, inputs], float64.
        stays: Of that shape, bool.
        moments: [groups, inputs, inputs], float64.
    """
    matrix = damped(moments)
    scale = 1 / np.diagonal(matrix, axis1=1, axis2=2)[:, None]
    found = weights * stays
    gradient = ((weights - found) @ matrix) * stays
    scaled = gradient * scale
    direction, before = scaled, _dot(gradient, scaled)
    first = before.sum()
    for _ in range(_MOST_STEPS):
        if before.sum() <= _ENOUGH * first:
            break
        across = (direction @ matrix) * stays
        step = before / np.maximum(_dot(direction, across), 1e-300)
        found = found + step * direction
        gradient = gradient - step * across
        scaled = gradient * scale
        now = _dot(gradient, scaled)
        direction, before = scaled + now / np.maximum(before, 1e-300) * direction, now
    return found


def _precision(moments: Array) -> Array:
    """Return one over the diagonal of the inverse, [groups, 1, inputs]: what of an input the others do not tell."""
    return np.asarray(1 / np.diagonal(np.linalg.inv(damped(moments)), axis1=1, axis2=2)[:, None])


def _energy(weights: Array, moments: Array) -> float:
    """Return the mean square of what a layer makes, over all its outputs."""
    return max(float(((weights @ moments) * weights).sum()), 1e-30)


def _dot(one: Array, other: Array) -> Array:
    """Return the products of rows, [groups, outputs, 1]."""
    return np.asarray((one * other).sum(-1, keepdims=True))
