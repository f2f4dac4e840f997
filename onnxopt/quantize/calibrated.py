"""What passes have in common that round to 8 bits by ranges measured on samples: options, and the model made ready."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import onnx_ir

from onnxopt.context import Context, Missed, Warned
from onnxopt.data.sample import Samples
from onnxopt.errors import PassError
from onnxopt.ir.cleanup import remove_unused
from onnxopt.ir.model import Model, private_copy
from onnxopt.ir.quant import Quantization
from onnxopt.ir.quantized import refuse_quantized
from onnxopt.ir.shapes import forget_other_shapes
from onnxopt.ir.traverse import all_graphs, refuse_unknown
from onnxopt.passes import Pass, option, options
from onnxopt.quantize.calibration import Seen, calibrate
from onnxopt.quantize.conformance import complaints
from onnxopt.quantize.insert import Part, insert, weight_grids
from onnxopt.quantize.placement import Layer, Left, Scope, find_layers, plan
from onnxopt.quantize.prepare import prepare, refuse_without, spell_out_hard_swish
from onnxopt.quantize.ranges import Method, Range, find_range
from onnxopt.targets.kernels import NARROW_BITS, SIGNED, Kernels, kernels


@dataclass(frozen=True)
class Ready:
    """A float model with all that is needed to round any of its layers.

    Attributes:
        graph: Prepared; not changed.
        layers: That may be rounded, in order.
        kernels: Of the runtime.
        scope: What is rounded besides layers.
        attention: Whether MatMul of two activations are among the layers.
        narrow: Names of layers whose weights get 7 bits.
        ranges: Of every tensor that may be rounded, by name.
        seen: What was seen of them.
    """

    graph: onnx_ir.Model
    layers: Sequence[Layer]
    kernels: Kernels
    scope: Scope
    attention: bool
    narrow: Collection[str]
    ranges: Mapping[str, Range]
    seen: Seen

    def size(self, name: str | None) -> float:
        """Return a tensor's elements in a sample, on average; 0 for one that is never rounded."""
        histogram = self.seen.histograms.get(name or "")
        return histogram.seen / self.seen.samples if histogram else 0.0

    @property
    def parts(self) -> tuple[object, ...]:
        """All that decides what rounding a layer does, but for samples and machine."""
        names = [layer.name for layer in self.layers]
        row = self.kernels
        how = (row.runtime, row.activations, row.weights, self.scope, sorted(self.narrow))
        return Model(self.graph).digest, names, how, sorted(self.ranges.items())

    def quantized(self, names: Collection[str], only: Part | None = None) -> onnx_ir.Model:
        """Return the model with the layers of these names, and what belongs to them, rounded; or a part of it."""
        copy = private_copy(self.graph)
        layers, _ = find_layers(copy.graph, self.kernels, attention=self.attention)
        chosen = plan(copy.graph, [layer for layer in layers if layer.name in names], self.kernels, self.scope)
        insert(copy.graph, chosen, self.ranges, self.kernels, only, self.narrow)
        remove_unused(copy)
        return forget_other_shapes(copy, ())

    def grids(self) -> dict[str, Quantization]:
        """Return how the weight of each layer is stored where all of them are rounded, by the layer's name."""
        whole = plan(self.graph.graph, self.layers, self.kernels, self.scope)
        return weight_grids(self.graph.graph, whole, self.ranges, self.kernels, self.narrow)


