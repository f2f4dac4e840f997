"""Activation-aware scaling: inputs that matter get finer steps, for what the layer before divides by.

After Lin et al. 2023 (AWQ, arXiv:2306.00978). An input's weights are multiplied by a power of the size that the input
has on samples, and the normalization before is divided by it, so that the float model computes the same. Which power
is searched for, by the error at the products' outputs, which follows from the Gram matrix alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import onnx_ir

from onnxopt.ir.quant import Array, Scheme
from onnxopt.ir.weights import add_weight, along_last_axis, constant_tensor, weight_value
from onnxopt.quantize.blocks import Blocks, nearest, read_back
from onnxopt.quantize.clipped import fit_clipped

_POWERS = np.linspace(0.0, 1.0, 11)
"""The first leaves everything as it is, so that scaling is never worse than none."""

_NORMS = frozenset({"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"})


def find_scales(weights: Sequence[Array], scheme: Scheme, gram: Array) -> Array:
    """Return what to multiply the inputs of weights by, [inputs] float32, around 1.

    Args:
        weights: That multiply the same vectors; [outputs, inputs], float32, of whole blocks.
        scheme: Of blocks.
        gram: [inputs, inputs]: the sum of xᵀx over those vectors.
    """
    size = np.sqrt(np.diagonal(gram).astype(np.float64))
    size = np.where(size > 0, size, size[size > 0].mean() if size.any() else 1.0)
    best, least = np.ones(len(size), np.float32), np.inf
    for power in _POWERS:
        scales = size**power
        scales = (scales / np.sqrt(scales.max() * scales.min())).astype(np.float32)
        error = sum(_error(weight, scheme, gram, scales) for weight in weights)
        if error < least:
            best, least = scales, error
    return best


def round_awq(weight: Array, scheme: Scheme, gram: Array) -> Blocks:
    """Return a weight, scaled or not, in ranges that lose least at its outputs.

    Args:
        weight: [outputs, inputs], float32, of whole blocks.
        scheme: Of blocks.
        gram: As the inputs are after scaling.
    """
    energy = np.diagonal(gram)
    return nearest(weight, fit_clipped(weight, scheme, energy if energy.any() else None))


def scalable(value: onnx_ir.Value | None, readers: Collection[onnx_ir.Node]) -> str | None:
    """Return why the inputs of ``readers`` cannot be scaled by what makes them, None where they can."""
    maker = None if value is None else value.producer()
    if value is None or maker is None or not list(_constants(maker)):
        return "what it multiplies comes from no normalization or product that could be scaled"
    if value.is_graph_output() or any(use.node not in readers for use in value.uses()):
        return "what it multiplies is read by other nodes too"
    return None


def divide(value: onnx_ir.Value, scales: Array) -> None:
    """Divide a tensor by scales along its last axis, [size], by the constants of the node that makes it."""
    maker = value.producer()
    assert maker is not None
    for slot in list(_constants(maker)):
        tensor = constant_tensor(maker.inputs[slot])
        assert tensor is not None
        numbers = tensor.numpy()
        divided = np.broadcast_to(numbers, (*numbers.shape[:-1], len(scales))) / scales
        constant = weight_value(f"{maker.name}.scaled.{slot}", divided.astype(np.float32))
        maker.replace_input_with(slot, add_weight(maker.graph, constant))


def _constants(maker: onnx_ir.Node) -> Iterator[int]:
    """Yield the slots of the constants that all a node's outputs are proportional to; none if it is not so made."""
    if maker.op_type in _NORMS and maker.attributes.get_int("axis", -1) != -1:
        return
    slots = range(1, len(maker.inputs)) if maker.op_type in _NORMS else range(2) if maker.op_type == "Mul" else ()
    given = [slot for slot in slots if maker.inputs[slot] is not None]
    fixed = [slot for slot in given if _is_vector(maker.inputs[slot])]
    wanted = len(given) if maker.op_type in _NORMS else 1
    yield from fixed if len(fixed) == wanted else ()


def _is_vector(value: onnx_ir.Value | None) -> bool:
    tensor = constant_tensor(value)
    if tensor is None or tensor.dtype != onnx_ir.DataType.FLOAT:
        return False
    return along_last_axis(tensor.numpy(), tensor.size) is not None


def _error(weight: Array, scheme: Scheme, gram: Array, scales: Array) -> float:
    """Return the squared error of the products' outputs."""
    blocks = round_awq(weight * scales, scheme, gram / np.outer(scales, scales))
    off = read_back(blocks, weight.shape[1]) / scales - weight
    return float(np.einsum("nk,nk->", off @ gram, off))
