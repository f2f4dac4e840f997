"""Curves of several methods, models side by side, as a page: a trade-off is looked at sooner than read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from onnxopt.report.figures import Figure, layout
from onnxopt.report.page import chart, paragraph, section, table, whole_page

_COLOURS = (
    "#11734b",
    "#4c8dbf",
    "#d08b2c",
    "#8b5fa8",
    "#9a3412",
    "#1c8a8a",
    "#c2487a",
    "#6b7d1f",
    "#3a4fa3",
    "#7a5230",
)
_QUIET = "#9aa5b1"
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "x", "cross", "star", "hexagon")
_GAP = 0.08
"""Between panels, as a share of the width."""


@dataclass(frozen=True)
class Point:
    """Where a curve passes.

    Attributes:
        asked: What was asked for, a column of the table.
        x: What came of it, along the axis.
        y: How good it is.
        told: What else is shown when it is pointed at.
    """

    asked: str
    x: float
    y: float
    told: str = ""


@dataclass(frozen=True)
class Curve:
    """A method.

    Attributes:
        name: The same in all panels and charts, where it has the same colour.
        points: In any order.
        quiet: Whether it is there to be compared with: grey.
    """

    name: str
    points: tuple[Point, ...]
    quiet: bool = False


@dataclass(frozen=True)
class Panel:
    """A model.

    Attributes:
        title: Above it.
        curves: Of its methods.
        level: A line from side to side, where the model started; None for no line.
    """

    title: str
    curves: tuple[Curve, ...]
    level: float | None = None


@dataclass(frozen=True)
class Chart:
    """Panels beside each other that share what their axes are.

    Attributes:
        heading: Above all of them.
        text: How to read them.
        x: What is along, with its unit.
        y: What is up, with its unit.
        panels: From left to right.
        digits: Of ``y`` in the table, behind the point.
    """

    heading: str
    text: str
    x: str
    y: str
    panels: tuple[Panel, ...]
    digits: int = 1


def curves_page(
    charts: Sequence[Chart],
    *,
    title: str,
    headline: str,
    subtitle: str,
    tiles: Iterable[tuple[str, str]] = (),
    notes: Iterable[str] = (),
) -> str:
    """Return the page: each chart with its table below. See ``page.whole_page`` for the other arguments."""
    styles = _styles(charts)
    names = [f"curves-{place}" for place in range(len(charts))]
    return whole_page(
        title=title,
        headline=headline,
        subtitle=subtitle,
        tiles=tiles,
        notes=notes,
        sections=[_section(name, one) for name, one in zip(names, charts, strict=True)],
        figures={name: curves_figure(one, styles) for name, one in zip(names, charts, strict=True)},
    )


def curves_figure(found: Chart, styles: Mapping[str, Mapping[str, Any]] | None = None) -> Figure:
    """Return a chart with its panels beside each other and one legend for all.

    Args:
        found: What to draw.
        styles: What plotly's traces look like by name of the curve; chosen here if None.
    """
    styles = styles or _styles([found])
    told: set[str] = set()
    traces = []
    for place, panel in enumerate(found.panels, 1):
        for curve in panel.curves:
            traces.append(_trace(curve, place, styles[curve.name], found.digits, first=curve.name not in told))
            told.add(curve.name)
    drawn = layout(found.x, found.y)
    del drawn["xaxis"], drawn["yaxis"]
    drawn.update(_axes(found), height=520, hoverlabel={"align": "left"})
    drawn["margin"].update(t=40)
    drawn["legend"] = {"orientation": "h", "y": -0.16, "yanchor": "top"}
    return {"data": traces, "layout": drawn}


def _styles(charts: Iterable[Chart]) -> dict[str, dict[str, Any]]:
    """Return a look for each name: colours for what is to be looked at, grey and a mark of its own for the rest."""
    curves = {curve.name: curve for found in charts for panel in found.panels for curve in panel.curves}
    loud = [name for name, curve in curves.items() if not curve.quiet]
    quiet = [name for name, curve in curves.items() if curve.quiet]
    return {name: _loud(place) for place, name in enumerate(loud)} | {
        name: _quiet(place) for place, name in enumerate(quiet)
    }


def _loud(place: int) -> dict[str, Any]:
    colour, round_ = _COLOURS[place % len(_COLOURS)], place // len(_COLOURS)
    return {"line": {"color": colour, "width": 2.5, "dash": "dot" if round_ else "solid"}, "marker": {"size": 8}}


def _quiet(place: int) -> dict[str, Any]:
    marker = {"size": 8, "symbol": _SYMBOLS[place % len(_SYMBOLS)]}
    return {"line": {"color": _QUIET, "width": 1.2, "dash": "dash"}, "marker": marker}


def _trace(curve: Curve, place: int, style: Mapping[str, Any], digits: int, *, first: bool) -> dict[str, Any]:
    points = sorted(curve.points, key=lambda point: point.x)
    name = escape(curve.name)
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "legendgroup": name,
        "showlegend": first,
        "x": [point.x for point in points],
        "y": [point.y for point in points],
        "text": [escape(point.told) for point in points],
        "hovertemplate": f"<b>{name}</b><br>%{{y:.{digits}f}} at %{{x:.1f}}<br>%{{text}}<extra></extra>",
        "xaxis": f"x{place}",
        "yaxis": f"y{place}",
        **style,
    }


def _axes(found: Chart) -> dict[str, Any]:
    """Return the axes of all panels, their titles and the lines where models started."""
    whole = layout(found.x, found.y)
    count = len(found.panels)
    width = (1 - _GAP * (count - 1)) / max(count, 1)
    axes: dict[str, Any] = {"annotations": [], "shapes": []}
    for place, panel in enumerate(found.panels):
        left = place * (width + _GAP)
        ends = [left, min(left + width, 1.0)]
        number = place + 1
        axes[f"xaxis{number}"] = {**whole["xaxis"], "rangemode": "normal", "domain": ends, "anchor": f"y{number}"}
        axes[f"yaxis{number}"] = {**whole["yaxis"], "anchor": f"x{number}", "title": {"text": "" if place else found.y}}
        axes["annotations"].append(_title(panel.title, sum(ends) / 2))
        if panel.level is not None:
            axes["shapes"].append(_level(panel.level, ends, f"y{number}"))
    return axes


def _title(text: str, middle: float) -> dict[str, Any]:
    where = {"x": middle, "y": 1.0, "xref": "paper", "yref": "paper", "xanchor": "center", "yanchor": "bottom"}
    return {"text": f"<b>{escape(text)}</b>", "showarrow": False, **where}


def _level(level: float, ends: Sequence[float], axis: str) -> dict[str, Any]:
    line = {"color": "#1c2430", "width": 1, "dash": "dot"}
    across = {"xref": "paper", "x0": ends[0], "x1": ends[1], "yref": axis, "y0": level, "y1": level}
    return {"type": "line", "line": line, **across}


def _section(name: str, found: Chart) -> str:
    return section(found.heading, paragraph(found.text), chart(name), *_tables(found))


def _tables(found: Chart) -> Iterator[str]:
    """Yield a table a panel: what each method comes to, and where it stands along the axis."""
    for panel in found.panels:
        columns = list(dict.fromkeys(point.asked for curve in panel.curves for point in curve.points))
        head = [panel.title, *columns]
        best = _best(panel)
        yield table(head, [_row(curve, columns, found.digits, best) for curve in panel.curves], range(1, len(head)))


def _row(curve: Curve, columns: Sequence[str], digits: int, best: Mapping[str, float]) -> tuple[str, list[str]]:
    points = {point.asked: point for point in curve.points}
    cells = [f"{points[one].y:.{digits}f} at {points[one].x:.1f}" if one in points else "-" for one in columns]
    leads = any(point.y >= best[point.asked] for point in curve.points)
    return "best" if leads else "", [curve.name, *cells]


def _best(panel: Panel) -> dict[str, float]:
    """Return the highest figure of each column."""
    best: dict[str, float] = {}
    for curve in panel.curves:
        for point in curve.points:
            best[point.asked] = max(point.y, best.get(point.asked, point.y))
    return best
