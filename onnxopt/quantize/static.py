"""The pass ``quantize-static``: int8 with ranges measured on calibration samples."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import onnx_ir

from onnxopt.context import Context, Use
from onnxopt.passes import Pass, option, options
from onnxopt.quantize.ort_quantizer import quantize_statically
from onnxopt.quantize.prepare import matmuls_of_activations, prepare, refuse_quantized, refuse_without

COMPUTE = ("Conv", "Gemm", "MatMul")
"""Where the multiplications are."""

AROUND = (
    "Add",
    "AveragePool",
    "Clip",
    "Concat",
    "Flatten",
    "GlobalAveragePool",
    "LeakyRelu",
    "MaxPool",
    "Mul",
    "Pad",
    "Relu",
    "Reshape",
    "Resize",
    "Sigmoid",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
"""What stands between them; quantized too, tensors stay 8-bit from one to the next."""

_METHODS = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}
_STRIDE = 1
"""Samples whose intermediate tensors are held at once; onnxruntime's calibrators otherwise hold them all, and those
that make histograms fail if shapes differ between them."""


@options
class QuantizeStatic(Pass):
    """Quantize weights and activations to 8 bits as QDQ, calibrated by onnxruntime on the calibration samples."""

    name: ClassVar[str] = "quantize-static"
    revision: ClassVar[int] = 2
    uses: ClassVar[frozenset[Use]] = frozenset({"data", "scratch"})
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "onnx-ir", "onnxscript", "onnxruntime")
    exact: ClassVar[bool] = False

    scope: Literal["compute", "all"] = option(
        "compute: Conv, Gemm and MatMul; all: what stands between them as well", default="compute"
    )
    method: Literal["minmax", "percentile", "entropy"] = option(
        "how ranges follow from what was seen", default="minmax"
    )
    per_channel: bool = option("one scale for each output channel of a weight", default=True)
    weight_matmul_only: bool = option("leave MatMul of two activations (attention) in float", default=True)
    reduce_range: bool = option("7-bit weights, for x86 CPUs without VNNI, whose 8-bit kernels saturate", default=False)
    signed_activations: bool = option("int8 activations: for ARM and GPUs; slow on x86", default=False)
    samples: int = option("calibrate on at most so many samples", default=64, ge=1)
    skip: tuple[str, ...] = option("names of nodes to leave in float", default=())

    def requires(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Refuse models that are quantized already, have nothing to quantize, or come without samples."""
        refuse_quantized(graph)
        refuse_without(graph, frozenset(COMPUTE))
        assert ctx.data

    def edit(self, graph: onnx_ir.Model, ctx: Context) -> onnx_ir.Model:
        """Return the quantized model."""
        graph = prepare(graph)
        return quantize_statically(graph, ctx.data[: self.samples], ctx.scratch, self._settings(graph))

    def _settings(self, graph: onnx_ir.Model) -> dict[str, Any]:
        """Return what the quantizer is told; it looks at ``MatMulConstBOnly`` in its other format only, not in QDQ."""
        attention = matmuls_of_activations(graph) if self.weight_matmul_only else []
        return {
            "ops": list(COMPUTE if self.scope == "compute" else COMPUTE + AROUND),
            "per_channel": self.per_channel,
            "reduce_range": self.reduce_range,
            "activations": "QInt8" if self.signed_activations else "QUInt8",
            "weights": "QInt8",
            "skip": [*self.skip, *attention],
            "method": _METHODS[self.method],
            "extra": {
                "ActivationSymmetric": self.signed_activations,
                "CalibStridedMinMax": _STRIDE,
            },
        }
