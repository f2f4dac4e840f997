"""The pass ``split-outliers``: channels of outliers are multiplied apart, so that each part has a range of its own."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import onnx_ir

from onnxopt.context import Context, Missed, Use
from onnxopt.evaluate.collect import collect
from onnxopt.evaluate.kept import Kept
from onnxopt.evaluate.statistic import ChannelMoments
from onnxopt.ir.layer_weights import Weights, weights_of
from onnxopt.ir.model import Model
from onnxopt.ir.quant import Array
from onnxopt.ir.quantized import refuse_quantized
from onnxopt.ir.weights import add_weight, weight_value
from onnxopt.passes import Pass, option, options
from onnxopt.quantize.insert import hand_over
from onnxopt.quantize.prepare import prepare, refuse_without


@options
class SplitOutliers(Pass):
    """Multiply channels of outliers apart from the others: x W is (x without them) W plus (them) (their rows of W).

    After outlier channel splitting (arXiv:1901.09504), which halves channels, and LLM.int8() (arXiv:2208.07339), which
    multiplies them in float. Here both products can be rounded, each in its own range; one more small product is what
    it costs. For MatMul and Gemm, whose inputs nothing before rounds.
    """

    name: ClassVar[str] = "split-outliers"
    uses: ClassVar[frozenset[Use]] = frozenset({"data", "scratch"})
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "onnx-ir", "onnxscript", "onnxruntime")

    ratio: float = option("a channel whose peak is so many times the median channel's is an outlier", default=8.0, gt=1)
    most: float = option("share of the channels that may be outliers", default=0.05, gt=0, le=0.5)
    samples: int = option("measure activations on at most so many samples", default=64, ge=1)

    @classmethod
    def rules(cls) -> Mapping[str, str]:
        """Return the pass itself: it tells of each layer it leaves as it is, and why."""
        return {cls.name: inspect.getdoc(cls) or ""}

    def requires(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Refuse models that are quantized already, have no layers, or come without samples."""
        refuse_quantized(graph)
        refuse_without(graph, frozenset({"Gemm", "MatMul"}))
        assert ctx.data

    def edit(self, graph: onnx_ir.Model, ctx: Context) -> onnx_ir.Model:
        """Return the model with outliers multiplied apart; tell where there are none, or too many."""
        graph = prepare(graph)
        readers = _readers(graph)
        data = ctx.data[: self.samples]
        kept = Kept.of(ctx.kept, "moments", Model(graph).digest, data.fingerprint, [value.name for value in readers])
        seen = collect(graph, {value: ChannelMoments(-1) for value in readers}, data, ctx, kept, "measuring channels")
        for value, layers in readers.items():
            found = self._outliers(seen[value.name or ""].peaks)
            if isinstance(found, str):
                for layer in layers:
                    name = layer.node.name or ""
                    ctx.emit(Missed(self.name, name, found, name))
            else:
                _split(value, layers, found)
        return graph

    def _outliers(self, peaks: Array) -> Array | str:
        """Return the channels to multiply apart, or why there are none."""
        used = peaks[peaks > 0]
        found = np.flatnonzero(peaks > self.ratio * np.median(used)) if used.size else np.zeros(0, np.int64)
        if not found.size:
            return f"no channel it reads peaks beyond {self.ratio:g} times the median channel"
        if found.size > self.most * peaks.size:
            return f"{found.size} of {peaks.size} channels are outliers: more than {self.most:.0%}"
        return found


def _readers(graph: onnx_ir.Model) -> dict[onnx_ir.Value, list[Weights]]:
    """Return the products of the main graph by the tensor they read."""
    found: dict[onnx_ir.Value, list[Weights]] = {}
    for node in graph.graph:
        weights = weights_of(node) if node.op_type != "Conv" else None
        if weights is not None and node.inputs[0] is not None:
            found.setdefault(node.inputs[0], []).append(weights)
    return found


def _split(value: onnx_ir.Value, layers: Sequence[Weights], channels: Array) -> None:
    """Let layers multiply some channels of a tensor apart, in place."""
    first = layers[0].node
    assert isinstance(first.graph, onnx_ir.Graph)
    others = np.ones(layers[0].inputs, np.float32)
    others[channels] = 0
    keep = add_weight(first.graph, weight_value(f"{value.name}_without_outliers", others))
    which = add_weight(first.graph, weight_value(f"{value.name}_outliers", channels.astype(np.int64)))
    rest = onnx_ir.node("Mul", [value, keep], name=f"{value.name}_keep_others")
    few = onnx_ir.node("Gather", [value, which], {"axis": -1}, name=f"{value.name}_take_outliers")
    first.graph.insert_before(first, [rest, few])
    for made, name in ((rest, "others"), (few, "few")):
        made.outputs[0].name = f"{value.name}_{name}"
        made.outputs[0].type = value.type
    for layer in layers:
        layer.node.replace_input_with(0, rest.outputs[0])
        _add_product(layer, few.outputs[0], channels)


def _add_product(layer: Weights, few: onnx_ir.Value, channels: Array) -> None:
    """Add to what a layer makes the product of outliers with their rows of its weight, in place."""
    node, result = layer.node, layer.node.outputs[0]
    assert isinstance(node.graph, onnx_ir.Graph)
    rows = np.ascontiguousarray(layer.parts[0, :, channels, 0], np.float32)  # [outliers, outputs]
    weight = add_weight(node.graph, weight_value(f"{node.name}_outliers", rows))
    small = onnx_ir.node("MatMul", [few, weight], name=f"{node.name}_of_outliers")
    added = onnx_ir.node("Add", [result, small.outputs[0]], name=f"{node.name}_whole")
    for made, name in ((small, "of_outliers"), (added, "whole")):
        made.outputs[0].name = f"{result.name}_{name}"
        made.outputs[0].type, made.outputs[0].shape = result.type, result.shape
    elsewhere = [(reader, slot) for reader, slot in result.uses() if reader is not added]
    node.graph.insert_after(node, [small, added])
    for reader, slot in elsewhere:
        reader.replace_input_with(slot, added.outputs[0])
    if result.is_graph_output():
        hand_over(node.graph, result, added.outputs[0])
