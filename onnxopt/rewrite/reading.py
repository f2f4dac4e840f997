"""Questions rules ask of nodes and values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir

from onnxopt.ir.weights import constant_tensor, weight_value

Array = np.ndarray[Any, Any]


def constant(value: onnx_ir.Value | None) -> Array | None:
    """Return what a value always holds, or None."""
    tensor = constant_tensor(value)
    return None if tensor is None else tensor.numpy()


def integers(node: onnx_ir.Node, name: str, slot: int) -> tuple[int, ...] | None:
    """Return what older opsets say by an attribute and newer ones by a constant input; None if it is not known."""
    attribute = node.attributes.get(name)
    if attribute is not None:
        return tuple(attribute.as_ints())
    array = constant(node.inputs[slot]) if len(node.inputs) > slot else None
    return None if array is None else tuple(int(item) for item in array.reshape(-1))


def slice_steps(node: onnx_ir.Node, axes: int) -> tuple[int, ...] | None:
    """Return the steps of a Slice along so many axes, 1 where none are given; None if they are not constant."""
    given = len(node.inputs) > 4 and node.inputs[4] is not None
    return integers(node, "steps", 4) if given else (1,) * axes


def producer(value: onnx_ir.Value | None, *operators: str) -> onnx_ir.Node | None:
    """Return the node that makes a value if it is one of these operators of ONNX's own domain."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type in operators and node.domain in ("", "ai.onnx") else None


def only_reader(value: onnx_ir.Value, node: onnx_ir.Node) -> bool:
    """Whether nothing but ``node`` reads a value."""
    return not value.is_graph_output() and {user for user, _ in value.uses()} == {node}


def read_once(node: onnx_ir.Node) -> bool:
    """Whether the first output of a node is read in one place alone."""
    return len(node.outputs[0].uses()) == 1 and not node.outputs[0].is_graph_output()


def is_read(value: onnx_ir.Value) -> bool:
    """Whether a node or the outside reads a value."""
    return bool(value.uses()) or value.is_graph_output()


def same_shape(a: onnx_ir.Value | None, b: onnx_ir.Value | None) -> bool:
    """Whether two values are known to have the same shape: every dimension the same number or the same name."""
    if a is None or b is None or a.shape is None or b.shape is None or len(a.shape) != len(b.shape):
        return False
    return all(_same_dim(x, y) for x, y in zip(a.shape, b.shape, strict=True))


def rank(value: onnx_ir.Value | None) -> int | None:
    """Return the number of dimensions, if it is known."""
    return None if value is None or value.shape is None else len(value.shape)


def channels(array: Array, count: int, axes: int) -> Array | None:
    """Return an array of one number, or one for each channel of [batch, channels, …], as [channels]; else None.

    Args:
        array: What is broadcast against the channels.
        count: Of the channels.
        axes: Of the value it is broadcast against.
    """
    if array.ndim > axes:
        return None
    shape = (*(1 for _ in range(axes - array.ndim)), *array.shape)
    if shape[0] != 1 or shape[1] not in (1, count) or any(size != 1 for size in shape[2:]):
        return None
    return np.broadcast_to(array.reshape(-1), (count,))


def weight(name: str, array: Array, like: Array | None = None) -> onnx_ir.Value:
    """Return an initializer, in the type of the one it stands for if there is one."""
    return weight_value(name, array if like is None else array.astype(like.dtype))


def permuted(first: Sequence[int], then: Sequence[int]) -> tuple[int, ...]:
    """Return the permutation that does one and then another."""
    return tuple(first[axis] for axis in then)


def _same_dim(a: int | onnx_ir.SymbolicDim, b: int | onnx_ir.SymbolicDim) -> bool:
    if isinstance(a, int) or isinstance(b, int):
        return a == b
    return a.value is not None and a.value == b.value


def number(value: onnx_ir.Value | None) -> float | None:
    """Return the one number a value always holds, or None."""
    array = constant(value)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 and array.dtype.kind in "fiu" else None


def widens(single: onnx_ir.Value | None, value: onnx_ir.Value | None) -> bool:
    """Whether one number may have more axes than the value it is broadcast against, which then gains some."""
    axes, own = rank(value), rank(single)
    return own != 0 and (own is None or axes is None or own > axes)


def with_number(node: onnx_ir.Node | None) -> tuple[onnx_ir.Value, float] | None:
    """Return the computed input and the constant number of a node of two inputs; in this order unless it commutes."""
    if node is None or len(node.inputs) != 2:
        return None
    for slot in (0, 1) if node.op_type in _COMMUTE else (0,):
        value, found = node.inputs[slot], number(node.inputs[1 - slot])
        if value is not None and found is not None and not widens(node.inputs[1 - slot], value):
            return value, found
    return None


_COMMUTE = frozenset({"Add", "Max", "Min", "Mul", "Sum"})
