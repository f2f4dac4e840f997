"""What ``onnxopt explain`` found, for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from onnxopt.report import words

if TYPE_CHECKING:
    from onnxopt.explain.layers import LayersExplained
    from onnxopt.explain.portability import Portability

_LAYERS = 30
"""Layers that are listed; ``--json`` has them all."""

_SATURATING = 10
_NAMED = 3

ELSEWHERE = "x86 CPUs without VNNI"


def explained_table(found: LayersExplained, page: Path | None = None) -> RenderableType:
    """Return ``onnxopt explain``; ``page`` is told as written."""
    lines = [Text("note: the inputs are made up; what happens to real ones may differ", style="yellow")]
    parts = [*_layers(found), *_portability(found.portability), *(lines if found.synthetic else [])]
    return Group(*parts, *([] if page is None else [Text(f"wrote {page}")]))


def folded(names: Sequence[str]) -> str:
    """Return the name of a layer, or of the first of several that follow each other."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} after it"


def verdict(found: Portability) -> str:
    """Return in a sentence what else a model computes on other CPUs."""
    count, looked_at = len(found.saturating), len(found.layers)
    if not looked_at:
        return f"no layer multiplies uint8 by int8 in pairs, which alone saturates on {ELSEWHERE}"
    if count:
        return f"on {ELSEWHERE} sums saturate in {count} of {looked_at} layers that multiply uint8 by int8"
    never = sum(not layer.could for layer in found.layers)
    return f"on {ELSEWHERE} no sum saturates; in {never} of {looked_at} layers none can, whatever a kernel's order"


def remedy(found: Portability) -> str:
    """Return what to do about layers that saturate."""
    if not found.narrow:
        return "7-bit weights would disturb every layer more than this does"
    named = " ".join(f"--narrow {name}" for name in found.narrow[:_NAMED])
    more = len(found.narrow) - _NAMED
    rest = f" and {more} more" if more > 0 else ""
    every = "--reduce-range gives all layers 7 bits"
    return f"7-bit weights disturb {len(found.narrow)} of them less: quantize-static {named}{rest}; {every}"


OTHERWISE = "in ONNX Runtime session.x64quantprecision=1 avoids it without a new model, by slower kernels"


def _layers(found: LayersExplained) -> Iterator[RenderableType]:
    if found.sqnr_db is None:
        return
    table = Table("layer", "operator", "time", "8 bits save", "alone", "why", "all but it", box=None, pad_edge=False)
    for layer in found.layers[:_LAYERS]:
        restored = "" if layer.restored_db is None else f"{layer.restored_db:.1f} dB"
        figures = (f"{layer.share:.1%}", f"{layer.gain:+.1%}", f"{layer.sqnr_db:.1f} dB")
        table.add_row(folded(layer.layers), layer.operator, *figures, layer.cause or "", restored)
    yield from (table, Text())
    yield Text(f"with all layers rounded, the lowest output keeps {found.sqnr_db:.1f} dB", style="bold")
    more = len(found.layers) - _LAYERS
    if more > 0:
        yield Text(f"{more} more disturb the outputs less; --json lists them", style="dim")
    for reason, count in Counter(one.reason for one in found.left).most_common():
        yield Text(f"{count} stay in float: {reason}", style="dim")


def _portability(found: Portability) -> Iterator[RenderableType]:
    yield Text(verdict(found), style="bold yellow" if found.saturating else "bold")
    if found.saturating:
        table = Table(
            "saturating layer", "operator", "sums cut off", "its output keeps", "with 7 bits", box=None, pad_edge=False
        )
        for one in found.saturating[:_SATURATING]:
            figures = (words.percent(one.share), words.decibel(one.sqnr_db), words.decibel(one.narrow_db))
            table.add_row(one.layer, one.operator, *figures)
        yield table
        more = len(found.saturating) - _SATURATING
        if more > 0:
            yield Text(f"{more} more are disturbed less; --json lists them", style="dim")
        yield from (Text(remedy(found)), Text(OTHERWISE, style="dim"))
    for reason, count in Counter(one.reason for one in found.left).most_common():
        yield Text(f"{count} not simulated: {reason}", style="dim")
