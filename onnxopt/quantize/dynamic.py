"""The pass ``quantize-dynamic``: int8 weights, activations quantized as they come. Needs no data."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import onnx_ir

from onnxopt.context import Context, Use
from onnxopt.passes import Pass, option, options
from onnxopt.quantize.ort_quantizer import quantize_dynamically
from onnxopt.quantize.prepare import prepare, refuse_quantized, refuse_without


@options
class QuantizeDynamic(Pass):
    """Quantize MatMul and Gemm dynamically; never convolutions, which become several times slower on x86."""

    name: ClassVar[str] = "quantize-dynamic"
    uses: ClassVar[frozenset[Use]] = frozenset({"scratch"})
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "onnx-ir", "onnxscript", "onnxruntime")
    exact: ClassVar[bool] = False

    ops: tuple[Literal["MatMul", "Attention", "LSTM", "Gather"], ...] = option(
        "operators to quantize; LSTM costs much accuracy in speech models, Gather only saves size",
        default=("MatMul", "Attention"),
    )
    per_channel: bool = option("one scale for each output channel of a weight", default=True)
    reduce_range: bool = option("7-bit weights, for x86 CPUs without VNNI, whose 8-bit kernels saturate", default=False)
    skip: tuple[str, ...] = option("names of nodes to leave in float", default=())

    def requires(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Refuse models that are quantized already, or have nothing to quantize."""
        refuse_quantized(graph)
        refuse_without(graph, frozenset({*self.ops, "Gemm"}))

    def edit(self, graph: onnx_ir.Model, ctx: Context) -> onnx_ir.Model:
        """Return the quantized model."""
        return quantize_dynamically(prepare(graph), ctx.scratch, self._settings())

    def _settings(self) -> dict[str, Any]:
        return {
            "ops": list(self.ops),
            "per_channel": self.per_channel,
            "reduce_range": self.reduce_range,
            "weights": "QInt8",
            "skip": list(self.skip),
        }
