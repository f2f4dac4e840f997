"""Telling models that compute with quantized numbers from those that do not."""

from __future__ import annotations

import onnx_ir

from onnxopt.errors import PassError
from onnxopt.ir.traverse import all_nodes

QUANTIZED_OPS = frozenset(
    {
        "ConvInteger",
        "DequantizeLinear",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "GatherBlockQuantized",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "QAttention",
        "QLinearConv",
        "QLinearMatMul",
        "QuantizeLinear",
    }
)


def is_quantized(graph: onnx_ir.Model) -> bool:
    """Whether any node of a model computes with quantized numbers."""
    return any(node.op_type in QUANTIZED_OPS for node in all_nodes(graph))


def refuse_quantized(graph: onnx_ir.Model) -> None:
    """Raise PassError if the model is quantized already: doing it twice loses accuracy and gains nothing."""
    found = sorted({node.op_type for node in all_nodes(graph) if node.op_type in QUANTIZED_OPS})
    if found:
        raise PassError(f"the model is quantized already: it has {', '.join(found)}", hint="start from the float model")
