"""The charts of layers: what 8 bits do to each, as plotly figures in plain values."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from onnxopt.explain.layers import LayerFinding, LayersExplained
from onnxopt.explain.portability import Portability
from onnxopt.report import words
from onnxopt.report.figures import Figure, layout

_COLOURS = ("#4c8dbf", "#d08b2c", "#11734b", "#8b5fa8", "#9a3412", "#5b6675")
_QUIET = 120.0
"""dB beyond which points are drawn at the edge: a layer that does nothing must not flatten the rest."""

_MOST_BARS = 25


def sensitivity(found: LayersExplained) -> Figure:
    """Return noise at the outputs against time saved: a point a layer, ringed where its sums saturate elsewhere."""
    saturating = {one.layer for one in found.portability.saturating}
    operators = list(dict.fromkeys(layer.operator for layer in found.layers))
    traces = [
        _points(
            [layer for layer in found.layers if layer.operator == operator],
            operator,
            _COLOURS[index % len(_COLOURS)],
            saturating,
        )
        for index, operator in enumerate(operators)
    ]
    ringed = [layer for layer in found.layers if saturating.intersection(layer.layers)]
    traces += [_rings(ringed)] if ringed else []
    drawn = layout("time saved by 8 bits, % of the float model's", "noise at the lowest output, dB (higher is worse)")
    drawn["height"] = 460
    drawn["xaxis"]["rangemode"] = "normal"
    drawn["hoverlabel"] = {"align": "left"}
    return {"data": traces, "layout": drawn}


def saturation(found: Portability) -> Figure:
    """Return what each saturating layer's output keeps: as it is, and with 7-bit weights; the worst on top."""
    shown = found.saturating[:_MOST_BARS][::-1]
    names = [escape(_shortened(one.layer)) for one in shown]
    pairs = [
        ("with 7-bit weights", "#4c8dbf", [one.narrow_db for one in shown]),
        ("with sums cut off", "#d08b2c", [one.sqnr_db for one in shown]),
    ]
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": names,
            "x": [min(one, _QUIET) for one in decibels],
            "marker": {"color": colour},
            "text": [words.decibel(one) for one in decibels],
            "customdata": [
                f"<b>{escape(one.layer)}</b><br>{words.percent(one.share)} of its sums are cut off" for one in shown
            ],
            "hovertemplate": f"%{{customdata}}<br>{name}: %{{text}}<extra></extra>",
        }
        for name, colour, decibels in pairs
    ]
    drawn = layout("what the layer's output keeps, dB (more is better)", "")
    drawn.update(height=130 + 40 * len(shown), barmode="group", bargap=0.3)
    drawn["margin"].update(t=40, b=60)
    drawn["yaxis"].update(automargin=True, type="category", range=[-0.5, len(shown) - 0.5])
    drawn["legend"] = {"orientation": "h", "y": 1, "yanchor": "bottom", "traceorder": "reversed"}
    return {"data": traces, "layout": drawn}


def _points(layers: Sequence[LayerFinding], operator: str, colour: str, saturating: set[str]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": operator,
        **_places(layers),
        "text": [_hover(layer, bool(saturating.intersection(layer.layers))) for layer in layers],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "size": 11,
            "color": colour,
            "opacity": 0.85,
            "symbol": ["triangle-down" if layer.sqnr_db > _QUIET else "circle" for layer in layers],
            "line": {"width": 1, "color": "white"},
        },
    }


def _rings(layers: Sequence[LayerFinding]) -> dict[str, Any]:
    """Return rings around the points of layers."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "its sums saturate without VNNI",
        **_places(layers),
        "hoverinfo": "skip",
        "marker": {"size": 16, "symbol": "circle-open", "color": "#9a3412", "line": {"width": 1.5}},
    }


def _places(layers: Sequence[LayerFinding]) -> dict[str, list[float]]:
    saved = [100 * layer.gain for layer in layers]
    return {"x": saved, "y": [max(-layer.sqnr_db, -_QUIET) for layer in layers]}


def _hover(layer: LayerFinding, saturates: bool) -> str:
    lines = [f"<b>{escape(_shortened(layer.layers[0]))}</b>"]
    lines += [f"and {len(layer.layers) - 1} after it"] if len(layer.layers) > 1 else []
    lines += [f"{layer.operator}, {100 * layer.share:.1f} % of the time, 8 bits save {100 * layer.gain:+.1f} %"]
    lines += [f"rounded alone, the lowest output keeps {words.decibel(layer.sqnr_db)}"]
    lines += [escape(layer.cause)] if layer.cause else []
    lines += ["its sums saturate on x86 CPUs without VNNI"] if saturates else []
    return "<br>".join(lines)


def _shortened(name: str, most: int = 60) -> str:
    """Return a name that fits beside a chart, its end kept, which tells layers apart."""
    return name if len(name) <= most else f"…{name[-most:]}"
