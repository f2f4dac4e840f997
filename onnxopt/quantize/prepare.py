"""Making a graph ready to be quantized.

Weights that are not initializers would be missed, a Gemm's bias that is not one number for each channel cannot be
stored beside its weight, and per-channel quantization needs the axis attribute of opset 13.
"""

from __future__ import annotations

import onnx_ir

from onnxopt.errors import PassError
from onnxopt.ir.cleanup import remove_unused
from onnxopt.ir.model import normalise
from onnxopt.ir.plain_weights import write_out_weights
from onnxopt.ir.shapes import infer_shapes
from onnxopt.ir.traverse import all_nodes
from onnxopt.ir.weights import add_weight, along_last_axis, constant_tensor, weight_value


def refuse_without(graph: onnx_ir.Model, ops: frozenset[str]) -> None:
    """Raise PassError if the model has none of these operators."""
    if not any(node.op_type in ops for node in all_nodes(graph)):
        raise PassError(f"there is nothing to quantize: the model has no {', '.join(sorted(ops))}")


def prepare(graph: onnx_ir.Model) -> onnx_ir.Model:
    """Return a graph with every weight in an initializer, shapes inferred, nodes named, and at least opset 13."""
    graph = write_out_weights(graph, growth=0)
    for one in (graph.graph, *graph.graph.subgraphs()):
        for node in [node for node in one if node.op_type == "Gemm" and len(node.inputs) > 2]:
            _write_out_bias(node)
    remove_unused(graph)
    infer_shapes(graph)
    normalise(graph)
    return graph


def spell_out_hard_swish(graph: onnx_ir.Model) -> None:
    """Write HardSwish as the product of its input and a HardSigmoid, in place, as ONNX defines it."""
    for node in [node for node in graph.graph if node.op_type == "HardSwish" and node.domain in ("", "ai.onnx")]:
        source, result = node.inputs[0], node.outputs[0]
        gate = onnx_ir.node("HardSigmoid", [source], {"alpha": 1 / 6, "beta": 0.5}, name=f"{node.name}_gate")
        product = onnx_ir.node("Mul", [source, gate.outputs[0]], name=node.name)
        gate.outputs[0].name = f"{result.name}_gate"
        for made in (gate.outputs[0], product.outputs[0]):
            made.type, made.shape = result.type, result.shape
        graph.graph.insert_before(node, [gate, product])
        name, result.name = result.name, None
        product.outputs[0].name = name
        result.replace_all_uses_with(product.outputs[0], replace_graph_outputs=True)
        graph.graph.remove(node, safe=True)


def _write_out_bias(node: onnx_ir.Node) -> None:
    """Give a Gemm its bias as [channels], unless it differs from row to row or is computed."""
    kernel, bias = (constant_tensor(value) for value in node.inputs[1:3])
    if kernel is None or bias is None or node.graph is None:
        return
    count = kernel.numpy().shape[0 if node.attributes.get_int("transB", 0) else 1]
    written_out = along_last_axis(bias.numpy(), count)
    if written_out is None or bias.numpy().shape == (count,):
        return
    node.replace_input_with(2, add_weight(node.graph, weight_value(f"{node.name}_bias_by_channel", written_out)))
