"""Making a graph one that onnxruntime's quantizers do not stumble over.

Each repair answers a known failure of theirs: weights that are not initializers are skipped or crash them, a Gemm's
bias that is not one number for each channel crashes them, and per-channel quantization needs the axis attribute of
opset 13.
"""

from __future__ import annotations

import onnx_ir

from onnxopt.errors import PassError
from onnxopt.ir.cleanup import freeze_weights, lift_constants, remove_unused
from onnxopt.ir.fold import fold
from onnxopt.ir.model import normalise
from onnxopt.ir.opset import convert
from onnxopt.ir.shapes import infer_shapes
from onnxopt.ir.traverse import all_nodes
from onnxopt.ir.weights import along_last_axis, constant_tensor, weight_value

PER_CHANNEL_OPSET = 13
"""The first opset whose QuantizeLinear and DequantizeLinear have an axis."""

QUANTIZED_OPS = frozenset(
    {
        "ConvInteger",
        "DequantizeLinear",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "QAttention",
        "QLinearConv",
        "QLinearMatMul",
        "QuantizeLinear",
    }
)


def refuse_quantized(graph: onnx_ir.Model) -> None:
    """Raise PassError if the model is quantized already: doing it twice loses accuracy and gains nothing."""
    found = sorted({node.op_type for node in all_nodes(graph) if node.op_type in QUANTIZED_OPS})
    if found:
        raise PassError(f"the model is quantized already: it has {', '.join(found)}", hint="start from the float model")


def refuse_without(graph: onnx_ir.Model, ops: frozenset[str]) -> None:
    """Raise PassError if the model has none of these operators."""
    if not any(node.op_type in ops for node in all_nodes(graph)):
        raise PassError(f"there is nothing to quantize: the model has no {', '.join(sorted(ops))}")


def prepare(graph: onnx_ir.Model) -> onnx_ir.Model:
    """Return a graph with every weight in an initializer, shapes inferred, nodes named, and at least opset 13."""
    freeze_weights(graph)
    if graph.opset_imports.get("", 0) < PER_CHANNEL_OPSET:
        graph = convert(graph, PER_CHANNEL_OPSET)
    lift_constants(graph)
    fold(graph, growth=0)
    lift_constants(graph)
    for node in all_nodes(graph):
        if node.op_type == "Gemm" and len(node.inputs) > 2:
            _write_out_bias(node)
    remove_unused(graph)
    infer_shapes(graph)
    normalise(graph)
    return graph


def _write_out_bias(node: onnx_ir.Node) -> None:
    """Give a Gemm its bias as [channels], unless it differs from row to row or is computed."""
    kernel, bias = (constant_tensor(value) for value in node.inputs[1:3])
    if kernel is None or bias is None or node.graph is None:
        return
    count = kernel.numpy().shape[0 if node.attributes.get_int("transB", 0) else 1]
    written_out = along_last_axis(bias.numpy(), count)
    if written_out is None or bias.numpy().shape == (count,):
        return
    value = weight_value(f"{node.name}_bias_by_channel", written_out)
    node.graph.register_initializer(value)
    node.replace_input_with(2, value)


def matmuls_of_activations(graph: onnx_ir.Model) -> list[str]:
    """Return the names of MatMul nodes that read no weight, such as those of attention."""
    found = (node for node in all_nodes(graph) if node.op_type == "MatMul")
    return [node.name or "" for node in found if all(constant_tensor(value) is None for value in node.inputs)]
