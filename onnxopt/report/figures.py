"""The charts of the report, as plotly figures in plain values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from onnxopt.pipeline.record import CandidateRecord, RunRecord, Status
from onnxopt.report import words

Figure = dict[str, Any]

_COLOURS = {
    Status.BEST: "#11734b",
    Status.BASELINE: "#1c2430",
    Status.KEPT: "#4c8dbf",
    Status.REJECTED: "#d08b2c",
}
_FONT = {"family": "system-ui, sans-serif", "size": 13, "color": "#1c2430"}
_GRID = {"gridcolor": "#e6eaee", "zerolinecolor": "#c8d0d8"}
_MOST_POINTS = 400
"""Samples a candidate's box is drawn from; run.json has them all."""


def pareto(record: RunRecord) -> Figure:
    """Return loss against median latency for every candidate that was scored, and the front of the best."""
    scored = [c for c in record.candidates if c.timing and c.scores]
    top = _top(record, scored)
    front = _front([(_latency(c), _loss(c)) for c in scored if c.status is not Status.REJECTED])
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "Pareto front",
            "x": [x for x, _ in front],
            "y": [y for _, y in front],
            "line": {"color": "#9fb3c4", "dash": "dot", "shape": "hv"},
            "hoverinfo": "skip",
        }
    ]
    for status, colour in _COLOURS.items():
        chosen = [c for c in scored if c.status is status]
        if chosen:
            traces.append(_points(chosen, str(status), colour, top))
    axis = (
        "loss of the metric, % (triangles: more)" if record.metric else "noise against the input, dB (lower is closer)"
    )
    drawn = layout("median latency, ms", axis)
    drawn["height"] = 420
    if record.metric:
        drawn["shapes"] = [_budget_line(100 * record.budget["max_drop"])]
    return {"data": traces, "layout": drawn}


def latency(record: RunRecord) -> Figure:
    """Return the distribution of every latency sample of the input and of what was kept."""
    shown = [c for c in record.candidates if c.timing and c.status in (Status.BASELINE, Status.KEPT, Status.BEST)]
    traces = [
        {
            "type": "box",
            "name": candidate.name,
            "x": [second * 1e3 for second in _thinned(candidate.timing.samples)],
            "boxpoints": "all",
            "jitter": 0.5,
            "pointpos": 0,
            "marker": {"size": 3, "opacity": 0.35, "color": _COLOURS[candidate.status]},
            "line": {"width": 1.5},
            "orientation": "h",
        }
        for candidate in reversed(shown)
        if candidate.timing
    ]
    drawn = layout("latency of one run, ms", "")
    drawn.update(showlegend=False, height=max(260, 70 + 42 * len(traces)))
    drawn["yaxis"]["automargin"] = True
    return {"data": traces, "layout": drawn}


def _top(record: RunRecord, scored: Sequence[CandidateRecord]) -> float:
    """Return the loss above which points are drawn at the edge: one ruined candidate must not flatten the rest."""
    if not record.metric:
        return 0.0
    kept = [_loss(c) for c in scored if c.status is not Status.REJECTED]
    return max(500.0 * float(record.budget["max_drop"]), 2 * max(kept, default=0.0))


def _points(candidates: Sequence[CandidateRecord], name: str, colour: str, top: float) -> dict[str, Any]:
    losses = [_loss(c) for c in candidates]
    unit = "% lost" if top else "dB"
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [_latency(c) for c in candidates],
        "y": [min(loss, top) if top else loss for loss in losses],
        "text": [
            f"<b>{escape(c.name)}</b><br>{words.speed(c.speedup)}<br>{words.size(c.size_bytes)}<br>{loss:.3g} {unit}"
            for c, loss in zip(candidates, losses, strict=True)
        ],
        "hovertemplate": "%{text}<br>%{x:.3g} ms<extra></extra>",
        "marker": {
            "size": 11,
            "color": colour,
            "symbol": ["triangle-up" if top and loss > top else "circle" for loss in losses],
            "line": {"width": 1, "color": "white"},
        },
    }


def _latency(candidate: CandidateRecord) -> float:
    assert candidate.timing is not None
    return candidate.timing.p50 * 1e3


def _loss(candidate: CandidateRecord) -> float:
    """Return the drop in percent, or the negative SQNR where there is no metric."""
    assert candidate.scores is not None
    if candidate.scores.drop is not None:
        return 100 * candidate.scores.drop.value
    drift = candidate.scores.drift
    return -drift.sqnr_db if drift is not None and drift.sqnr_db is not None else 0.0


def _front(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points no other is both faster and closer than, by latency."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points):
        if not front or y < front[-1][1]:
            front.append((x, y))
    return front


def _thinned(samples: Sequence[float]) -> Sequence[float]:
    return samples[:: max(1, len(samples) // _MOST_POINTS)]


def _budget_line(percent: float) -> dict[str, Any]:
    line = {"color": "#9a3412", "width": 1, "dash": "dash"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": percent, "y1": percent, "line": line}


def layout(x: str, y: str) -> dict[str, Any]:
    """Return the layout all charts have, with these titles of the axes."""
    return {
        "font": _FONT,
        "margin": {"l": 70, "r": 20, "t": 10, "b": 50},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "xaxis": {"title": {"text": x}, "rangemode": "tozero", **_GRID},
        "yaxis": {"title": {"text": y}, **_GRID},
        "legend": {"orientation": "h", "y": 1.1},
    }
