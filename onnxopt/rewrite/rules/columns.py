"""Convolutions and pools down a column of width one, laid along a row: runtimes compute several places at once.

Measured on the pitch tracker CREPE (Kim et al. 2018, kernels of [64, 1]): three times faster in OpenVINO. The family
comes before the one that merges padding: a Pad in front of a Transpose stays, and ONNX Runtime, whose padded
convolutions are slower, cannot merge it either.
"""

from __future__ import annotations

from typing import ClassVar

import onnx_ir

from onnxopt.rewrite.reading import Array, constant, producer, weight
from onnxopt.rewrite.rule import Miss, Outcome, Replacement, Rule
from onnxopt.rewrite.rules.transposes import BETWEEN
from onnxopt.rewrite.sizes import dimensions

_TURN = (0, 1, 3, 2)
"""Height and width change places; done twice, it is undone."""

_FURTHEST = 8
"""Nodes between a convolution and what follows it: a bias, a normalisation, an activation."""


class TurnedColumn(Rule):
    """A Conv, MaxPool or AveragePool down a column of width one works along a row, between Transposes that cancel."""

    name: ClassVar[str] = "turned-column"
    operators: ClassVar[frozenset[str]] = frozenset({"AveragePool", "Conv", "MaxPool"})

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire for a convolution taller than one, and for what follows a turned one, where nothing happens across."""
        have, size = dimensions(node.inputs[0]), _kernel_size(node)
        if have is None or size is None or len(have) != 4 or have[3] != 1 or size[1] != 1:
            return None
        alone = node.op_type == "Conv" and size[0] > 1
        if not alone and not _was_turned(node.inputs[0]):
            return None
        if node.attributes.get_int("storage_order", 0) or any(value.uses() for value in node.outputs[1:]):
            return Miss("the places of its maxima are read", node)
        strides, pads = node.attributes.get_ints("strides", (1, 1)), node.attributes.get_ints("pads", (0, 0, 0, 0))
        if strides[1] != 1 or pads[1] or pads[3]:
            return Miss("it pads or strides across the column", node)
        kernel = constant(node.inputs[1]) if node.op_type == "Conv" else None
        if node.op_type == "Conv" and kernel is None:
            return Miss("its weights are not constant", node)
        weights = () if kernel is None else (_turned_kernel(node, kernel),)
        tape = onnx_ir.tape.Tape()
        inputs = [tape.op("Transpose", [node.inputs[0]], {"perm": _TURN}), *weights, *node.inputs[2:]]
        made = onnx_ir.Node("", node.op_type, inputs, _turned_attributes(node), name=node.name)
        back = onnx_ir.Node("", "Transpose", made.outputs, [onnx_ir.AttrInt64s("perm", _TURN)])
        others = (None for _ in node.outputs[1:])
        return Replacement((back.outputs[0], *others), (*tape.nodes, made, back), weights)


def _kernel_size(node: onnx_ir.Node) -> tuple[int, ...] | None:
    """Return height and width of a kernel, where they are known."""
    if "kernel_shape" in node.attributes:
        return tuple(node.attributes["kernel_shape"].as_ints())
    kernel = dimensions(node.inputs[1]) if node.op_type == "Conv" else None
    sizes = [size for size in (kernel or ())[2:] if isinstance(size, int)]
    return tuple(sizes) if len(sizes) == 2 else None


def _was_turned(value: onnx_ir.Value | None) -> bool:
    """Whether a value was turned a few nodes before, with nothing between that holds Transposes apart."""
    for _ in range(_FURTHEST):
        maker = producer(value, "Transpose", *BETWEEN)
        if maker is None or maker.op_type == "Transpose":
            return maker is not None and tuple(maker.attributes.get_ints("perm", ())) == _TURN
        value = maker.inputs[0]
    return False


def _turned_kernel(node: onnx_ir.Node, kernel: Array) -> onnx_ir.Value:
    name = node.inputs[1].name if node.inputs[1] is not None else node.name
    return weight(f"{name}_turned", kernel.transpose(_TURN))


def _turned_attributes(node: onnx_ir.Node) -> list[onnx_ir.Attr]:
    """Return a node's attributes, those that go by height and width the other way round."""
    turned = {
        name: tuple(values[place] for place in (1, 0, 3, 2)[: len(values)])
        for name in ("dilations", "kernel_shape", "pads", "strides")
        if (values := node.attributes.get_ints(name)) is not None
    }
    return [onnx_ir.AttrInt64s(key, turned[key]) if key in turned else one for key, one in node.attributes.items()]


COLUMNS: tuple[Rule, ...] = (TurnedColumn(),)
