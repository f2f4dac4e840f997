"""Which layers cost time and which would cost accuracy in 8 bits, why, and what leaving one in float gives back."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from onnxopt.context import Context, Event, Missed, Progress
from onnxopt.explain.portability import Portability, find_saturation
from onnxopt.ir.model import Model, normalise, private_copy
from onnxopt.ir.quant import Scheme
from onnxopt.ir.weights import constant_tensor
from onnxopt.quantize.calibrated import Ready
from onnxopt.quantize.histogram import Histogram
from onnxopt.quantize.mixed import QuantizeMixed
from onnxopt.quantize.placement import Layer
from onnxopt.quantize.sensitivity import RoundingTrials, Sensitivity, find_sensitivities

_MOST = 0.99
"""Share of values that counts as most of them."""

_OUTLIERS = 4.0
"""Times the span of most values that the whole range has, from which on outliers are to blame."""


@dataclass(frozen=True)
class LayerFinding:
    """What 8 bits do to a layer, or a group of layers in a large model.

    Attributes:
        layers: Names of nodes.
        operator: Of the first.
        share: Of the float model's time.
        gain: Of the float model's time that 8 bits save; negative where they cost.
        sqnr_db: The lowest of the float outputs with nothing else rounded.
        cause: Why that is so low; None where it was not looked into.
        restored_db: The lowest SQNR with everything rounded but this; None likewise.
    """

    layers: tuple[str, ...]
    operator: str
    share: float
    gain: float
    sqnr_db: float
    cause: str | None = None
    restored_db: float | None = None


@dataclass(frozen=True)
class LayersExplained:
    """What 8 bits do to a model.

    Attributes:
        sqnr_db: The lowest of the float outputs with all layers rounded; None for a model that is quantized already.
        layers: Those that disturb the outputs most first; none of a model that is quantized already.
        left: Nodes that cannot be rounded, each with the reason.
        portability: What else comes out on x86 CPUs without VNNI, with all layers rounded.
        synthetic: Whether the inputs were made up.
    """

    sqnr_db: float | None
    layers: tuple[LayerFinding, ...]
    left: tuple[Missed, ...]
    portability: Portability
    synthetic: bool = False


def explain_layers(model: Model, change: QuantizeMixed, worst: int, ctx: Context) -> LayersExplained:
    """Return what 8 bits do to each layer of a float model.

    Args:
        model: Rewritten, better, so that what runtimes fuse is one layer.
        change: How to round.
        worst: How many layers to look into: rounded in part, and left in float alone.
        ctx: Gives data, scratch and target.

    Raises:
        OnnxoptError: There is nothing to round, or no output varies.
    """
    told: list[Event] = []
    calibration, held_back = change.split(ctx.data)
    ready = change.ready(private_copy(model.graph), calibration, ctx.listening(told.append))
    with closing(RoundingTrials(ready, held_back, ctx)) as trials:
        found = find_sensitivities(ready, trials, ctx)
        ranked = sorted(found.groups, key=lambda one: -one.noise)
        findings = []
        for index, group in enumerate(ranked):
            plain = _finding(group, ready, found.total)
            findings.append(plain if index >= worst else _looked_into(plain, ready, trials))
            ctx.emit(Progress("looking into the worst layers", min(index + 1, worst), min(worst, len(ranked))))
        everything = trials.fidelity({layer.name for layer in ready.layers})
    left = tuple(event for event in told if isinstance(event, Missed))
    rounded = ready.quantized({layer.name for layer in ready.layers})
    normalise(rounded)
    elsewhere = find_saturation(Model(rounded), held_back, ctx)
    return LayersExplained(everything, tuple(findings), left, elsewhere, ctx.data.synthetic)


def explain_quantized(model: Model, ctx: Context) -> LayersExplained:
    """Return what else a QDQ model computes on other CPUs; the float model alone tells what each layer cost.

    Args:
        model: Quantized.
        ctx: Gives data and scratch.

    Raises:
        PassError: No layer computes in 8 bits.
    """
    return LayersExplained(None, (), (), find_saturation(model, ctx.data, ctx), ctx.data.synthetic)


def _finding(group: Sensitivity, ready: Ready, total: float) -> LayerFinding:
    operator = next(layer.node.op_type for layer in ready.layers if layer.name == group.layers[0])
    return LayerFinding(group.layers, operator, group.share, group.gain / total, group.sqnr_db)


def _looked_into(found: LayerFinding, ready: Ready, trials: RoundingTrials) -> LayerFinding:
    """Return a finding with its cause, and with what the outputs are if all is rounded but this."""
    weights, activations = trials.fidelity(found.layers, "weights"), trials.fidelity(found.layers, "activations")
    layers = [layer for layer in ready.layers if layer.name in found.layers]
    cause = _of_weights(layers, ready.kernels.weights) if weights < activations else _of_activations(layers, ready)
    others = {layer.name for layer in ready.layers} - set(found.layers)
    return replace(found, cause=cause, restored_db=trials.fidelity(others))


def _of_weights(layers: Sequence[Layer], scheme: Scheme) -> str:
    """Return why weights lose much: the range, of a channel or of all, that the most of it fills least."""
    worst, told = _OUTLIERS, "its weights need more than 8 bits"
    for layer in layers:
        tensor = constant_tensor(layer.node.inputs[1])
        if tensor is None:
            continue
        by_channel = scheme.granularity == "channel" and layer.channel_axis is not None
        array = np.moveaxis(tensor.numpy(), layer.channel_axis or 0, 0) if by_channel else tensor.numpy()[None]
        rows = np.abs(array.reshape(len(array), -1))
        most = np.quantile(rows, _MOST, axis=1, method="lower")
        ratios = rows.max(1) / np.maximum(most, np.finfo(np.float32).tiny)
        channel = int(ratios.argmax())
        if ratios[channel] > worst:
            worst = float(ratios[channel])
            where = f"in channel {channel} " if by_channel else ""
            told = f"outliers in its weights: {where}one is {worst:.0f} times larger than 99 % of them"
    return told


def _of_activations(layers: Sequence[Layer], ready: Ready) -> str:
    """Return why activations lose much: the tensor whose range is least filled by most of its values."""
    worst, told = _OUTLIERS, "its activations need more than 8 bits"
    for layer in layers:
        for value in (*(layer.node.inputs[slot] for slot in layer.activations), layer.result):
            seen = ready.seen.histograms.get(value.name or "") if value is not None else None
            ratio = _spread(seen) if seen is not None else 0.0
            if value is not None and ratio > worst:
                worst = ratio
                told = f"outliers in {value.name!r}: 99 % of its values lie within a {worst:.0f}th of its range"
    return told


def _spread(seen: Histogram) -> float:
    """Return how many times wider the whole range is than that of most values."""
    total = np.cumsum(seen.counts)
    if seen.is_empty or not total[-1]:
        return 0.0
    first, last = np.searchsorted(total, [(1 - _MOST) / 2 * total[-1], (1 + _MOST) / 2 * total[-1]])
    return (seen.high - seen.low) / float((last - first + 1) * seen.width)
