"""The pass ``quantize-dynamic``: int8 weights, activations quantized as they come. Needs no data."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import onnx_ir

from onnxopt.context import Context, Missed
from onnxopt.errors import PassError
from onnxopt.ir.cleanup import merge_equal_weights, remove_unused
from onnxopt.ir.quant import Scheme
from onnxopt.ir.quantized import refuse_quantized
from onnxopt.ir.shapes import forget_other_shapes
from onnxopt.ir.traverse import all_nodes, refuse_unknown
from onnxopt.passes import Pass, option, options
from onnxopt.quantize.dynamic_layers import Rounded, find_dynamic_layers
from onnxopt.quantize.dynamic_nodes import CONTRIB, DynamicWriter
from onnxopt.quantize.placement import Left
from onnxopt.quantize.prepare import prepare, refuse_without
from onnxopt.targets.kernels import BY_CHANNEL


@options
class QuantizeDynamic(Pass):
    """Quantize MatMul and Gemm dynamically; never convolutions, which become several times slower on x86."""

    name: ClassVar[str] = "quantize-dynamic"
    revision: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "onnx-ir", "onnxscript")
    exact: ClassVar[bool] = False

    ops: tuple[Literal["MatMul", "Attention", "LSTM", "Gather"], ...] = option(
        "operators to quantize for ONNX Runtime (OpenVINO is slow at it): MatMul means Gemm too, Attention is the"
        " runtime's own; LSTM costs much accuracy in speech models, Gather only saves size",
        default=("MatMul", "Attention"),
    )
    per_channel: bool = option("one scale for each output channel of a weight", default=True)
    reduce_range: bool = option("7-bit weights, for x86 CPUs without VNNI, whose 8-bit kernels saturate", default=False)
    min_sqnr: float | None = option(
        "dB each weight keeps when it is rounded, or its layer stays in float; none: all are rounded", default=None
    )
    skip: tuple[str, ...] = option("names of nodes to leave in float", default=())

    @classmethod
    def rules(cls) -> Mapping[str, str]:
        """Return the pass itself: it tells of each layer it leaves in float, and why."""
        return {cls.name: inspect.getdoc(cls) or ""}

    def requires(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Refuse models that are quantized already, or have nothing to quantize."""
        refuse_quantized(graph)
        refuse_without(graph, frozenset({*self.ops, *(("Gemm",) if "MatMul" in self.ops else ())}))

    def edit(self, graph: onnx_ir.Model, ctx: Context) -> onnx_ir.Model:
        """Return the quantized model; tell what stays in float, and why."""
        graph = prepare(graph)
        refuse_unknown(self.skip, graph)
        layers, left = find_dynamic_layers(graph, self._scheme(), self.ops, self.skip)
        writer, written = DynamicWriter(), 0
        for layer in layers:
            weights = [matrix.rounded() for matrix in layer.matrices]
            reason = self._refusal(weights)
            if reason is None:
                writer.write(layer, weights)
                written += 1
            else:
                left.append(Left(layer.node.name or "", layer.node.op_type, reason))
        for one in left:
            ctx.emit(Missed(self.name, one.node, one.reason, one.node))
        if not written:
            reasons = "; ".join(dict.fromkeys(f"{one.operator}: {one.reason}" for one in left))
            raise PassError(f"there is nothing to quantize: {reasons}")
        return _finished(graph)

    def _scheme(self) -> Scheme:
        granularity: Literal["channel", "tensor"] = "channel" if self.per_channel else "tensor"
        return replace(BY_CHANNEL, granularity=granularity, bits=7 if self.reduce_range else None)

    def _refusal(self, weights: Sequence[Rounded]) -> str | None:
        """Return why a layer is not rounded that could be."""
        kept = min(weight.sqnr_db for weight in weights)
        if self.min_sqnr is None or kept >= self.min_sqnr:
            return None
        return f"its weight keeps {kept:.1f} dB when it is rounded, and {self.min_sqnr:g} are asked for"


def _finished(graph: onnx_ir.Model) -> onnx_ir.Model:
    if any(node.domain == CONTRIB for node in all_nodes(graph)):
        graph.opset_imports[CONTRIB] = 1
    merge_equal_weights(graph)
    remove_unused(graph)
    return forget_other_shapes(graph, ())
