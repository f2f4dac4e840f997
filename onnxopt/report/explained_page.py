"""What ``onnxopt explain`` found, as a page: a plot of all layers, their table, and what other CPUs would compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from onnxopt.explain.layers import LayersExplained
from onnxopt.explain.portability import Portability
from onnxopt.report import layer_figures, words
from onnxopt.report.explained import OTHERWISE, folded, remedy, verdict
from onnxopt.report.figures import Figure
from onnxopt.report.page import chart, paragraph, section, table, whole_page

_HOW_TO_READ = (
    "Each point is a layer in 8 bits with nothing else rounded. The higher it stands, the more it disturbs the "
    "outputs; the further right, the more time it saves. What stands high on the left is what to leave in float first."
)


def explained_page(found: LayersExplained, model: str, machine: str) -> str:
    """Return the page.

    Args:
        found: What to tell.
        model: Where its file is.
        machine: Where times were measured.
    """
    return whole_page(
        title=Path(model).name,
        headline=_headline(found),
        subtitle=f"{model} on {machine}",
        tiles=_tiles(found),
        notes=("the inputs are made up; what happens to real ones may differ",) if found.synthetic else (),
        sections=(*_layers(found), *_elsewhere(found.portability)),
        figures=_figures(found),
    )


def _headline(found: LayersExplained) -> str:
    told = verdict(found.portability)
    if found.sqnr_db is None:
        return told[0].upper() + told[1:]
    return f"With all layers rounded, the lowest output keeps {words.decibel(found.sqnr_db)}"


def _tiles(found: LayersExplained) -> Iterator[tuple[str, str]]:
    elsewhere = found.portability
    if found.sqnr_db is not None:
        yield "kept with all layers rounded", words.decibel(found.sqnr_db)
        yield "of the time, 8 bits save", f"{100 * sum(layer.gain for layer in found.layers):.0f} %"
        yield "layers that can be rounded", str(sum(len(layer.layers) for layer in found.layers))
        yield "nodes that stay in float", str(len(found.left))
    yield "layers saturate without VNNI", f"{len(elsewhere.saturating)} of {len(elsewhere.layers)}"
    if found.sqnr_db is None:
        yield "are disturbed less by 7-bit weights", str(len(elsewhere.narrow))
        yield "samples were run", str(elsewhere.samples)


def _figures(found: LayersExplained) -> Mapping[str, Figure]:
    drawn = {}
    if found.layers:
        drawn["sensitivity"] = layer_figures.sensitivity(found)
    if found.portability.saturating:
        drawn["saturation"] = layer_figures.saturation(found.portability)
    return drawn


def _layers(found: LayersExplained) -> Iterator[str]:
    if found.layers:
        yield section("Noise against time saved", paragraph(_HOW_TO_READ), chart("sensitivity"))
        yield section("Layers, those that disturb the outputs most first", _layer_table(found))
    if found.left:
        rows = [("", [one.node, one.reason]) for one in found.left]
        yield section("What stays in float", table(["node", "reason"], rows))


def _layer_table(found: LayersExplained) -> str:
    rows = []
    for layer in found.layers:
        cells = [folded(layer.layers), layer.operator, f"{100 * layer.share:.1f} %", f"{100 * layer.gain:+.1f} %"]
        restored = "" if layer.restored_db is None else words.decibel(layer.restored_db)
        rows.append(("", [*cells, words.decibel(layer.sqnr_db), layer.cause or "", restored]))
    head = ["layer", "operator", "time", "8 bits save", "rounded alone", "why", "all rounded but it"]
    return table(head, rows, numbers=(2, 3, 4, 6))


def _elsewhere(found: Portability) -> Iterator[str]:
    told = verdict(found)
    parts = [paragraph(f"{told[0].upper()}{told[1:]}. Simulated on {found.samples} samples.")]
    if found.saturating:
        parts += [paragraph(remedy(found)), paragraph(OTHERWISE), chart("saturation"), _saturation_table(found)]
    yield section("On x86 CPUs without VNNI", *parts)
    if found.left:
        rows = [("", [one.node, one.reason]) for one in found.left]
        yield section("Not simulated", table(["layer", "reason"], rows))


def _saturation_table(found: Portability) -> str:
    rows = [
        (
            "",
            [
                one.layer,
                one.operator,
                words.percent(one.share),
                words.decibel(one.sqnr_db),
                words.decibel(one.narrow_db),
                words.percent(one.could),
                "7-bit weights" if one.layer in found.narrow else "",
            ],
        )
        for one in found.saturating
    ]
    head = ["layer", "operator", "sums cut off", "its output keeps", "with 7 bits", "channels that could", "remedy"]
    return table(head, rows, numbers=(2, 3, 4, 5))
