"""Attention's masks, written as -3.4e38 or -1e9: made numbers that sixteen bits hold, where they end in a Softmax."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir

from onnxopt.ir.quant import Array
from onnxopt.ir.traverse import all_graphs

SOFT_MASK = -10000.0
"""In the place of what float16 cannot hold; float16 holds it, and the sum of several and of scores.

BERT's own mask (google-research/bert, modeling.py). Softmax takes a row's largest score off first, and exp gives
exactly 0 in float32 below -104 and in float16 below -17.4. So the shares are the same to the last bit in each row that
has a place which is not masked and whose score is not thousands below the masked ones. A row in which all is masked
gets shares by its scores rather than equal ones; it stands for padding, which nobody reads. The lowest finite number
would not do: with any negative score it becomes -inf, and a row in which all is masked becomes NaN. What is -inf
already stays so: both types have it."""

_CARRYING = frozenset(
    {
        "Add",
        "Concat",
        "Expand",
        "Gather",
        "Identity",
        "Mul",
        "Reshape",
        "ScatterND",
        "Slice",
        "Squeeze",
        "Transpose",
        "Trilu",
        "Unsqueeze",
        "Where",
    }
)
"""Operators behind which a mask is still a mask."""


def soften_masks(graph: onnx_ir.Model, largest: float) -> None:
    """Replace finite numbers below ``-largest`` in constants that only mask scores of a Softmax, in place.

    Args:
        graph: Constants lifted.
        largest: What sixteen bits hold.
    """
    for one in all_graphs(graph):
        for value in one.initializers.values():
            if value.const_value is not None and _is_mask(value.const_value, largest) and _only_masks(value):
                value.const_value = _softened(value.const_value, largest)
        for node in [node for node in one if node.op_type == "ConstantOfShape" and "value" in node.attributes]:
            filler = node.attributes["value"].as_tensor()
            if _is_mask(filler, largest) and _only_masks(node.outputs[0]):
                node.attributes["value"] = onnx_ir.AttrTensor("value", _softened(filler, largest))


def _is_mask(tensor: onnx_ir.TensorProtocol, largest: float) -> bool:
    """Whether a tensor has finite numbers that do not fit, and all of these are negative."""
    if tensor.dtype != onnx_ir.DataType.FLOAT:
        return False
    array = tensor.numpy()
    return bool(_beyond(array, largest).any()) and not bool((np.isfinite(array) & (array > largest)).any())


def _beyond(array: Array, largest: float) -> Array:
    return np.asarray(np.isfinite(array) & (array < -largest))


def _softened(tensor: onnx_ir.TensorProtocol, largest: float) -> onnx_ir.TensorProtocol:
    array = tensor.numpy()
    softened = np.where(_beyond(array, largest), np.float32(SOFT_MASK), array).astype(np.float32)
    return onnx_ir.tensor(softened, name=tensor.name)


def _only_masks(value: onnx_ir.Value) -> bool:
    """Whether all that is made of a value ends in a Softmax, as part of its scores."""
    waiting, seen = [value], {value}
    while waiting:
        here = waiting.pop()
        if here.is_graph_output() or not here.uses():
            return False
        for reader in _readers(here):
            if reader.op_type not in (*_CARRYING, "Softmax") or reader.domain not in ("", "ai.onnx"):
                return False
            made = [] if reader.op_type == "Softmax" else [one for one in reader.outputs if one not in seen]
            waiting += made
            seen.update(made)
    return True


def _readers(value: onnx_ir.Value) -> Iterator[onnx_ir.Node]:
    yield from (node for node, _ in value.uses())
