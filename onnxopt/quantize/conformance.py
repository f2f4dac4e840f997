"""Does a QDQ model keep to a runtime's rules? What does not is computed in float there, or refused."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir

from onnxopt.ir.quant import Array, Scheme
from onnxopt.ir.traverse import all_nodes
from onnxopt.ir.weights import constant_tensor
from onnxopt.targets.kernels import JOINING, PASSING, Kernels

_BIAS_SLOT = 2


def complaints(graph: onnx_ir.Model, kernels: Kernels) -> list[str]:
    """Return what in a QDQ model is not as a runtime wants it; empty where it keeps to the rules.

    Args:
        graph: Of any origin.
        kernels: The runtime's row.
    """
    return [text for node in all_nodes(graph) for text in _complaints(node, kernels)]


def _complaints(node: onnx_ir.Node, kernels: Kernels) -> Iterator[str]:
    if node.op_type == "QuantizeLinear":
        yield from _of_numbers(node, kernels.activations, "activations")
    if node.op_type == "DequantizeLinear" and constant_tensor(node.inputs[0]) is not None:
        yield from _of_constant(node, kernels)
    if node.op_type in kernels.rounded and _reads_rounded(node) and not _is_rounded(node.outputs[0], kernels):
        yield f"{node.name!r} ({node.op_type}) computes in 8 bits only if what it makes is rounded"
    if node.op_type in PASSING and _reads_rounded(node) and not _passes_scale(node):
        yield f"{node.name!r} ({node.op_type}) passes numbers on, and its result has another scale than its input"


def _of_numbers(node: onnx_ir.Node, scheme: Scheme, what: str) -> Iterator[str]:
    zero = constant_tensor(node.inputs[2]) if len(node.inputs) > 2 else None
    dtype = "uint8" if zero is None else zero.dtype.name.lower()
    if dtype != scheme.dtype:
        yield f"{node.name!r}: {what} are {dtype}, {scheme.dtype} is wanted"
    elif scheme.symmetric and zero is not None and (zero.numpy() != scheme.middle).any():
        yield f"{node.name!r}: a zero point is not {scheme.middle}, which symmetric {what} have"


def _of_constant(node: onnx_ir.Node, kernels: Kernels) -> Iterator[str]:
    readers = [(reader, slot) for reader, slot in node.outputs[0].uses()]
    if constant_tensor(node.inputs[0]).dtype == onnx_ir.DataType.INT32:  # type: ignore[union-attr]
        yield from _of_bias(node, readers, kernels)
    elif all(reader.op_type in JOINING for reader, _ in readers):
        yield from _of_numbers(node, kernels.activations, "operands")
    else:
        yield from _of_numbers(node, kernels.weights, "weights")


def _of_bias(node: onnx_ir.Node, readers: list[tuple[onnx_ir.Node, int]], kernels: Kernels) -> Iterator[str]:
    """Yield what is wrong with a bias: it must be in steps of the products of input and weight."""
    if not kernels.quantized_bias:
        yield f"{node.name!r}: a bias is quantized, and {kernels.runtime} wants it in float"
        return
    for reader, slot in readers:
        layer = (
            reader
            if slot == _BIAS_SLOT
            else next(
                (
                    made
                    for value in reader.inputs
                    if value is not None and (made := value.producer()) and made is not node
                ),
                None,
            )
        )
        scales = [_scale(value) for value in layer.inputs[:2]] if layer is not None else [None]
        own = _scale(node.outputs[0])
        if own is None or any(scale is None for scale in scales):
            yield f"{node.name!r}: a bias is quantized, and what it is added to is not"
        elif not np.allclose(own, scales[0] * scales[1], rtol=1e-5):  # type: ignore[operator]
            yield f"{node.name!r}: the scale of a bias is not the product of its layer's scales"


def _scale(value: onnx_ir.Value | None) -> Array | None:
    maker = value.producer() if value is not None else None
    if maker is None or maker.op_type != "DequantizeLinear":
        return None
    tensor = constant_tensor(maker.inputs[1])
    return None if tensor is None else tensor.numpy()


def _reads_rounded(node: onnx_ir.Node) -> bool:
    return _scale(node.inputs[0]) is not None


def _is_rounded(value: onnx_ir.Value, kernels: Kernels) -> bool:
    """Whether a tensor is read by QuantizeLinear alone, behind an activation that rounding takes in if there is one."""
    readers = [reader for reader, _ in value.uses()]
    if len(readers) == 1 and readers[0].op_type in kernels.absorbed:
        readers = [reader for reader, _ in readers[0].outputs[0].uses()]
    return bool(readers) and all(reader.op_type == "QuantizeLinear" for reader in readers)


def _passes_scale(node: onnx_ir.Node) -> bool:
    """Whether whatever rounds a result does it with the scale of the input."""
    own = _scale(node.inputs[0])
    rounding = [reader for value in node.outputs for reader, _ in value.uses() if reader.op_type == "QuantizeLinear"]
    scales = [constant_tensor(reader.inputs[1]) for reader in rounding]
    return all(scale is not None and np.array_equal(scale.numpy(), own) for scale in scales)  # type: ignore[arg-type]
