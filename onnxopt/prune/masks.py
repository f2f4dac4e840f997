"""Masks: which numbers of a weight stay, by how much each matters; what pruning of weights once or in training shares.

A mask is a bool array of the weight's shape, True where the number stays. Scores are of that shape too, at least zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from onnxopt.data.sample import Array


def largest(scores: Mapping[str, Array], keep: float) -> dict[str, Array]:
    """Return masks that keep the largest scores over all weights together.

    Args:
        scores: By weight.
        keep: Share of all numbers that stay; of equal scores the first.
    """
    flat = np.concatenate([one.reshape(-1) for one in scores.values()])
    stays = np.zeros(len(flat), bool)
    stays[np.argsort(-flat, kind="stable")[: round(keep * len(flat))]] = True
    ends = np.cumsum([one.size for one in scores.values()])[:-1]
    parts = np.split(stays, ends)
    return {name: part.reshape(one.shape) for (name, one), part in zip(scores.items(), parts, strict=True)}


def n_of_m(scores: Array, n: int, m: int, axis: int) -> Array:
    """Return a mask that keeps the ``n`` largest of every ``m`` neighbours along an axis (arXiv:2104.08378).

    What is left over at the end of the axis, fewer than ``m``, stays.
    """
    moved = np.moveaxis(scores, axis, -1)
    whole = moved.shape[-1] // m * m
    groups = moved[..., :whole].reshape(*moved.shape[:-1], -1, m)
    order = np.argsort(-groups, axis=-1, kind="stable")
    stays = np.zeros(groups.shape, bool)
    np.put_along_axis(stays, order[..., :n], True, axis=-1)
    mask = np.ones(moved.shape, bool)
    mask[..., :whole] = stays.reshape(*moved.shape[:-1], whole)
    return np.moveaxis(mask, -1, axis)


def block_sums(scores: Array, rows: int, columns: int) -> Array:
    """Return the scores of blocks of a matrix, [outputs / rows, inputs / columns], those at the edges smaller.

    Args:
        scores: [outputs, …]; all axes but the first count as inputs.
        rows: Height of a block.
        columns: Its width.
    """
    matrix = scores.reshape(len(scores), -1)
    padded = np.pad(matrix, [(0, -matrix.shape[0] % rows), (0, -matrix.shape[1] % columns)])
    return np.asarray(padded.reshape(padded.shape[0] // rows, rows, -1, columns).sum((1, 3)))


def spread_blocks(stays: Array, shape: tuple[int, ...], rows: int, columns: int) -> Array:
    """Return the mask of a weight of this shape whose blocks stay or go; the inverse of ``block_sums``."""
    wide = stays.repeat(rows, 0).repeat(columns, 1)
    return wide[: shape[0], : math.prod(shape[1:])].reshape(shape)
