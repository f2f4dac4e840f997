"""Each metric against figures worked out by hand, scikit-learn's or scipy's."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxopt.errors import DataError, UsageError
from onnxopt.evaluate.metrics import Metric, edit_distance, make_metric
from onnxopt.registry import names
from onnxopt.user_code import UserCodeError

GOALS = {"mse": False, "cer": False, "wer": False, "perplexity": False}


def _score(metric: str | Metric, outputs: Sequence[np.ndarray], truths: Sequence[Any], **options: Any) -> float:
    made = make_metric(metric, options) if isinstance(metric, str) else metric
    return made.combine([made.measure({"y": y}, truth) for y, truth in zip(outputs, truths, strict=True)])


def _ctc(ids: Sequence[int], classes: int = 6) -> np.ndarray:
    """Return scores [1, time, classes] whose greedy reading is ``ids``."""
    return np.eye(classes, dtype=np.float32)[list(ids)][None]


@pytest.fixture
def batches() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Scores of five classes and labels, in batches of different size."""
    random = np.random.default_rng(0)
    labels = [random.integers(0, 5, size) for size in (7, 4, 9)]
    scores = [random.standard_normal((len(one), 5)) + 1.2 * np.eye(5)[one] for one in labels]
    return [one.astype(np.float32) for one in scores], labels


@pytest.mark.parametrize("name", names("metrics"))
def test_every_metric_knows_which_way_is_better(name: str) -> None:
    assert make_metric(name).higher_is_better == GOALS.get(name, True)
    assert make_metric(name).label == name


def test_top1_counts_right_decisions_over_all_samples() -> None:
    first = np.array([[0.1, 0.9], [0.8, 0.2]])
    assert _score("top1", [first, np.array([[0.6, 0.4]])], [[1, 0], [1]]) == pytest.approx(2 / 3)


def test_a_tie_goes_to_the_first_class() -> None:
    tied = np.zeros((1, 6))
    assert [_score("top1", [tied], [[label]]) for label in (0, 1)] == [1.0, 0.0]
    assert [_score("top5", [tied], [[label]]) for label in (4, 5)] == [1.0, 0.0]


def test_decisions_lie_along_the_last_axis_longer_than_one() -> None:
    scores = np.eye(3)[[2, 0, 1, 1]]
    for shape in ((4, 3), (1, 4, 3), (4, 3, 1, 1)):
        assert _score("top1", [scores.reshape(shape)], [[2, 0, 1, 0]]) == 0.75


def test_the_output_is_chosen_by_name() -> None:
    outputs = {"a": np.array([[1.0, 0.0]]), "b": np.array([[0.0, 1.0]])}
    chosen = make_metric("top1", {"output": "b"})
    assert chosen.combine([chosen.measure(outputs, np.array([1]))]) == 1.0
    with pytest.raises(UsageError, match="the model has no output 'c'\n  hint: it has: a, b"):
        make_metric("top1", {"output": "c"}).measure(outputs, np.array([1]))


def test_f1_is_sklearns(batches: tuple[list[np.ndarray], list[np.ndarray]]) -> None:
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn gives the expected figure")
    scores, labels = batches
    guess, truth = np.concatenate([one.argmax(1) for one in scores]), np.concatenate(labels)
    assert _score("f1", scores, labels) == pytest.approx(sklearn.f1_score(truth, guess, average="macro"))
    binary = _score("f1", scores, labels, average="binary")
    assert binary == pytest.approx(sklearn.f1_score(truth == 1, guess == 1))


def test_f1_counts_a_class_that_is_only_predicted() -> None:
    """Class 0: 2 of 2 found, one of three right among guesses; class 2 is never true, so its F1 is 0."""
    scores = np.eye(3)[[0, 0, 2]]
    assert _score("f1", [scores], [[0, 0, 0]]) == pytest.approx((0.8 + 0) / 2)


@pytest.mark.parametrize("ties", [False, True])
def test_auc_is_sklearns(ties: bool) -> None:
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn gives the expected figure")
    random = np.random.default_rng(1)
    labels = random.integers(0, 2, 60)
    scores = random.standard_normal(60) + labels
    scores = np.round(scores) if ties else scores
    want = sklearn.roc_auc_score(labels, scores)
    assert _score("auc", np.split(scores, 4), np.split(labels, 4)) == pytest.approx(want)
    both = np.stack([-scores, scores], axis=1)
    assert _score("auc", [both], [labels]) == pytest.approx(want)
    assert _score("auc", [both], [labels], positive=0) == pytest.approx(1 - want)


