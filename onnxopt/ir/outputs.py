"""What the outputs of a graph mean, as far as the graph tells."""

from __future__ import annotations

import onnx_ir

_DECISIVE = frozenset({"ArgMax", "LogSoftmax", "Softmax"})
_PASS_ON = frozenset({"Cast", "DequantizeLinear", "Flatten", "Identity", "QuantizeLinear", "Reshape", "Squeeze"})


def classifier_outputs(graph: onnx_ir.Graph) -> frozenset[str]:
    """Return the outputs whose argmax is the answer: those a Softmax or ArgMax makes."""
    return frozenset(value.name for value in graph.outputs if value.name and _origin(value) in _DECISIVE)


def _origin(value: onnx_ir.Value) -> str | None:
    """Return the operator that makes a value, behind nodes that only pass it on."""
    node = value.producer()
    while node is not None and node.op_type in _PASS_ON and node.inputs and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node.op_type if node is not None else None
