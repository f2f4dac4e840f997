"""Layers of one input beside each other, made one whose result is split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import onnx_ir

from onnxopt.rewrite.reading import Array, constant, weight
from onnxopt.rewrite.rule import Miss, Outcome, Replacement, Rule


class SiblingLayers(Rule):
    """Convolutions, or matrix products, of one value become one that is split: queries, keys and values; Inception."""

    name: ClassVar[str] = "sibling-layers"
    operators: ClassVar[frozenset[str]] = frozenset({"Conv", "Gemm", "MatMul"})
    since: ClassVar[int] = 13

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire at the first, if all weights are constant and differ in the number of output channels alone."""
        family = _family(node)
        if len(family) < 2 or family[0] is not node:
            return None
        kernels = [constant(one.inputs[1]) for one in family]
        biases = [_bias(one) for one in family]
        unknown = [
            one for one, kernel, bias in zip(family, kernels, biases, strict=True) if kernel is None or bias is None
        ]
        if unknown:
            return Miss("its weights are not constant", unknown[0])
        return _merged(family, [k for k in kernels if k is not None], [b for b in biases if b is not None])


def _family(node: onnx_ir.Node) -> list[onnx_ir.Node]:
    """Return the node and those like it that read the same value, in the order they read it."""
    source = node.inputs[0]
    readers = dict.fromkeys(user for user, slot in source.uses() if slot == 0) if source is not None else {}
    kind = _kind(node)
    return [one for one in readers if kind is not None and one.graph is node.graph and _kind(one) == kind]


def _kind(node: onnx_ir.Node) -> tuple[object, ...] | None:
    """Return what nodes must share to be merged; None for what cannot be."""
    kernel = node.inputs[1] if len(node.inputs) > 1 else None
    shape = kernel.shape if kernel is not None else None
    if node.domain not in ("", "ai.onnx") or node.op_type not in _OUTPUT_AXIS or shape is None or kernel is None:
        return None
    groups, turned = node.attributes.get_int("group", 1), node.attributes.get_int("transA", 0)
    if groups != 1 or turned:
        return None
    if node.op_type == "MatMul" and len(shape) != 2:
        return None
    rest = tuple(size for axis, size in enumerate(shape) if axis != _output_axis(node))
    attributes = tuple(sorted((key, str(attribute.value)) for key, attribute in node.attributes.items()))
    return node.op_type, rest, kernel.dtype, attributes


_OUTPUT_AXIS: Mapping[str, int] = {"Conv": 0, "Gemm": 1, "MatMul": 1}
"""Of the kernel; for Gemm, unless it is turned."""


def _output_axis(node: onnx_ir.Node) -> int:
    return 0 if node.attributes.get_int("transB", 0) else _OUTPUT_AXIS[node.op_type]


def _bias(node: onnx_ir.Node) -> Array | None:
    """Return the bias as [channels], empty where there is none; None where it is no constant vector."""
    given = node.inputs[2] if len(node.inputs) > 2 else None
    array = constant(given)
    if given is None:
        return np.zeros(0)
    return array.reshape(-1) if array is not None and array.shape[-1:] == (array.size,) else None


def _merged(family: Sequence[onnx_ir.Node], kernels: Sequence[Array], biases: Sequence[Array]) -> Replacement | Miss:
    node, axis = family[0], _output_axis(family[0])
    counts = [kernel.shape[axis] for kernel in kernels]
    if any(bias.size not in (0, count) for bias, count in zip(biases, counts, strict=True)):
        return Miss("a bias is not one number for each channel", node)
    name = node.name or node.op_type
    made = [weight(f"{name}_merged", np.concatenate(kernels, axis), kernels[0])]
    if any(bias.size for bias in biases):
        whole = [bias if bias.size else np.zeros(count) for bias, count in zip(biases, counts, strict=True)]
        made.append(weight(f"{name}_merged_bias", np.concatenate(whole), kernels[0]))
    sizes = weight(f"{name}_sizes", np.array(counts, np.int64))
    layer = onnx_ir.Node("", node.op_type, [node.inputs[0], *made], list(node.attributes.values()))
    where = onnx_ir.AttrInt64("axis", -1 if node.op_type == "MatMul" else 1)
    split = onnx_ir.Node("", "Split", [layer.outputs[0], sizes], [where], num_outputs=len(family))
    others = tuple((one.outputs[0], part) for one, part in zip(family[1:], split.outputs[1:], strict=True))
    return Replacement((split.outputs[0],), (layer, split), (*made, sizes), others)


SIBLINGS: tuple[Rule, ...] = (SiblingLayers(),)
