"""What ``prune_accuracy`` tells of what it measured: a line a point, a table a model, who leads, and the page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from onnxopt.report.curves import Chart, Curve, Panel, curves_page
from onnxopt.report.curves import Point as Drawn

OURS = "onnxopt"
TOLERANCE = 0.03
"""By how much of the whole a method may leave more than was asked for and still be compared with."""


@dataclass(frozen=True)
class Point:
    """A method at a share.

    Attributes:
        model: Its name.
        tool: Ours, or the peer.
        method: The criterion, and of peers how it is used.
        recovery: What wins accuracy back without training, empty for nothing.
        share: Of the multiply-accumulates, asked for.
        left: Of them, by our count.
        score: By the zoo's metric.
        low: Lower end of its 95 % interval.
        high: Upper end.
        sqnr: dB at the lowest output, against the original's.
        failed: Why there is no figure, empty if there is.
    """

    model: str
    tool: str
    method: str
    recovery: str
    share: float
    left: float = 1.0
    score: float = 0.0
    low: float | None = None
    high: float | None = None
    sqnr: float | None = None
    failed: str = ""

    @property
    def name(self) -> str:
        """What it goes by."""
        told = self.method if self.tool == OURS else f"{self.tool} {self.method}"
        return f"{told} + {self.recovery}" if self.recovery else told

    @property
    def counts(self) -> bool:
        """Whether it removed about as much as was asked for."""
        return not self.failed and self.left <= self.share + TOLERANCE


def told(point: Point) -> str:
    """Return a point as a line."""
    head = f"{point.model} {point.share:.0%} {point.name}:"
    if point.failed:
        return f"{head} FAILED: {point.failed}"
    sqnr = "-" if point.sqnr is None else f"{point.sqnr:.1f} dB"
    return f"{head} {point.score:.4f}, {sqnr}, {point.left:.1%} left"


def tables(points: Sequence[Point], baselines: Mapping[str, float]) -> str:
    """Return a table a model, a row a method, and who leads at each share."""
    lines = []
    for model, baseline in baselines.items():
        here = [point for point in points if point.model == model]
        lines += ["", f"{model}: {baseline:.4f} before; score (multiply-accumulates left), * if too many are left"]
        lines += [f"  {name:50} {'  '.join(map(_cell, rows))}" for name, rows in _by_name(here).items()]
        lines += [f"  {_verdict(here, share)}" for share in _shares(here)]
    return "\n".join(lines)


def _shares(points: Iterable[Point]) -> list[float]:
    return list(dict.fromkeys(point.share for point in points))


def _cell(point: Point) -> str:
    if point.failed:
        return "failed        "
    return f"{point.score:.4f} ({point.left:.1%}){' ' if point.counts else '*'}"


def _verdict(points: Iterable[Point], share: float) -> str:
    """Return who leads at a share, among those that removed about as much as was asked for."""
    here = [point for point in points if point.share == share and point.counts]
    ours = max((point for point in here if point.tool == OURS), key=_score, default=None)
    peer = max((point for point in here if point.tool != OURS), key=_score, default=None)
    if ours is None or peer is None:
        return f"{share:.0%}: nothing to compare"
    word = "ahead" if ours.score > peer.score else "equal" if ours.score == peer.score else "BEHIND"
    return f"{share:.0%}: {word}: {ours.name} {ours.score:.4f}, best peer {peer.name} {peer.score:.4f}"


def _score(point: Point) -> float:
    return point.score


def _by_name(points: Iterable[Point]) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.name, []).append(point)
    return found


def page(points: Sequence[Point], baselines: Mapping[str, float]) -> str:
    """Return the plots: the best of each tool, then ours with each recovery beside all peers."""
    peers = [point for point in points if point.tool != OURS]
    ours = [point for point in points if point.tool == OURS]
    best = "The best method of each tool at each share: what one who tries them all gets."
    charts = [_chart("The best of each tool", best, list(_best(points)), baselines)]
    for recovery in dict.fromkeys(point.recovery for point in ours):
        behind = f"then {recovery}" if recovery else "nothing behind it"
        text = f"Each criterion of onnxopt, in colour, {behind}; peers in grey."
        shown = [point for point in ours if point.recovery == recovery]
        charts.append(_chart(recovery or "No recovery", text, [*shown, *peers], baselines))
    lead = [
        _verdict([point for point in points if point.model == model], share)
        for model, share in product(baselines, _shares(points))
    ]
    trailing = sum("BEHIND" in one for one in lead)
    headline = (
        f"onnxopt leads or is equal at {len(lead) - trailing} of {len(lead)} points" if peers else "onnxopt alone"
    )
    failed = dict.fromkeys(f"{point.model}, {point.name}: {point.failed}" for point in points if point.failed)
    subtitle = "accuracy after pruning without training, scored on evaluation samples no tool has seen"
    return curves_page(charts, title="one-shot pruning", headline=headline, subtitle=subtitle, notes=failed)


def _best(points: Sequence[Point]) -> Iterator[tuple[str, Point]]:
    """Yield the best of each tool at each share, with and without recovery."""
    keys = dict.fromkeys((one.model, one.tool, bool(one.recovery), one.share) for one in points if one.counts)
    for model, tool, recovered, share in keys:
        here = [one for one in points if one.counts and (one.model, one.tool, one.share) == (model, tool, share)]
        found = max((one for one in here if bool(one.recovery) == recovered), key=_score)
        yield f"{tool}, recovered" if recovered else tool, found


def _chart(
    heading: str, text: str, points: Sequence[Point | tuple[str, Point]], baselines: Mapping[str, float]
) -> Chart:
    """Return a chart, a panel a model; points go by their own name or by the one they come with."""
    named = [one if isinstance(one, tuple) else (one.name, one) for one in points]
    panels = tuple(
        Panel(model, tuple(_curves([one for one in named if one[1].model == model])), 100 * baseline)
        for model, baseline in baselines.items()
    )
    return Chart(heading, text, "multiply-accumulates left, %", "accuracy, %", panels)


def _curves(named: Sequence[tuple[str, Point]]) -> Iterator[Curve]:
    for name in dict.fromkeys(name for name, _ in named):
        found = [point for told, point in named if told == name and not point.failed]
        drawn = tuple(Drawn(f"{one.share:.0%}", 100 * one.left, 100 * one.score, _hover(one)) for one in found)
        if drawn:
            yield Curve(name, drawn, quiet=found[0].tool != OURS)


def _hover(point: Point) -> str:
    sqnr = "" if point.sqnr is None else f", {point.sqnr:.1f} dB"
    return f"{point.name}{sqnr}"
