"""Which positions of the original's weights a pruned model keeps, and which blocks not, told in the model itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir

from onnxopt.data.sample import Array
from onnxopt.ir.layer_weights import Weights, bias_place
from onnxopt.prune.units import Kept

if TYPE_CHECKING:
    from onnxopt.prune.groups import Groups

KEY = "onnxopt.kept"
"""Of the model's metadata: JSON, {weight: {axis: [[first, last], …]}}, runs of positions of the original."""

WHOLE = "onnxopt.whole"
"""Of the model's metadata: JSON, {weight: {axis: length in the original}}, of the axes of ``KEY``."""

DROPPED = "onnxopt.dropped"
"""Of the model's metadata: JSON, a list of the tensors of the original that blocks which were dropped ended in."""


def kept_positions(graph: onnx_ir.Model) -> dict[str, dict[int, Array]]:
    """Return the positions of the original that axes of weights keep, by name and axis; none that keep all."""
    told: Mapping[str, Mapping[str, list[list[int]]]] = json.loads(graph.metadata_props.get(KEY, "{}"))
    return {name: {int(axis): _positions(runs) for axis, runs in axes.items()} for name, axes in told.items()}


def whole_lengths(graph: onnx_ir.Model) -> dict[tuple[str, int], int]:
    """Return the lengths in the original of axes of weights that are shorter by now, by name and axis."""
    told: Mapping[str, Mapping[str, int]] = json.loads(graph.metadata_props.get(WHOLE, "{}"))
    return {(name, int(axis)): length for name, axes in told.items() for axis, length in axes.items()}


def kept_since(first: onnx_ir.Model, second: onnx_ir.Model) -> dict[str, dict[int, Array]]:
    """Return the positions, along axes of weights of a model, that one that was made from it keeps.

    Both tell them in numbers of the original, which need be neither. A position that the first does not have is -1.
    """
    before, after = kept_positions(first), kept_positions(second)
    return {
        name: {axis: _positions_in(before.get(name, {}).get(axis), places) for axis, places in axes.items()}
        for name, axes in after.items()
    }


def _positions_in(whole: Array | None, places: Array) -> Array:
    if whole is None:
        return places
    found = np.minimum(np.searchsorted(whole, places), len(whole) - 1)
    return np.where(whole[found] == places, found, -1)


def made_by(weights: Weights) -> onnx_ir.Value:
    """Return what a layer makes, with its bias."""
    place = bias_place(weights.node)
    return (weights.node if place is None else place[0]).outputs[0]


def channels_kept(weights: Weights, kept: Mapping[str, Mapping[int, Array]]) -> Array | None:
    """Return the positions of the original's channels that a layer still makes; None for all.

    Args:
        weights: Of the layer.
        kept: As ``kept_positions`` gives it.
    """
    node, value = weights.node, weights.node.inputs[1]
    by_outputs = node.op_type == "Conv" or bool(node.attributes.get_int("transB", 0))
    return kept.get((value and value.name) or "", {}).get(0 if by_outputs else 1)


def record_kept(groups: Groups, kept: Kept) -> None:
    """Write what stays into the model, in place, in numbers of the original; before weights are cut."""
    found = kept_positions(groups.graph)
    for (value, axis), labels in groups.stored.items():
        stays = np.flatnonzero(kept.along(labels))
        if len(stays) < len(labels):
            before = found.get(value.name or "", {}).get(axis)
            found.setdefault(value.name or "", {})[axis] = stays if before is None else before[stays]
    whole = whole_lengths(groups.graph)
    lengths = {(value.name or "", axis): len(labels) for (value, axis), labels in groups.stored.items()}
    told = {name: {str(axis): _runs(places) for axis, places in axes.items()} for name, axes in found.items()}
    wide = {
        name: {str(axis): whole.get((name, axis), lengths.get((name, axis), 0)) for axis in axes}
        for name, axes in found.items()
    }
    groups.graph.metadata_props[KEY] = json.dumps(told, sort_keys=True)
    groups.graph.metadata_props[WHOLE] = json.dumps(wide, sort_keys=True)


def dropped_blocks(graph: onnx_ir.Model) -> tuple[str, ...]:
    """Return the names of the tensors of the original that blocks which were dropped ended in."""
    return tuple(json.loads(graph.metadata_props.get(DROPPED, "[]")))


def record_dropped(graph: onnx_ir.Model, ends: Sequence[str]) -> None:
    """Write what is dropped into the model, in place, behind what was dropped before."""
    graph.metadata_props[DROPPED] = json.dumps([*dropped_blocks(graph), *ends])


def _runs(places: Array) -> list[list[int]]:
    """Return positions as runs, first and last of each."""
    ends = np.flatnonzero(np.diff(places) != 1)
    firsts, lasts = places[np.concatenate([[0], ends + 1])], places[np.concatenate([ends, [len(places) - 1]])]
    return [[int(first), int(last)] for first, last in zip(firsts, lasts, strict=True)]


def _positions(runs: list[list[int]]) -> Array:
    return np.concatenate([np.arange(first, last + 1) for first, last in runs])
