"""What ``onnxopt prune --sweep`` prints, and its page: what is given up for what."""

from __future__ import annotations

from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from onnxopt.pipeline.sweeping import Sweep, SweptModel
from onnxopt.report import words
from onnxopt.report.curves import Chart, Curve, Panel, Point, curves_page
from onnxopt.report.tables import rows_table

_READ = "Each point is a model in the folder; its distance from the dotted line, which is the input, is what it lost."
_AGAINST = "Latency falls with the multiply-accumulates where a point lies as low as it lies left."


def swept_table(found: Sweep, out: Path) -> RenderableType:
    """Return a row a model."""
    head = ("model", "MACs left", "parameters", "size", found.metric or "", "drop", "SQNR", "speed-up")
    rows = [_row(one) for one in found.models]
    before = "" if found.baseline is None else f"; the input's {found.metric} is {found.baseline:.4f}"
    notes = [Text(f"note: {note}", style="yellow") for note in found.notes]
    return Group(
        rows_table(head, rows, right=range(1, len(head))), *notes, Text(f"wrote {out}, see report.html{before}")
    )


def swept_page(found: Sweep) -> str:
    """Return the page: accuracy, or fidelity where there is no metric, and latency, by what is left."""
    fastest = max(found.models, key=lambda one: one.speedup.ratio)
    return curves_page(
        [_quality(found), _latency(found)],
        title=Path(found.model).name,
        headline=f"{found.method} removed: {_told(found, fastest)}",
        subtitle=f"{found.model} on {found.machine}",
        tiles=[(f"with {one.macs:.0%} of the MACs", words.speed(one.speedup)) for one in found.models],
        notes=found.notes,
    )


def _told(found: Sweep, one: SweptModel) -> str:
    return f"at {one.macs:.0%} of the multiply-accumulates {_value(found, one)}, {words.speed(one.speedup)}"


def _row(one: SweptModel) -> tuple[str, ...]:
    scores = one.scores
    return (
        one.file,
        f"{one.macs:.1%}",
        f"{one.parameters:.1%}",
        words.size(one.size_bytes),
        "-" if scores.score is None else f"{scores.score.value:.4f}",
        "-" if scores.drop is None else f"{scores.drop.value:.2%}",
        words.decibel(scores.drift.sqnr_db if scores.drift else None),
        words.speed(one.speedup),
    )


def _quality(found: Sweep) -> Chart:
    """Return score or SQNR by what is left."""
    points = tuple(
        _point(one, height, _told(found, one)) for one in found.models if (height := _height(one)) is not None
    )
    panel = Panel(Path(found.model).name, (Curve(found.method, points),), found.baseline)
    title, up, digits = ("Accuracy", found.metric, 4) if found.metric else ("Fidelity", "SQNR, dB", 1)
    return Chart(f"{title} against what is left", _READ, "multiply-accumulates left, %", up or "", (panel,), digits)


def _latency(found: Sweep) -> Chart:
    """Return the ratio of latencies by what is left, beside the line on which they fall together."""
    points = tuple(_point(one, 100 / one.speedup.ratio, words.speed(one.speedup)) for one in found.models)
    even = tuple(_point(one, 100 * one.macs, "as few as multiply-accumulates") for one in found.models)
    curves = (Curve("latency", points), Curve("multiply-accumulates", even, quiet=True))
    panel = Panel(Path(found.model).name, curves, 100.0)
    return Chart("Latency against what is left", _AGAINST, "multiply-accumulates left, %", "latency left, %", (panel,))


def _point(one: SweptModel, height: float, told: str) -> Point:
    return Point(f"{one.asked:.4g}", 100 * one.macs, height, told)


def _height(one: SweptModel) -> float | None:
    if one.scores.score is not None:
        return one.scores.score.value
    return one.scores.drift.sqnr_db if one.scores.drift else None


def _value(found: Sweep, one: SweptModel) -> str:
    """Return the score, or the SQNR where there is none."""
    if one.scores.score is not None:
        return f"{found.metric} is {one.scores.score.value:.4f} (before: {found.baseline:.4f})"
    return f"the lowest output keeps {words.decibel(_height(one))}"
