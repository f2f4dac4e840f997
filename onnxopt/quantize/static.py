"""The pass ``quantize-static``: int8 with ranges measured on calibration samples."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir

from onnxopt.context import Context, Use
from onnxopt.passes import options
from onnxopt.quantize.best_ranges import with_best_ranges
from onnxopt.quantize.calibrated import Calibrated, split_trials

_TRIALS = 16
"""Samples that ranges are chosen on: the last ones, which measure none if there are enough."""


@options
class QuantizeStatic(Calibrated):
    """Quantize weights and activations to 8 bits as QDQ, with ranges calibrated on the calibration samples."""

    name: ClassVar[str] = "quantize-static"
    revision: ClassVar[int] = 4
    uses: ClassVar[frozenset[Use]] = frozenset({"data", "scratch"})

    def edit(self, graph: onnx_ir.Model, ctx: Context) -> onnx_ir.Model:
        """Return the quantized model."""
        calibration, held_back = split_trials(ctx.data, _TRIALS) if self.method == "auto" else (ctx.data, ctx.data)
        ready = self.ready(graph, calibration, ctx)
        if self.method == "auto":
            ready = with_best_ranges(ready, held_back, ctx)
        return self.finished(ready, {layer.name for layer in ready.layers}, ctx)
