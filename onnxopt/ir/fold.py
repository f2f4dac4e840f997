"""Computing what can be computed before the model ships, in place."""

from __future__ import annotations

import math

import onnx_ir

from onnxopt.ir.shapes import known_shape
from onnxopt.ir.traverse import all_nodes
from onnxopt.ir.weights import constant_tensor

KEPT = frozenset({"DequantizeLinear", "QuantizeLinear", "DynamicQuantizeLinear"})
"""Folding these would turn a small quantized weight back into a large one."""

GROWING = frozenset({"ConstantOfShape", "EyeLike", "Expand", "Range", "Tile"})
"""Operators that make large tensors out of small ones."""

_SHORT_CONSTANTS = 12
"""The opset that gave Constant the attributes ``value_int``, ``value_ints``, …"""

_SMALL = 8192
"""Elements; below it any result may be stored, whatever it was made from."""


def fold(graph: onnx_ir.Model, growth: int, keep: frozenset[str] = frozenset(), *, infer: bool = True) -> None:
    """Fold constants in place; see ``FoldConstants``.

    Args:
        graph: The model.
        growth: Bytes one folded tensor may add.
        keep: Initializers that must stay as they are, such as parameters that will be trained.
        infer: Whether to infer shapes on the way, node by node; superfluous where they were inferred before.
    """
    from onnxscript.optimizer import fold_constants

    fold_constants(
        graph,
        onnx_shape_inference=infer,
        input_size_limit=_SMALL,
        output_size_limit=max(_SMALL, growth // 4),
        should_fold=lambda node: _should_fold(node, growth, keep),
    )
    for node in all_nodes(graph):
        if node.op_type == "Constant" and graph.opset_imports.get("", 0) < _SHORT_CONSTANTS:
            _spell_out(node)


def _spell_out(node: onnx_ir.Node) -> None:
    """Turn ``value_ints`` and the like, which the folder writes, into the ``value`` every opset knows."""
    tensor = constant_tensor(node.outputs[0])
    if tensor is not None:
        node.attributes.clear()
        node.attributes["value"] = onnx_ir.AttrTensor("value", tensor)


def _should_fold(node: onnx_ir.Node, growth: int, keep: frozenset[str]) -> bool | None:
    """Return whether to fold a node whose inputs are constant; None leaves it to the folder's own rules."""
    if node.op_type in KEPT or node.domain not in ("", "ai.onnx"):
        return False
    if any(value is not None and value.name in keep for value in node.inputs):
        return False
    size = _result_size(node)
    if size is None:
        return False if node.op_type in GROWING else None
    return size <= growth + sum(_freed(value) for value in node.inputs if value is not None)


def _result_size(node: onnx_ir.Node) -> int | None:
    """Return the bytes of a node's result, where its shape is known."""
    value = node.outputs[0]
    shape = known_shape(value)
    if shape is None:
        return _size_of_fill(node)
    return math.prod(shape) * (value.dtype.bitwidth if value.dtype else 32) // 8


def _size_of_fill(node: onnx_ir.Node) -> int | None:
    """Return the bytes ConstantOfShape or Expand would make, read from its constant shape input."""
    slots = {"ConstantOfShape": 0, "Expand": 1}
    shape = node.inputs[slots[node.op_type]] if node.op_type in slots else None
    if shape is None or shape.const_value is None:
        return None
    return 4 * math.prod(int(dim) for dim in shape.const_value.numpy().reshape(-1))


def _freed(value: onnx_ir.Value) -> int:
    """Return the bytes that go when this reader of a constant goes."""
    alone = len(value.uses()) == 1 and not value.is_graph_output()
    return value.const_value.nbytes if alone and value.const_value is not None else 0
