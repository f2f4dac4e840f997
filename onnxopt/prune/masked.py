"""A graph in which channels are zero instead of gone: the same answers, in the old shapes."""

from __future__ import annotations

import numpy as np
import onnx_ir

from onnxopt.ir.model import private_copy
from onnxopt.prune.groups import Groups
from onnxopt.prune.units import Kept


def masked(groups: Groups, kept: Kept) -> onnx_ir.Model:
    """Return a copy of the graph with zeros for what does not stay, and ones where something is divided by it.

    Cutting what does not stay changes no answer of it, up to rounding: where it does, a tensor was missed.
    """
    graph = private_copy(groups.graph)
    for (value, axis), labels in groups.stored.items():
        weight = graph.graph.initializers[value.name or ""]
        assert weight.const_value is not None
        array = weight.const_value.numpy().copy()
        divides = any(use.node.op_type == "Div" and use.idx == 1 for use in value.uses())
        np.moveaxis(array, axis, 0)[~kept.along(labels)] = 1 if divides else 0
        weight.const_value = onnx_ir.tensor(array, name=value.name)
    return graph