def test_auc_of_one_class_is_undefined() -> None:
    assert math.isnan(_score("auc", [np.array([0.1, 0.9])], [[1, 1]]))


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_correlations_are_scipys(name: str) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy gives the expected figure")
    random = np.random.default_rng(2)
    labels = random.integers(0, 6, 40).astype(np.float64)
    values = labels**3 + random.standard_normal(40) * 20
    want = getattr(stats, f"{name}r")(values, labels).statistic
    assert _score(name, np.split(values.astype(np.float32), 5), np.split(labels, 5)) == pytest.approx(want, rel=1e-5)


def test_a_constant_correlates_with_nothing() -> None:
    assert math.isnan(_score("pearson", [np.ones(4)], [np.arange(4.0)]))


def test_mse_averages_over_values_not_samples() -> None:
    outputs, labels = [np.array([[1.0, 2.0, 3.0]]), np.array([5.0])], [np.zeros((1, 3)), np.array([4.0])]
    assert _score("mse", outputs, labels) == pytest.approx((1 + 4 + 9 + 1) / 4)


@pytest.mark.parametrize(
    ("a", "b", "edits"),
    [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("flaw", "lawn", 2), ("ab", "ab", 0)],
)
def test_edit_distance(a: str, b: str, edits: int) -> None:
    assert edit_distance(a, b) == edit_distance(b, a) == edits


def test_cer_merges_repeats_and_drops_blanks() -> None:
    read = _ctc([0, 2, 2, 0, 2, 3, 0, 4])
    assert _score("cer", [read], [[2, 2, 3, 4]]) == 0.0
    assert _score("cer", [read, _ctc([1, 1])], [[2, 5, 3, 4], [1, 0]]) == pytest.approx(2 / 6)
    assert _score("cer", [_ctc([5, 2, 5])], [[2]], blank=5) == 0.0


def test_wer_counts_words() -> None:
    read = _ctc([2, 3, 1, 4, 0, 4, 1, 1, 5])
    assert _score("wer", [read], [[2, 3, 1, 4, 4, 1, 5]]) == 0.0
    assert _score("wer", [read], [[2, 3, 1, 4, 1, 5, 1, 2]]) == pytest.approx(2 / 4)
    assert _score("wer", [_ctc([2, 5, 3])], [[2, 5, 4]], space=5) == pytest.approx(1 / 2)


def test_perplexity_is_of_the_next_token_over_all_samples() -> None:
    """Probabilities 1/2 and 1/4 in the first sample, 1/8 in the second: the geometric mean is 1/4."""
    chances = {0: [0.5, 0.25, 0.125, 0.125], 1: [0.25, 0.25, 0.25, 0.25], 2: [0.125, 0.5, 0.25, 0.125]}
    first = np.log(np.array([[chances[0], chances[1], chances[2]]])) + 7
    second = np.log(np.array([[chances[2], chances[1]]]))
    assert _score("perplexity", [first, second], [[[3, 0, 2]], [1, 3]]) == pytest.approx(4)
    assert _score("perplexity", [first], [[[3, 0, -100]]]) == pytest.approx(2)
    assert math.isnan(_score("perplexity", [second[:, :1]], [[1]]))


def test_perplexity_bears_logits_no_exponential_bears() -> None:
    logits = np.array([[[1e4, 0.0], [0.0, 0.0]]], np.float32)
    assert _score("perplexity", [logits], [[0, 0]]) == pytest.approx(1)
    assert _score("perplexity", [logits], [[0, 1]]) == np.inf


@pytest.mark.parametrize(
    ("name", "output", "label", "text"),
    [
        ("perplexity", np.zeros((1, 3, 9)), [1, 1], r"the label has 2 token ids, the output is \[1, 3, 9\]"),
        ("perplexity", np.zeros((1, 2, 9)), [8, 9], "the label has the token id 9, the output 9 logits a token"),
        ("perplexity", np.zeros((3, 9)), [1, 1, 1], r"the label has 3 token ids, the output is \[3, 9\]"),
        ("top1", np.zeros((3, 2)), [1, 1], "the label has 2 entries, the outputs 3 decisions"),
        ("f1", np.zeros((3, 2)), [1, 1], "the label has 2 entries, the outputs 3 decisions"),
        ("top1", np.zeros((3, 1)), [1, 1, 1], r"an output of shape \[3, 1\] holds no scores by class"),
        ("auc", np.zeros((3, 2)), [1, 1], "the label has 2 entries, the output 3 scores"),
        ("pearson", np.zeros(3), [1, 1], "the label has 2 entries, the output 3 values"),
        ("mse", np.zeros((1, 3)), [[1, 1]], "the label has 2 entries, the output 3 values"),
    ],
)
def test_a_label_of_another_length_is_refused(name: str, output: np.ndarray, label: Any, text: str) -> None:
    with pytest.raises(DataError, match=text):
        _score(name, [output], [label])


