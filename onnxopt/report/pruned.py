"""What ``onnxopt prune`` and ``onnxopt inspect --groups`` print."""

from __future__ import annotations

from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from onnxopt.explain.prunable import Prunable, Pruned
from onnxopt.report import words
from onnxopt.report.tables import comparison_table, pairs_table, rows_table, scores_table

_MOST = 40


def prunable_table(found: Prunable) -> RenderableType:
    """Return what can be removed, and what cannot with the reason."""
    rows = [
        (group.name, str(group.width), "head" if group.heads else "channel", str(len(group.weights)))
        for group in found.groups[:_MOST]
    ]
    parts: list[RenderableType] = [
        rows_table(("group", "width", "of", "weights it is in"), rows, right=(1, 3)),
        Text(
            f"{len(found.groups)} groups; {found.coverage:.1%} of {found.macs / 1e6:,.3g} million multiply-accumulates"
            " are in nodes that can lose channels"
        ),
    ]
    if found.left:
        told = [(left.node, left.operator, f"{left.share:.1%}", left.reason) for left in found.left[:_MOST]]
        parts.append(rows_table(("cannot lose channels", "operator", "MACs", "because"), told, right=(2,)))
    return Group(*parts)


def pruned_table(found: Pruned, out: Path) -> RenderableType:
    """Return before and after, and how the answers differ."""
    before, after = found.before, found.after
    packed = words.size(found.compressed_after)
    rows = [
        ("multiply-accumulates", _change(before.macs, after.macs, f"{after.macs / 1e6:,.3g} million")),
        ("parameters", _change(before.parameters, after.parameters, f"{after.parameters:,}")),
        ("zeros", f"{after.zeros:.1%} of the parameters, {before.zeros:.1%} before"),
        ("file", _change(found.size_before, found.size_after, words.size(found.size_after))),
        ("file, compressed", _change(found.compressed_before, found.compressed_after, packed)),
    ]
    scores = [] if found.scores is None else [scores_table(found.scores)]
    return Group(pairs_table(rows), comparison_table(found.compared), *scores, Text(f"wrote {out}"))


def _change(before: float, after: float, told: str) -> str:
    return f"{told}, {after / max(before, 1):.1%} of before"
