"""What rounding a layer costs and gains: noise at the outputs when it alone is rounded, seconds on this machine."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx_ir

from onnxopt.context import Context, Progress
from onnxopt.data.sample import Samples
from onnxopt.evaluate.kept import Kept
from onnxopt.evaluate.trials import Trials
from onnxopt.ir.model import normalise
from onnxopt.profile.machine import this_machine
from onnxopt.quantize.assignment import Border
from onnxopt.quantize.calibrated import Ready
from onnxopt.quantize.costs import TIMED, Costs, measure_costs
from onnxopt.quantize.insert import Part
from onnxopt.quantize.placement import Layer
from onnxopt.targets.kernels import PASSING
from onnxopt.targets.target import Target

MOST_GROUPS = 120
"""Trials at most: in larger models layers that follow each other are tried together."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What rounding a group of layers does.

    Attributes:
        layers: Names of nodes, in order.
        sqnr_db: The lowest of the model's float outputs, with them alone rounded.
        gain: Seconds their kernels save over the timed samples; negative where they become slower.
        share: Of the float model's time that the layers take.
    """

    layers: tuple[str, ...]
    sqnr_db: float
    gain: float
    share: float

    @property
    def noise(self) -> float:
        """Power of the error over that of the output; nearly additive over layers."""
        return float(10 ** (-self.sqnr_db / 10))

    @property
    def reason(self) -> str:
        """Why they may stay in float."""
        where = f"{self.share:.1%} of the time"
        if self.gain <= 0:
            return f"int8 does not make it faster ({where})"
        return f"rounded alone, an output falls to {self.sqnr_db:.1f} dB ({where})"


@dataclass(frozen=True)
class Sensitivities:
    """What rounding does.

    Attributes:
        groups: Of layers, in the order of the graph.
        borders: Where groups meet.
        total: Seconds the float model takes over the timed samples.
    """

    groups: tuple[Sensitivity, ...]
    borders: tuple[Border, ...]
    total: float

    def names(self, indices: Collection[int]) -> set[str]:
        """Return the names of the layers of some groups."""
        return {name for index in indices for name in self.groups[index].layers}


class RoundingTrials(Trials):
    """Tries a model with layers rounded. Close it."""

    def __init__(self, ready: Ready, samples: Samples, ctx: Context) -> None:
        """Run the float model.

        Args:
            ready: The model.
            samples: To run; held in memory.
            ctx: Gives ``scratch``.

        Raises:
            UnverifiableError: No float output varies, so that no trial could show anything.
        """
        super().__init__(ready.graph, samples, ctx.scratch)
        self._ready = ready

    def fidelity(self, names: Collection[str], only: Part | None = None) -> float:
        """Return the lowest SQNR of a float output, dB, with the layers of these names rounded, or a part of them."""
        return self.fidelity_of(self._ready.quantized(names, only))

    def rounded(self, names: Collection[str], file: str) -> Path:
        """Return a file of the model with these layers rounded; valid until one of that name is asked for again."""
        graph = self._ready.quantized(names)
        normalise(graph)
        return self.write(graph, file)

    def choose(self, found: Sensitivities, budget: float) -> list[int]:
        """Return the fastest choice of groups within a budget of noise; in the child, for the solver prints."""
        gains, noises = [one.gain for one in found.groups], [one.noise for one in found.groups]
        place = "onnxopt.quantize.assignment:fastest_within"
        chosen: list[int] = self._child.function(place, gains, noises, found.borders, budget)
        return chosen


def find_sensitivities(ready: Ready, trials: RoundingTrials, ctx: Context) -> Sensitivities:
    """Return what rounding each layer does, in the order of the graph; in large models, each group of layers.

    What was found is kept for other budgets over the same model, samples and machine.
    """
    machine = this_machine().fingerprint
    kept = Kept.of(ctx.kept, "sensitivity", *ready.parts, trials.samples.fingerprint, machine, ctx.target)
    known: dict[str, Any] = kept.read() or {}
    if "costs" not in known:
        known = {"costs": asdict(_costs(ready, trials, ctx.target)), "sqnr_db": []}
    costs, decibels = Costs(**known["costs"]), known["sqnr_db"]
    groups = _groups(ready.layers)
    found = []
    for index, group in enumerate(groups):
        names = tuple(layer.name for layer in group)
        if index == len(decibels):
            decibels.append(trials.fidelity(names))
            kept.write(known)
            ctx.emit(Progress("rounding layers one by one", index + 1, len(groups)))
        gain, share = (sum(told[name] for name in names) for told in (costs.gains, costs.shares))
        found.append(Sensitivity(names, decibels[index], gain, share))
    borders = tuple(_borders(ready, groups, costs.seconds_an_element))
    return Sensitivities(tuple(found), borders, costs.total)


def _costs(ready: Ready, trials: RoundingTrials, target: Target) -> Costs:
    names = [layer.name for layer in ready.layers]
    models = [trials.original, trials.rounded(names, "all"), trials.rounded(names[::2], "alternate")]
    feeds = [sample.feeds for sample in trials.samples[:TIMED]]
    return measure_costs(ready, models, set(names[::2]), feeds, target)


def _groups(layers: Sequence[Layer]) -> list[Sequence[Layer]]:
    size = -(-len(layers) // MOST_GROUPS)
    return [layers[start : start + size] for start in range(0, len(layers), size)]


def _borders(ready: Ready, groups: Sequence[Sequence[Layer]], seconds: float) -> Iterator[Border]:
    """Yield where numbers flow from one group to another."""
    place = {layer.name: index for index, group in enumerate(groups) for layer in group}
    makers = {layer.result: layer for layer in ready.layers}
    for layer in ready.layers:
        for slot in layer.activations:
            value = layer.node.inputs[slot]
            assert value is not None
            for maker in _makers(value, makers):
                if place[maker.name] != place[layer.name]:
                    yield Border(place[maker.name], place[layer.name], ready.size(value.name) * seconds)


def _makers(value: onnx_ir.Value, makers: Mapping[onnx_ir.Value, Layer]) -> list[Layer]:
    """Return the layers a tensor comes from, through nodes that pass numbers on."""
    while value not in makers:
        node = value.producer()
        source = node.inputs[0] if node is not None and node.op_type in PASSING and node.inputs else None
        if source is None:
            return []
        value = source
    return [makers[value]]
