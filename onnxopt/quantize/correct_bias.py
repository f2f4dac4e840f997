"""The pass ``correct-bias``: rounding weights shifts what layers make on average; their biases take that back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import ClassVar

import numpy as np
import onnx_ir

from onnxopt.context import Context, Missed, Use
from onnxopt.data.sample import Samples
from onnxopt.evaluate.collect import collect
from onnxopt.evaluate.kept import Kept
from onnxopt.evaluate.statistic import ChannelMoments
from onnxopt.ir.layer_weights import Weights, add_to_bias, bias_place, in_parts, weights_of
from onnxopt.ir.model import Model, normalise, private_copy
from onnxopt.ir.quant import Array, Quantization, dequantize, quantize
from onnxopt.ir.weights import constant_tensor
from onnxopt.passes import option, options
from onnxopt.quantize.calibrated import Calibrated, Ready
from onnxopt.quantize.sensitivity import RoundingTrials

_NO_MEAN = "the mean of what it reads, channel by channel, is not known: it has no elements, or another layer's axis"
_NO_BIAS = "no constant is added to what it makes that could take the correction"


@options
class CorrectBias(Calibrated):
    """Take back in biases what rounding weights adds to each channel on average (arXiv:1906.04721, section 4.2).

    The shift of a layer is what its weights are off by, times the mean of what it reads in float. So each layer's is
    known from one run over the samples, whatever is corrected before it. A shift of the mean is not all that counts
    for the outputs: layers are corrected in groups, and what does not help the rounded model on samples is undone.
    """

    name: ClassVar[str] = "correct-bias"
    uses: ClassVar[frozenset[Use]] = frozenset({"data", "scratch"})

    groups: int = option("try corrections in at most so many groups of layers", default=16, ge=1)
    trials: int = option("samples each correction is judged on", default=16, ge=1)

    def edit(self, graph: onnx_ir.Model, ctx: Context) -> onnx_ir.Model:
        """Return the float model with corrected biases; tell which layers have none, or are better off as they are."""
        ready = self.ready(graph, ctx.data, ctx)
        data = ctx.data[: self.samples]
        shifts = _shifts(ready, data, ctx)
        layers = list(self._correctable(ready, shifts, ctx))
        if not layers:
            return ready.graph
        with closing(RoundingTrials(ready, data[: self.trials], ctx)) as trials:
            return self._corrected(ready, [layers[i :: self.groups] for i in range(self.groups)], shifts, trials, ctx)

    def _corrected(
        self,
        ready: Ready,
        groups: Sequence[Sequence[str]],
        shifts: Mapping[str, Array],
        trials: RoundingTrials,
        ctx: Context,
    ) -> onnx_ir.Model:
        """Return the graph with the corrections that help the rounded model."""
        names = [layer.name for layer in ready.layers]
        best, graph = trials.fidelity(names), ready.graph
        for group in filter(None, groups):
            tried = _with_shifts(graph, {name: shifts[name] for name in group})
            found = trials.fidelity_of(replace(ready, graph=tried).quantized(names))
            if found > best:
                best, graph = found, tried
                continue
            for name in group:
                reason = f"corrected, an output is at {found:.1f} dB, and at {best:.1f} without"
                ctx.emit(Missed(self.name, name, reason, name))
        return graph

    def _correctable(self, ready: Ready, shifts: Mapping[str, Array], ctx: Context) -> Iterator[str]:
        for layer in ready.layers:
            if layer.name in shifts and bias_place(layer.node) is not None:
                yield layer.name
            else:
                reason = _NO_BIAS if layer.name in shifts else _NO_MEAN
                ctx.emit(Missed(self.name, layer.name, reason, layer.name))


def _shifts(ready: Ready, data: Samples, ctx: Context) -> dict[str, Array]:
    """Return for each layer what is to be added to its channels, [channels], by its name."""
    found = {layer.name: weights for layer in ready.layers if (weights := weights_of(layer.node))}
    wanted = {value: ChannelMoments(one.axis) for one in found.values() if (value := one.node.inputs[0])}
    axes = {value.name or "": moments.axis for value, moments in wanted.items()}
    found = {name: one for name, one in found.items() if axes[_input(one.node)] == one.axis}
    names = [value.name for value in wanted]
    kept = Kept.of(ctx.kept, "moments", Model(ready.graph).digest, data.fingerprint, names)
    seen = collect(ready.graph, wanted, data, ctx, kept, "measuring means")
    grids = ready.grids()
    known = {name: one for name, one in found.items() if seen[_input(one.node)].count}
    return {name: _shift(one, grids[name], seen[_input(one.node)].means) for name, one in known.items()}


def _shift(weights: Weights, grid: Quantization, means: Array) -> Array:
    """Return what weights are off by, times the means of what they are multiplied with; edges count as the inside."""
    tensor = constant_tensor(weights.node.inputs[1])
    assert tensor is not None
    now = in_parts(weights.node, dequantize(quantize(tensor.numpy(), grid), grid))
    off = (weights.parts.astype(np.float64) - now).sum(3)
    return np.asarray(np.einsum("goi,gi->go", off, means.reshape(len(off), -1)).reshape(-1))


def _with_shifts(graph: onnx_ir.Model, shifts: Mapping[str, Array]) -> onnx_ir.Model:
    """Return a copy in which some layers' biases are corrected."""
    copy = private_copy(graph)
    for node in [node for node in copy.graph if node.name in shifts]:
        add_to_bias(node, shifts[node.name or ""])
    normalise(copy)
    return copy


def _input(node: onnx_ir.Node) -> str:
    value = node.inputs[0]
    return "" if value is None else value.name or ""
