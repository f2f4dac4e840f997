"""What a runtime computes in eight bits, and how it wants the numbers: data, a row for each runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnxopt.errors import UsageError, did_you_mean
from onnxopt.ir.quant import Scheme

UNSIGNED = Scheme("uint8", symmetric=False)
SIGNED = Scheme("int8", symmetric=True)
BY_CHANNEL = Scheme("int8", symmetric=True, granularity="channel")

NARROW_BITS = 7
"""Bits of a weight with which two products by uint8 fit an int16: 2 * 255 * 64 is below 2 ** 15."""

PASSING = frozenset(
    {
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "MaxPool",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
"""Operators whose outputs are some of their first input's numbers, so that both have one scale."""

JOINING = frozenset({"Add", "Concat", "Mul"})
"""Operators that compute with all their inputs; of others only the first holds numbers, the rest say what to do."""


@dataclass(frozen=True, slots=True)
class Kernels:
    """What a runtime has eight-bit kernels for.

    Attributes:
        runtime: Its name.
        activations: How it wants them.
        weights: How it wants them, by output channel.
        rounded: Operators with weights that give eight bits only: what reads them reads rounded numbers.
        open: Operators with weights that can give float32, so that rounding the result is left to who wants it.
        between: Operators without weights that have kernels of their own, with a scale for each input and output.
        absorbed: Activations that rounding behind an operator with weights makes superfluous or takes in.
        following: Activations computed in eight bits wherever they read what one of ``rounded`` makes, and with them
            the product of that and the activation (Sigmoid and HardSigmoid as gates: SiLU, HardSwish).
        quantized_bias: Whether a bias is stored as int32 with the product of the two scales.
        source: Where this is written, or what it was measured with.
    """

    runtime: str
    activations: Scheme
    weights: Scheme
    rounded: frozenset[str]
    open: frozenset[str]
    between: frozenset[str]
    absorbed: frozenset[str]
    following: frozenset[str]
    quantized_bias: bool
    source: str


def kernels(runtime: str) -> Kernels:
    """Return the row of a runtime.

    Raises:
        UsageError: There is none.
    """
    if runtime not in _ROWS:
        raise UsageError(f"nothing is known of int8 in {runtime!r}", hint=did_you_mean(runtime, list(_ROWS)))
    return _ROWS[runtime]


_ROWS: Mapping[str, Kernels] = {
    row.runtime: row
    for row in (
        Kernels(
            "ort",
            UNSIGNED,
            BY_CHANNEL,
            rounded=frozenset({"Conv"}),
            open=frozenset({"Gemm", "MatMul"}),
            between=frozenset(
                {
                    "Add",
                    "AveragePool",
                    "Concat",
                    "GlobalAveragePool",
                    "HardSigmoid",
                    "LeakyRelu",
                    "Mul",
                    "Sigmoid",
                    "Softmax",
                }
            ),
            absorbed=frozenset({"Relu", "Clip"}),
            following=frozenset({"HardSigmoid", "LeakyRelu", "Sigmoid"}),
            quantized_bias=True,
            source="onnxruntime's qdq_selector_action_transformer and its quantization guide: U8S8 on x86",
        ),
        Kernels(
            "openvino",
            UNSIGNED,
            BY_CHANNEL,
            rounded=frozenset(),
            open=frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"}),
            between=frozenset({"Add", "AveragePool", "Concat", "GlobalAveragePool", "Mul", "Resize"}),
            absorbed=frozenset({"Relu", "Clip"}),
            following=frozenset(),
            quantized_bias=False,
            source="OpenVINO's low precision transformations guide",
        ),
        Kernels(
            "tensorrt",
            SIGNED,
            BY_CHANNEL,
            rounded=frozenset(),
            open=frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"}),
            between=frozenset({"Add", "AveragePool", "Concat", "GlobalAveragePool"}),
            absorbed=frozenset({"Relu", "Clip"}),
            following=frozenset(),
            quantized_bias=False,
            source="NVIDIA TensorRT developer guide, Working with Quantized Types: symmetric, zero points 0",
        ),
    )
}
