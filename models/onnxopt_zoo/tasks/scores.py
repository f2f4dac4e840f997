"""Measures that several tasks share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxopt_zoo.samples import Array, Outputs


def area_under_curve(scores: Array, positive: Array) -> float:
    """Return the area under the ROC curve: how often a positive outscores a negative, ties counting half.

    Args:
        scores: [n], larger for what is more likely positive.
        positive: [n], true for the positives.

    Returns:
        0 to 1; 0 if any score is not a number, and not a number if all are positive, or none.
    """
    if np.isnan(scores).any():
        return 0.0
    truth = positive.astype(bool)
    negatives = np.sort(scores[~truth])
    if not truth.any() or not negatives.size:
        return float("nan")
    below = np.searchsorted(negatives, scores[truth], side="left")
    not_above = np.searchsorted(negatives, scores[truth], side="right")
    return float(np.mean(below + not_above) / (2 * negatives.size))


def only(output: Outputs) -> Array:
    """Return the value of a model's only output."""
    (value,) = output.values()
    return value


def top1_accuracy(outputs: Sequence[Outputs], labels: Sequence[Array]) -> float:
    """Return the part of rows whose best class is right.

    The only output is [batch, classes]; a label is [batch], or lists every class that is right for a batch of one.
    """
    right: list[bool] = []
    for output, label in zip(outputs, labels, strict=True):
        best = only(output).argmax(axis=-1)
        right += (best == label).tolist() if best.size == label.size else np.isin(best, label).tolist()
    return float(np.mean(right))
