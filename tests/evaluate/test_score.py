"""Scores over samples: the drop against the original, intervals, and outputs kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxopt.compile.engine import Engine, Feeds, Results
from onnxopt.data.sample import InMemory, Sample
from onnxopt.errors import DataError
from onnxopt.evaluate.metrics import make_metric
from onnxopt.evaluate.score import evaluate, relative_drop
from onnxopt.evaluate.store import OutputStore
from onnxopt.ir.signature import Signature


class Replies(Engine):
    """Gives the outputs it was told to, in order."""

    def __init__(self, outputs: Sequence[Results]) -> None:
        self._outputs = iter(outputs)

    @property
    def signature(self) -> Signature:
        return Signature((), ())

    def run(self, feeds: Feeds) -> Results:
        return next(self._outputs)


def _samples(*labels: object) -> InMemory:
    return InMemory(
        tuple(Sample(f"sample {i}", {}, None if one is None else np.asarray(one)) for i, one in enumerate(labels))
    )


def _says(*classes: int) -> list[Results]:
    return [{"y": np.eye(3, dtype=np.float32)[[one]]} for one in classes]


@pytest.fixture
def store(tmp_path: Path) -> OutputStore:
    return OutputStore(tmp_path)


def test_a_drop_is_relative_to_what_the_original_scores(store: OutputStore) -> None:
    samples = _samples([0], [1], [2], [0], [1])
    metric = make_metric("top1")
    before = evaluate(Replies(_says(0, 1, 2, 0, 2)), samples, metric, keep=store)
    after = evaluate(Replies(_says(0, 1, 2, 1, 2)), samples, metric, reference=store)
    assert before.score is not None
    assert before.score.value == 0.8
    assert (before.baseline, before.drop, before.drift) == (None, None, None)
    assert after.drop is not None
    assert after.drop.value == pytest.approx(0.25)
    assert after.drop.low is not None
    assert after.drop.high is not None
    assert after.drop.low <= 0.25 <= after.drop.high
    assert (after.metric, after.baseline, after.samples, after.decisions) == ("top1", 0.8, 5, 5)
    assert after.drift is not None
    assert after.drift.agreement == 0.8


@pytest.mark.parametrize(
    ("name", "score", "baseline", "drop"),
    [
        ("top1", 0.7, 0.8, 0.125),
        ("top1", 0.9, 0.8, -0.125),
        ("mse", 0.3, 0.2, 0.5),
        ("mse", 0.1, 0.2, -0.5),
        ("pearson", -0.6, -0.5, 0.2),
        ("mse", 0.1, 0.0, 0.1),
    ],
)
def test_a_drop_is_positive_when_worse(name: str, score: float, baseline: float, drop: float) -> None:
    assert relative_drop(make_metric(name), score, baseline) == pytest.approx(drop)


def test_the_interval_is_of_resampled_samples() -> None:
    classes = [0] * 60 + [1] * 40
    found = evaluate(Replies(_says(*([0] * 100))), _samples(*([one] for one in classes)), make_metric("top1"))
    assert found.score is not None
    assert found.score.value == 0.6
    assert found.score.low is not None
    assert found.score.high is not None
    assert found.score.high - found.score.low == pytest.approx(2 * 1.96 * np.sqrt(0.6 * 0.4 / 100), rel=0.25)


def test_an_interval_of_undefined_figures_is_left_out() -> None:
    outputs: list[Results] = [{"y": np.array([0.2])}, {"y": np.array([0.9])}]
    found = evaluate(Replies(outputs), _samples([0], [1]), make_metric("auc"))
    assert found.score is not None
    assert found.score.value == 1.0
    one_class = evaluate(Replies(outputs), _samples([1], [1]), make_metric("auc"))
    assert one_class.score is not None
    assert (one_class.score.low, one_class.score.high) == (None, None)


@pytest.mark.parametrize(
    ("metric", "label", "decisions"),
    [
        ("top1", [0, 1], 2),
        ("f1", 1, 1),
        ("auc", [0, 1, 1], 0),
        ("mse", [0, 1], 0),
        ("cer", [0, 1], 0),
        ("sqnr", [0, 1], 0),
        ("os.path:join", [0, 2, 5], 3),
        ("os.path:join", [0, 0, 1, 0], 1),
        ("os.path:join", [0.5, 0.1], 1),
        ("os.path:join", "text", 1),
    ],
)
def test_a_metric_counts_its_own_decisions(metric: str, label: Any, decisions: int) -> None:
    assert make_metric(metric).decisions(np.asarray(label)) == decisions


@pytest.mark.parametrize("metric", ["top1", "f1", "auc", "pearson", "mse"])
def test_a_label_that_is_a_text_is_refused(metric: str) -> None:
    with pytest.raises(DataError, match=r"the label \['cat'\] is no number"):
        make_metric(metric).measure({"y": np.array([[0.2, 0.8]])}, np.asarray("cat"))


def test_an_input_that_scores_nothing_is_refused(tmp_path: Path) -> None:
    """Labels from 1, say: any model would keep the budget."""
    samples, store = _samples([2], [2]), OutputStore(tmp_path)
    evaluate(Replies(_says(0, 1)), samples, keep=store)
    with pytest.raises(DataError, match="the input model itself scores 0 by top1: no loss could be told"):
        evaluate(Replies(_says(0, 1)), samples, make_metric("top1"), reference=store)


def test_a_missing_label_is_told_with_its_sample() -> None:
    with pytest.raises(DataError, match="metric 'top1' needs labels\n  at:   sample 1\n  hint: add an array 'label'"):
        evaluate(Replies(_says(0, 0)), _samples([0], None), make_metric("top1"))


def test_a_label_that_does_not_fit_is_told_with_its_sample() -> None:
    with pytest.raises(DataError, match="the label has 2 entries, the outputs 1 decisions\n  at:   sample 1"):
        evaluate(Replies(_says(0, 0)), _samples([0], [0, 1]), make_metric("top1"))


def test_fidelity_needs_the_originals_outputs(store: OutputStore) -> None:
    with pytest.raises(DataError, match="metric 'sqnr' compares with another model's outputs, and there are none"):
        evaluate(Replies(_says(0)), _samples(None), make_metric("sqnr"))
    store.write(0, {"y": np.array([1.0, -1.0])})
    found = evaluate(Replies([{"y": np.array([1.1, -1.1])}]), _samples(None), make_metric("sqnr"), reference=store)
    assert found.score is not None
    assert found.score.value == pytest.approx(20.0)


@pytest.mark.parametrize(
    "array",
    [
        np.array([[1.5, np.nan]], np.float16),
        np.array(True),
        np.zeros((0, 4), np.int64),
        np.array(["a", "bé", ""], dtype=object),
    ],
    ids=["float16", "rank-0", "empty", "strings"],
)
@pytest.mark.parametrize("name", ["y", "a/b:0", "file", "allow_pickle", "é"])
def test_stored_outputs_come_back(store: OutputStore, name: str, array: np.ndarray) -> None:
    store.write(3, {name: array, "other": np.ones(2)})
    found = store.read(3)
    assert list(found) == [name, "other"]
    assert found[name].shape == array.shape
    assert found[name].dtype == array.dtype or array.dtype == object
    np.testing.assert_array_equal(found[name], array)
