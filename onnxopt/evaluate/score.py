"""Running a model over samples: its score, the drop against the original, and the drift of its outputs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxopt.compile.engine import Engine
from onnxopt.data.sample import Sample, Samples
from onnxopt.errors import DataError
from onnxopt.evaluate.drift import Drift, DriftMeter
from onnxopt.evaluate.metrics import Metric
from onnxopt.evaluate.store import OutputStore

_RESAMPLES = 200
_RESAMPLE_SECONDS = 3.0
"""Metrics in user code can be slow; intervals are left out rather than let them take over the run."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and its 95 % bootstrap interval over the samples; the ends are None where it cannot be had."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """What a model scored on some samples.

    Attributes:
        samples: Number of samples.
        decisions: How many right or wrong answers the score comes from; 0 where it is no share of such.
        metric: Name of the metric; None if only drift was measured.
        score: Of this model.
        baseline: Of the original model on the same samples, where its outputs were given.
        drop: Relative loss against the original, positive when worse; resampled in pairs.
        drift: Of the outputs against the original's, where those were given.
    """

    samples: int
    decisions: int = 0
    metric: str | None = None
    score: Interval | None = None
    baseline: float | None = None
    drop: Interval | None = None
    drift: Drift | None = None


def evaluate(
    engine: Engine,
    samples: Samples,
    metric: Metric | None = None,
    *,
    reference: OutputStore | None = None,
    keep: OutputStore | None = None,
) -> Scores:
    """Run every sample and score the outputs.

    Args:
        engine: The model.
        samples: With labels, if the metric needs them.
        metric: None to measure drift alone.
        reference: The original model's outputs on the same samples.
        keep: Where to keep this model's outputs.

    Raises:
        DataError: A label is missing, or does not fit the outputs.
        EngineError: The model fails on a sample.
    """
    mine: list[Any] = []
    theirs: list[Any] = []
    meter = DriftMeter()
    decisions = 0
    for index, sample in enumerate(samples):
        outputs = engine.run(sample.feeds)
        original = reference.read(index) if reference else None
        decisions += 0 if metric is None or sample.label is None else metric.decisions(sample.label)
        if keep is not None:
            keep.write(index, outputs)
        if original is not None:
            meter.add(original, outputs)
        if metric is not None:
            mine.append(_contribution(metric, outputs, original, sample))
            theirs.extend([] if original is None else [_contribution(metric, original, original, sample)])
    scores = _scores(len(samples), metric, mine, theirs)
    return replace(scores, decisions=decisions, drift=meter.result() if reference else None)


def relative_drop(metric: Metric, score: float, baseline: float) -> float:
    """Return the loss as a share of the baseline, positive when worse; absolute where the baseline is 0."""
    loss = baseline - score if metric.higher_is_better else score - baseline
    return loss / abs(baseline) if baseline else loss


def _contribution(metric: Metric, outputs: Any, original: Any, sample: Sample) -> Any:
    if metric.needs == "reference":
        if original is None:
            raise DataError(f"metric {metric.name!r} compares with another model's outputs, and there are none")
        return metric.measure(outputs, original)
    if sample.label is None:
        raise DataError(
            f"metric {metric.name!r} needs labels", where=sample.name, hint="add an array 'label' to each sample"
        )
    try:
        return metric.measure(outputs, sample.label)
    except DataError as error:
        error.where = error.where or sample.name
        raise


def _scores(count: int, metric: Metric | None, mine: Sequence[Any], theirs: Sequence[Any]) -> Scores:
    if metric is None:
        return Scores(count)
    value = metric.combine(mine)
    if not theirs:
        rows = _resampled(count, lambda picks: (metric.combine([mine[i] for i in picks]),))
        return Scores(count, metric=metric.label, score=_interval(value, rows, 0))
    baseline = metric.combine(theirs)
    if math.isnan(baseline) or (metric.higher_is_better and baseline == 0):
        raise DataError(
            f"the input model itself scores {baseline:g} by {metric.label}: no loss could be told",
            hint="check that labels and metric fit the model; class numbers start at 0",
        )

    def both(picks: Sequence[int]) -> tuple[float, float]:
        score = metric.combine([mine[i] for i in picks])
        return score, relative_drop(metric, score, metric.combine([theirs[i] for i in picks]))

    rows = _resampled(count, both)
    drop = _interval(relative_drop(metric, value, baseline), rows, 1)
    return Scores(count, metric=metric.label, score=_interval(value, rows, 0), baseline=baseline, drop=drop)


def _resampled(count: int, figures: Callable[[Sequence[int]], tuple[float, ...]]) -> list[tuple[float, ...]]:
    """Return figures of resamples of the samples, as many as there is time for."""
    random = np.random.default_rng(0)
    end = time.perf_counter() + _RESAMPLE_SECONDS
    found: list[tuple[float, ...]] = []
    while len(found) < _RESAMPLES and time.perf_counter() < end:
        found.append(figures(random.integers(0, count, count).tolist()))
    return found


def _interval(value: float, rows: Sequence[tuple[float, ...]], column: int) -> Interval:
    finite = [row[column] for row in rows if math.isfinite(row[column])]
    if len(finite) < _RESAMPLES // 2:
        return Interval(value)
    low, high = np.percentile(finite, [2.5, 97.5])
    return Interval(value, float(low), float(high))
