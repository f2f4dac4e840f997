"""Removing channels from a graph: weights are cut, and the numbers that follow from their widths are put right."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir

from onnxopt.ir.shapes import forget_shapes, infer_shapes
from onnxopt.ir.weights import add_weight, constant_tensor, weight_value
from onnxopt.prune.groups import Groups
from onnxopt.prune.units import Kept


def shrink(groups: Groups, kept: Kept) -> onnx_ir.Model:
    """Remove what does not stay from the graph the groups were found in, in place, and return it.

    Args:
        groups: Found in a graph of the caller's own.
        kept: What stays; at least one position of each axis.
    """
    for (value, axis), labels in groups.stored.items():
        stays = kept.along(labels)
        if not stays.all():
            _cut(value, axis, stays)
    for repair in groups.repairs:
        _mend(repair.node, repair.slot, repair.made(kept))
    forget_shapes(groups.graph)
    infer_shapes(groups.graph)
    return groups.graph


def _cut(value: onnx_ir.Value, axis: int, stays: np.ndarray[Any, Any]) -> None:
    tensor = constant_tensor(value)
    assert tensor is not None
    array = np.ascontiguousarray(np.compress(stays, tensor.numpy(), axis))
    value.const_value = onnx_ir.tensor(array, dtype=tensor.dtype, name=value.name)
    value.shape = onnx_ir.Shape(array.shape)


def _mend(node: onnx_ir.Node, slot: int | str, made: Any) -> None:
    """Give a node a number: an attribute, a constant input, or one place of it."""
    if isinstance(slot, str):
        several = isinstance(made, list)
        node.attributes.add(onnx_ir.AttrInt64s(slot, made) if several else onnx_ir.AttrInt64(slot, int(made)))
        return
    old = node.inputs[slot] if slot < len(node.inputs) else None
    if isinstance(made, tuple):
        assert old is not None
        tensor = constant_tensor(old)
        assert tensor is not None
        place, number = made
        made = tensor.numpy().copy()
        made[place] = number
    if old is not None and np.array_equal(constant_tensor(old).numpy(), made):  # type: ignore[union-attr]
        return
    name = f"{node.name}_{slot}_after_pruning"
    new = add_weight(node.graph, weight_value(name, np.asarray(made)))
    node.resize_inputs(max(slot + 1, len(node.inputs)))
    node.replace_input_with(slot, new)
    if node.op_type == "Split":
        node.attributes.pop("num_outputs", None)
