"""Seconds that rounding layers saves and costs in ONNX Runtime on this machine, from the runtime's own profile."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxopt.compile.engine import Feeds
from onnxopt.profile.operators import node_seconds
from onnxopt.quantize.calibrated import Ready
from onnxopt.quantize.placement import Layer
from onnxopt.targets.target import Target

_MOST_FUSED = 4
"""Nodes a runtime makes one of: a convolution, its normalisation, a sum and an activation."""

TIMED = 2
"""Samples nodes are timed on."""


@dataclass(frozen=True)
class Costs:
    """What was measured, in seconds over the timed samples.

    Attributes:
        gains: Seconds a layer's kernel saves, less those of rounding for it what stays in float around it, by name.
        shares: Of the float model's time a layer takes, by name.
        total: Seconds the float model takes.
        seconds_an_element: Of rounding a number, or reading it back, and laying it out for the other kind of kernel.
    """

    gains: Mapping[str, float]
    shares: Mapping[str, float]
    total: float
    seconds_an_element: float


def measure_costs(
    ready: Ready, models: Sequence[Path], alternate: Collection[str], feeds: Sequence[Feeds], target: Target
) -> Costs:
    """Return what rounding layers saves and costs.

    Args:
        ready: The model.
        models: Files of the float model, of the one with all layers rounded, and of the one with some.
        alternate: Names of the layers rounded in the last.
        feeds: To time nodes on.
        target: Gives the threads.
    """
    plain, rounded, alternating = (node_seconds(model, feeds, target) for model in models)
    before = {layer.name: _seconds(layer, plain) for layer in ready.layers}
    after = {layer.name: _seconds(layer, rounded) + _around(layer, rounded) for layer in ready.layers}
    gains = {name: before[name] - after[name] for name in before}
    total = sum(plain.values())
    saved = sum(gain for name, gain in gains.items() if name in alternate)
    lost = sum(alternating.values()) - (total - saved)
    crossing = sum(_crossing(ready, alternate)) * len(feeds)
    shares = {name: seconds / total for name, seconds in before.items()}
    return Costs(gains, shares, total, max(0.0, lost) / crossing if crossing else 0.0)


def _crossing(ready: Ready, rounded: Collection[str]) -> list[float]:
    """Return the elements of each tensor that a rounded layer makes for one in float, or the other way."""
    makers = {layer.result: layer.name for layer in ready.layers}
    found = []
    for layer in ready.layers:
        for slot in layer.activations:
            value = layer.node.inputs[slot]
            if value in makers and (makers[value] in rounded) != (layer.name in rounded):
                found.append(ready.size(value.name))
    return found


def _seconds(layer: Layer, taken: Mapping[str, float]) -> float:
    """Return the time of a layer and its activation.

    A node the runtime fused with those behind it goes by what the last of them makes.
    """
    absorbed = layer.result.producer()
    apart = 0.0 if absorbed in (None, layer.node) else taken.get(absorbed.name or "", 0.0)
    if layer.name in taken:
        return taken[layer.name] + apart
    return next((taken[name] for name in _made(layer) if name in taken), 0.0)


def _made(layer: Layer) -> Iterator[str]:
    """Yield the names of what a layer makes, and of what each only reader behind it makes of that."""
    value = layer.node.outputs[0]
    for _ in range(_MOST_FUSED):
        yield value.name or ""
        readers = {reader for reader, _ in value.uses()}
        if len(readers) != 1:
            return
        value = readers.pop().outputs[0]


def _around(layer: Layer, taken: Mapping[str, float]) -> float:
    """Return the time of rounding what a layer reads and what it makes, and of reading that and its weights back."""
    values = [layer.node.inputs[slot] for slot in layer.activations]
    named = [f"{value.name}_quantize" for value in values if value is not None]
    named += [f"{layer.result.name}_{end}" for end in ("quantize", "dequantized_node")]
    named += [f"{value.name}_dequantized_node" for value in layer.node.inputs[1:] if value is not None]
    return sum(taken.get(name, 0.0) for name in named)