@options
class Calibrated(Pass):
    """A pass that rounds to 8 bits by calibrated ranges."""

    libraries: ClassVar[tuple[str, ...]] = ("onnx", "onnx-ir", "onnxscript", "onnxruntime")
    exact: ClassVar[bool] = False

    runtime: Literal["ort", "openvino", "tensorrt"] = option("whose 8-bit kernels to quantize for", default="ort")
    scope: Scope = option(
        "compute: nodes with weights; all: what stands between them as well, where there are kernels for it",
        default="compute",
    )
    method: Literal["mse", "minmax", "percentile", "entropy", "auto"] = option(
        "how ranges follow from what was seen; auto: for each tensor what the outputs keep most with, in minutes",
        default="mse",
    )
    per_channel: bool = option("one scale for each output channel of a weight", default=True)
    weight_matmul_only: bool = option("leave MatMul of two activations (attention) in float", default=True)
    reduce_range: bool = option("7-bit weights, for x86 CPUs without VNNI, whose 8-bit kernels saturate", default=False)
    narrow: tuple[str, ...] = option("names of nodes whose weights get 7 bits, where only some saturate", default=())
    signed_activations: bool = option("int8 activations: for ARM and GPUs; slow on x86", default=False)
    samples: int = option("calibrate on at most so many samples", default=64, ge=1)
    skip: tuple[str, ...] = option("names of nodes to leave in float", default=())

    @classmethod
    def rules(cls) -> Mapping[str, str]:
        """Return the pass itself: it tells of each layer it leaves in float, and why."""
        return {cls.name: inspect.getdoc(cls) or ""}

    def requires(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Refuse models that are quantized already, have nothing to quantize, or come without samples."""
        refuse_quantized(graph)
        row = kernels(self.runtime)
        refuse_without(graph, row.rounded | row.open)
        assert ctx.data

    def ready(self, graph: onnx_ir.Model, data: Samples, ctx: Context) -> Ready:
        """Return a graph prepared, with the ranges of what may be rounded; tell what stays in float, and why.

        Args:
            graph: A private copy.
            data: To measure ranges on.
            ctx: Told what stays in float.

        Raises:
            PassError: Nothing can be rounded.
            DataError: A tensor took no finite value.
        """
        row, attention = self._kernels(), not self.weight_matmul_only
        graph = prepare(graph)
        if "HardSigmoid" in row.following:
            spell_out_hard_swish(graph)
        refuse_unknown(self.skip, graph, "to leave in float")
        refuse_unknown(self.narrow, graph, "to give 7-bit weights")
        layers, left = find_layers(graph.graph, row, attention=attention)
        left += [Left(one.name, one.node.op_type, "it was asked to be left") for one in layers if one.name in self.skip]
        left += _out_of_reach(graph, row)
        for one in left:
            ctx.emit(Missed(self.name, one.node, one.reason, one.node))
        chosen = [layer for layer in layers if layer.name not in self.skip]
        if not chosen:
            reasons = "; ".join(dict.fromkeys(f"{one.operator}: {one.reason}" for one in left))
            raise PassError(f"there is nothing to quantize: {reasons}")
        for name in sorted({*self.narrow} - {layer.name for layer in chosen if 1 not in layer.activations}):
            ctx.emit(Warned(f"{name!r} has no weight that is rounded, so that narrow does nothing to it"))
        rounded = list(plan(graph.graph, chosen, row, self.scope).rounded)
        seen = calibrate(graph, rounded, data[: self.samples], ctx)
        for layer in [layer for layer in chosen if _is_unseen(layer, seen)]:
            reason = "what it reads or makes had no elements in any sample, so that its range is not known"
            ctx.emit(Missed(self.name, layer.name, reason, layer.name))
            chosen.remove(layer)
        method: Method = "mse" if self.method == "auto" else self.method
        ranges = {name: find_range(one, method, row.activations) for name, one in seen.histograms.items()}
        return Ready(graph, chosen, row, self.scope, attention, frozenset(self.narrow), ranges, seen)

    def finished(self, ready: Ready, names: Collection[str], ctx: Context) -> onnx_ir.Model:
        """Return the model with these layers rounded; warn of what is not as the runtime wants it."""
        graph = ready.quantized(names)
        for text in complaints(graph, ready.kernels):
            ctx.emit(Warned(f"{self.runtime} may compute this in float: {text}"))
        return graph

    def _kernels(self) -> Kernels:
        """Return the runtime's row with what the options change."""
        row = kernels(self.runtime)
        granularity: Literal["channel", "tensor"] = "channel" if self.per_channel else "tensor"
        weights = replace(row.weights, granularity=granularity, bits=NARROW_BITS if self.reduce_range else None)
        return replace(row, weights=weights, activations=SIGNED if self.signed_activations else row.activations)


def _is_unseen(layer: Layer, seen: Seen) -> bool:
    """Whether a tensor around a layer never had an element."""
    values = (*(layer.node.inputs[slot] for slot in layer.activations), layer.result)
    found = (seen.histograms.get(value.name or "") for value in values if value is not None)
    return any(one is not None and not one.seen for one in found)


def split_trials(data: Samples, count: int) -> tuple[Samples, Samples]:
    """Return samples to measure ranges on and so many for trials: the last ones, apart where there are enough."""
    count = min(count, len(data))
    apart = len(data) > 2 * count
    return data[: len(data) - count] if apart else data, data[len(data) - count :]


def _out_of_reach(graph: onnx_ir.Model, row: Kernels) -> list[Left]:
    """Return the nodes of branches and functions, whose tensors cannot be watched."""
    inner = (node for one in all_graphs(graph) if one is not graph.graph for node in one)
    reason = "it is in a branch or a function, whose tensors cannot be watched; rewrite the model first"
    return [Left(node.name or "", node.op_type, reason) for node in inner if node.op_type in row.rounded | row.open]
