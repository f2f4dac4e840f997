"""The pass ``quantize-mixed``: int8 where it gains most for what it costs, float32 elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import ClassVar

import onnx_ir

from onnxopt.context import Context, Missed, Use
from onnxopt.data.sample import Samples
from onnxopt.errors import PassError
from onnxopt.passes import option, options
from onnxopt.quantize.best_ranges import with_best_ranges
from onnxopt.quantize.calibrated import Calibrated, Ready, split_trials
from onnxopt.quantize.sensitivity import RoundingTrials, Sensitivities, find_sensitivities

_TRIES = 10
_CLOSE = 1.05
"""Budgets that differ by less are not worth another try."""


@options
class QuantizeMixed(Calibrated):
    """Quantize to 8 bits the layers that gain most time for the accuracy they cost, and leave the others in float.

    Each layer is rounded alone, to see what it does to the outputs, and timed both ways in ONNX Runtime.
    """

    name: ClassVar[str] = "quantize-mixed"
    revision: ClassVar[int] = 2
    uses: ClassVar[frozenset[Use]] = frozenset({"data", "scratch", "target"})

    min_sqnr: float = option("dB every float output keeps, on the samples of the trials", default=20.0, gt=0)
    trials: int = option(
        "samples each trial is judged on: the last ones, which measure no range if there are more", default=8, ge=1
    )

    def edit(self, graph: onnx_ir.Model, ctx: Context) -> onnx_ir.Model:
        """Return the model with as many layers quantized as the outputs bear."""
        calibration, held_back = self.split(ctx.data)
        ready = self.ready(graph, calibration, ctx)
        if self.method == "auto":
            ready = with_best_ranges(ready, held_back, ctx)
        with closing(RoundingTrials(ready, held_back, ctx)) as trials:
            kept = self._chosen(ready, trials, ctx)
        if not kept:
            raise PassError(
                f"no layer can be quantized: what makes the model faster takes an output below {self.min_sqnr:g} dB",
                hint="lower --min-sqnr, or try another --method",
            )
        return self.finished(ready, kept, ctx)

    def split(self, data: Samples) -> tuple[Samples, Samples]:
        """Return samples to measure ranges on and samples for trials."""
        return split_trials(data, self.trials)

    def _chosen(self, ready: Ready, trials: RoundingTrials, ctx: Context) -> set[str]:
        """Return the names of the layers to quantize; tell why the others are not."""
        found = find_sensitivities(ready, trials, ctx)
        best: list[int] = []
        for chosen in self._tries(found, trials):
            best = max(best, chosen, key=lambda one: _gain(found, one))
        for index, group in enumerate(found.groups):
            for name in group.layers if index not in best else ():
                ctx.emit(Missed(self.name, name, group.reason, name))
        return found.names(best)

    def _tries(self, found: Sensitivities, trials: RoundingTrials) -> Iterator[list[int]]:
        """Yield choices whose outputs hold; noise only nearly adds up, so that budgets close in on what holds."""
        noises = [one.noise for one in found.groups]
        low, high, budget = 0.0, sum(noises), float(10 ** (-self.min_sqnr / 10))
        fastest = trials.choose(found, high)
        held: list[int] = []
        for _ in range(_TRIES):
            chosen = trials.choose(found, budget)
            if not chosen:
                return
            if chosen == held or trials.fidelity(found.names(chosen)) >= self.min_sqnr:
                yield chosen
                if chosen == fastest:
                    return
                low, held = budget, chosen
            else:
                high = sum(noises[index] for index in chosen)  # a budget that allows this choice gives it again
            if low * _CLOSE >= high:
                return
            budget = math.sqrt(low * high) if low else high / 2


def _gain(found: Sensitivities, chosen: Sequence[int]) -> float:
    """Return the seconds a choice saves."""
    lost = sum(border.seconds for border in found.borders if (border.one in chosen) != (border.other in chosen))
    return sum(found.groups[index].gain for index in chosen) - lost