def test_fidelity_is_of_the_worst_output() -> None:
    random = np.random.default_rng(3)
    truth = {"good": random.standard_normal((8, 500)), "bad": random.standard_normal((8, 500)) * 1e-6}
    noise = {"good": 0.001, "bad": 0.1e-6}
    outputs = {name: a + noise[name] * random.standard_normal(a.shape) for name, a in truth.items()}
    scores = {n: make_metric(n) for n in ("sqnr", "cosine", "agreement")}
    found = {n: m.combine([m.measure(outputs, truth)]) for n, m in scores.items()}
    assert found["sqnr"] == pytest.approx(20, abs=0.3)
    a, b = truth["bad"].ravel(), outputs["bad"].ravel()
    assert found["cosine"] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    want = np.mean(outputs["bad"].argmax(1) == truth["bad"].argmax(1))
    assert found["agreement"] == pytest.approx(want)


def test_fidelity_is_pooled_over_samples() -> None:
    metric = make_metric("sqnr")
    truths = [np.array([1.0, -1.0]), np.array([3.0, -3.0])]
    found = metric.combine([metric.measure({"y": t + 0.1}, {"y": t}) for t in truths])
    assert found == pytest.approx(10 * math.log10(5.0 / 0.01))


@pytest.mark.parametrize(
    ("name", "options", "goal", "text"),
    [
        ("top-1", {}, None, "there is no metric 'top-1'\n  hint: did you mean 'top1'?"),
        ("top1", {}, "min", "metric 'top1' has its own goal"),
        ("auc", {"positive": "1"}, None, 'positive is "1": it should be a valid integer'),
        ("f1", {"average": "micro"}, None, "average is \"micro\": it should be 'macro' or 'binary'"),
        ("no.such.module:f", {}, None, "there is no module 'no'"),
    ],
)
def test_a_metric_that_cannot_be_made_says_why(name: str, options: Any, goal: Any, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        _score(make_metric(name, options, goal=goal), [np.zeros(1)], [0])
    assert text in str(caught.value)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's module with metrics."""
    file = tmp_path / "my_metrics.py"
    file.write_text(
        "def total(outputs, labels):\n"
        "    return sum(float(o['y'].sum()) * float(l) for o, l in zip(outputs, labels, strict=True))\n"
        "def broken(outputs, labels):\n"
        "    return 1 / 0\n"
        "def wordy(outputs, labels):\n"
        "    return 'high'\n"
        "def nothing(outputs, labels):\n"
        "    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_metrics", raising=False)
    return file


def test_a_users_function_gets_all_outputs_and_labels(mine: Path) -> None:
    metric = make_metric("my_metrics:total", goal="min")
    assert _score(metric, [np.array([1.0, 2.0]), np.array([4.0])], [10.0, 100.0]) == 430.0
    assert (metric.label, metric.higher_is_better) == ("total", False)
    assert make_metric("my_metrics:total").higher_is_better


def test_a_users_function_that_raises_is_told_with_its_line(mine: Path) -> None:
    with pytest.raises(UserCodeError, match="my_metrics:broken raised ZeroDivisionError: division by zero") as caught:
        _score(make_metric("my_metrics:broken"), [np.zeros(1)], [0])
    assert caught.value.where == f"{mine}:4"


@pytest.mark.parametrize(("name", "value"), [("wordy", "'high'"), ("nothing", "None")])
def test_a_users_function_must_return_a_number(mine: Path, name: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"my_metrics:{name} returned {value}, not a number"):
        _score(make_metric(f"my_metrics:{name}"), [np.zeros(1)], [0])


def test_the_fingerprint_follows_a_users_code(mine: Path) -> None:
    before = make_metric("my_metrics:total").fingerprint
    assert make_metric("my_metrics:total").fingerprint == before
    mine.write_text(mine.read_text() + "# changed\n")
    assert make_metric("my_metrics:total").fingerprint != before
    assert make_metric("f1").fingerprint != make_metric("f1", {"average": "binary"}).fingerprint
