"""How much a model may lose, and whether it lost more."""

from __future__ import annotations

from dataclasses import dataclass

from onnxopt.evaluate.drift import Drift, OutputDrift
from onnxopt.evaluate.score import Interval, Scores

_ROUNDING = 1e-9
"""Of a drop: in floating point, going from 1 to 0.99 loses a little more than 0.01."""

LOST_DB = 3.0
"""A part of an output below this is more noise than signal, however well the rest of the output is kept."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a result may lose.

    Attributes:
        max_drop: Relative loss of the metric, as a share (0.01 is 1 %).
        min_sqnr: dB at every float output, where there is no metric.
        min_agreement: Share of equal decisions at a classifier's or integer output, where there is no metric.
    """

    max_drop: float = 0.01
    min_sqnr: float = 20.0
    min_agreement: float = 0.99


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether the budget is kept, and why (not)."""

    kept: bool
    reason: str


def judge(scores: Scores, budget: Budget, classifiers: frozenset[str] = frozenset()) -> Judgement:
    """Hold scores against a budget.

    The metric decides where there is one. Where there are too few decisions for the metric to show a loss as small as
    the budget (one of 20 is 5 %), the outputs must also stay close to the original's.

    Args:
        scores: With a drop, or with drift, or both.
        budget: What may be lost.
        classifiers: Outputs whose argmax is what users read.
    """
    broken = _nonfinite(scores.drift)
    if broken:
        return Judgement(False, broken)
    if scores.drop is None:
        return _judge_drift(scores.drift, budget, classifiers)
    if not scores.drop.value <= budget.max_drop + _ROUNDING:
        return Judgement(False, f"{_metric_text(scores)}: more than the budget of {budget.max_drop:.2%}")
    if resolves(scores, budget):
        return Judgement(True, _metric_text(scores))
    close = _judge_drift(scores.drift, budget, classifiers)
    note = (
        f"{_metric_text(scores)}; {scores.decisions} decisions cannot show a loss of {budget.max_drop:.2%}, so also: "
    )
    return Judgement(close.kept, note + close.reason)


def resolves(scores: Scores, budget: Budget) -> bool:
    """Whether the samples could have shown a loss as small as the budget.

    Either there are enough decisions for the loss of one right one to stay within it, or the drop varies from resample
    to resample and its whole interval lies within it. An interval of no width only says that nothing was seen.
    """
    right = scores.decisions * min(abs(scores.baseline or 0.0), 1.0)
    if scores.drift is None or right * budget.max_drop >= 1 - _ROUNDING:
        return True
    drop = scores.drop
    if drop is None or drop.low is None or drop.high is None:
        return False
    return drop.low < drop.high <= budget.max_drop


def _judge_drift(drift: Drift | None, budget: Budget, classifiers: frozenset[str]) -> Judgement:
    if drift is None:
        return Judgement(False, "there is neither a metric nor the original's outputs to judge by")
    if all(output.constant or not output.elements for output in drift.outputs):
        return Judgement(False, "no output of the input model varies on these samples: they cannot show a loss")
    judged = [(output, _output_figure(output, budget, output.name in classifiers)) for output in drift.outputs]
    failed = [(output.name, text) for output, (kept, text) in judged if not kept]
    if failed:
        return Judgement(False, "; ".join(f"output {name!r}: {text}" for name, text in failed[:3]))
    told = [f"output {output.name!r}: {text}" for output, (_, text) in judged]
    return Judgement(True, "; ".join(told[:3]))


def _output_figure(output: OutputDrift, budget: Budget, classifier: bool) -> tuple[bool, str]:
    decides = output.sqnr_db is None or (classifier and output.decisive)
    if decides and output.agreement is not None:
        return output.agreement >= budget.min_agreement, (
            f"{output.agreement:.2%} of decisions agree (at least {budget.min_agreement:.2%})"
        )
    if output.sqnr_db is None or output.constant:
        same = not output.max_error
        return same, "constant, and unchanged" if same else "constant in the original, and no longer"
    part = output.worst_part
    if output.sqnr_db >= budget.min_sqnr and part is not None and part.sqnr_db < LOST_DB:
        return (
            False,
            f"{output.sqnr_db:.1f} dB, but index {part.index} of axis {part.axis} is lost: {part.sqnr_db:.1f} dB",
        )
    return output.sqnr_db >= budget.min_sqnr, f"{output.sqnr_db:.1f} dB (at least {budget.min_sqnr:.1f} dB)"


def _nonfinite(drift: Drift | None) -> str | None:
    for output in drift.outputs if drift else ():
        if output.nonfinite:
            return (
                f"output {output.name!r} has {output.nonfinite} values that became, or no longer are, NaN or infinite"
            )
    return None


def _metric_text(scores: Scores) -> str:
    assert scores.drop is not None
    assert scores.score is not None
    direction = "lost" if scores.drop.value > 0 else "gained"
    return (
        f"{scores.metric} {scores.baseline:.4f} → {scores.score.value:.4f},"
        f" {direction} {abs(scores.drop.value):.2%}{_interval_text(scores.drop)} on {scores.samples} samples"
    )


def _interval_text(drop: Interval) -> str:
    """Return the drop's interval where it says more than the drop."""
    if drop.low is None or drop.high is None or drop.low == drop.high:
        return ""
    return f" [{drop.low:+.2%}, {drop.high:+.2%} lost]"
