"""Every way a budget is kept or broken, and the reason given."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from onnxopt.evaluate.budget import Budget, judge, resolves
from onnxopt.evaluate.drift import Drift, OutputDrift, PartDrift
from onnxopt.evaluate.score import Interval, Scores

FLOATS = OutputDrift("y", 30.0, 0.2, 0.999, 0.9, 0, constant=False, elements=100)
INTS = OutputDrift("k", None, None, None, 0.995, 0, constant=False, elements=100)
INTS_ALIKE = replace(INTS, constant=True)


def _drift(*outputs: OutputDrift) -> Scores:
    return Scores(20, decisions=20, drift=Drift(outputs))


def _metric(score: float, baseline: float, decisions: int = 1000, drift: Drift | None = None) -> Scores:
    drop = Interval((baseline - score) / baseline)
    return Scores(20, decisions, "top1", Interval(score), baseline, drop, drift)


@pytest.mark.parametrize(
    ("scores", "kept", "reason"),
    [
        (_metric(0.8, 0.8), True, "top1 0.8000 → 0.8000, gained 0.00% on 20 samples"),
        (_metric(0.9, 0.8), True, "top1 0.8000 → 0.9000, gained 12.50% on 20 samples"),
        (_metric(0.792, 0.8), True, "lost 1.00% on 20 samples"),
        (_metric(0.99, 1.0, 100, Drift((FLOATS,))), True, "lost 1.00% on 20 samples"),
        (_metric(0.791, 0.8), False, "lost 1.13% on 20 samples: more than the budget of 1.00%"),
        (_metric(math.nan, 0.8), False, "more than the budget of 1.00%"),
        (
            _metric(0.8, 0.8, 20, Drift((FLOATS,))),
            True,
            "20 decisions cannot show a loss of 1.00%, so also: output 'y'",
        ),
        (
            _metric(0.8, 0.8, 20, Drift((replace(FLOATS, sqnr_db=5.0),))),
            False,
            "so also: output 'y': 5.0 dB (at least 20.0 dB)",
        ),
        (_metric(0.8, 0.8, 20, None), True, "top1 0.8000 → 0.8000, gained 0.00% on 20 samples"),
        (_metric(0.8, 0.8, 125, Drift((replace(FLOATS, sqnr_db=5.0),))), True, "gained 0.00% on 20 samples"),
        (
            _metric(0.8, 0.8, 124, Drift((replace(FLOATS, sqnr_db=5.0),))),
            False,
            "124 decisions cannot show a loss of 1.00%",
        ),
        (Scores(20), False, "there is neither a metric nor the original's outputs to judge by"),
    ],
    ids=[
        "same",
        "better",
        "edge",
        "one-of-100",
        "over",
        "nan",
        "few",
        "few-and-far",
        "few-no-drift",
        "enough",
        "enough-were-all-right",
        "nothing",
    ],
)
def test_a_metric_decides_where_it_can_tell(scores: Scores, kept: bool, reason: str) -> None:
    found = judge(scores, Budget())
    assert found.kept is kept
    assert reason in found.reason


@pytest.mark.parametrize(
    ("output", "kept", "reason"),
    [
        (FLOATS, True, "output 'y': 30.0 dB (at least 20.0 dB)"),
        (replace(FLOATS, sqnr_db=20.0), True, "20.0 dB"),
        (replace(FLOATS, sqnr_db=19.9), False, "19.9 dB (at least 20.0 dB)"),
        (INTS, True, "99.50% of decisions agree (at least 99.00%)"),
        (replace(INTS, agreement=0.98), False, "98.00% of decisions agree (at least 99.00%)"),
        (replace(FLOATS, constant=True, max_error=0.0), True, "constant, and unchanged"),
        (replace(FLOATS, constant=True, max_error=math.inf), False, "constant in the original, and no longer"),
        (replace(FLOATS, nonfinite=3), False, "output 'y' has 3 values that became, or no longer are, NaN or infinite"),
    ],
    ids=["far", "edge", "low", "ints", "ints-low", "constant", "not-constant", "nonfinite"],
)
def test_drift_decides_where_there_is_no_metric(output: OutputDrift, kept: bool, reason: str) -> None:
    found = judge(_drift(output, replace(INTS, name="other")), Budget())
    assert found.kept is kept
    assert reason in found.reason


@pytest.mark.parametrize(
    "outputs",
    [
        (),
        (replace(FLOATS, constant=True, max_error=0.0),),
        (replace(FLOATS, elements=0),),
        (replace(INTS, constant=True),),
    ],
    ids=["none", "constant", "empty", "one-answer"],
)
def test_outputs_that_show_nothing_keep_no_budget(outputs: tuple[OutputDrift, ...]) -> None:
    found = judge(_drift(*outputs), Budget())
    assert not found.kept
    assert "cannot show a loss" in found.reason


def test_a_lost_part_breaks_the_budget_however_good_the_rest_is() -> None:
    found = judge(_drift(replace(FLOATS, sqnr_db=66.5, worst_part=PartDrift(1, 57, 0.2))), Budget())
    assert not found.kept
    assert found.reason == "output 'y': 66.5 dB, but index 57 of axis 1 is lost: 0.2 dB"
    assert judge(_drift(replace(FLOATS, worst_part=PartDrift(1, 57, 12.0))), Budget()).kept


def test_a_classifier_that_always_said_the_same_is_judged_by_its_scores() -> None:
    scores = _drift(replace(FLOATS, sqnr_db=3.0, agreement=1.0, decisive=False))
    assert not judge(scores, Budget(), frozenset({"y"})).kept


@pytest.mark.parametrize(("agreement", "kept"), [(1.0, True), (0.9, False)])
def test_a_classifier_is_judged_by_its_decisions(agreement: float, kept: bool) -> None:
    scores = _drift(replace(FLOATS, sqnr_db=3.0, agreement=agreement))
    assert judge(scores, Budget(), frozenset({"y"})).kept is kept
    assert not judge(scores, Budget()).kept


def test_nan_breaks_any_budget_whatever_the_metric_says() -> None:
    scores = _metric(0.9, 0.8, 1000, Drift((replace(FLOATS, nonfinite=1),)))
    assert not judge(scores, Budget(max_drop=1.0)).kept


def test_one_bad_output_of_many_is_enough_and_named() -> None:
    found = judge(_drift(FLOATS, replace(INTS, agreement=0.5), FLOATS), Budget())
    assert not found.kept
    assert found.reason == "output 'k': 50.00% of decisions agree (at least 99.00%)"


@pytest.mark.parametrize(
    ("decisions", "budget", "enough"), [(125, 0.01, True), (124, 0.01, False), (25, 0.05, True), (10**6, 0.0, False)]
)
def test_one_decision_must_fit_the_budget(decisions: int, budget: float, enough: bool) -> None:
    scores = replace(_metric(0.8, 0.8), decisions=decisions, drift=Drift((FLOATS,)))
    assert resolves(scores, Budget(max_drop=budget)) is enough


@pytest.mark.parametrize(
    ("limits", "kept"), [({"min_sqnr": 31.0}, False), ({"min_sqnr": 29.0}, True), ({"min_agreement": 0.999}, True)]
)
def test_limits_are_the_callers(limits: dict[str, Any], kept: bool) -> None:
    assert judge(_drift(FLOATS), Budget(**limits)).kept is kept
