"""Transposes that meet once what stands between them is turned, as tf2onnx leaves them around every NHWC layer."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx_ir

from onnxopt.rewrite.reading import constant, integers, only_reader, permuted, producer, weight
from onnxopt.rewrite.rule import Miss, Outcome, Replacement, Rule

_ONE_BY_ONE = frozenset(
    [
        "Abs",
        "Cast",
        "Ceil",
        "Clip",
        "Elu",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "Log",
        "Neg",
        "Not",
        "Reciprocal",
        "Relu",
        "Round",
        "Selu",
        "Sigmoid",
        "Sign",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Tanh",
    ]
)
_FURTHEST = 32
"""Nodes between two Transposes; the search goes no further, so that it stays linear in the size of the graph."""

_WITH_CONSTANT = frozenset({"Add", "Div", "Max", "Min", "Mul", "Pow", "Sub"})
BETWEEN = (*_ONE_BY_ONE, *_WITH_CONSTANT, "BatchNormalization", "Pad")
"""Operators Transposes can meet through."""

_REDUCING = frozenset(
    {"ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"}
)


class TransposeThrough(Rule):
    """Transpose, element by element or padding, Transpose: the two become one in front, or none."""

    name: ClassVar[str] = "transpose-through"
    operators: ClassVar[frozenset[str]] = frozenset({"Transpose"})

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if all between works element by element, or pads, and nothing else reads it."""
        between: list[onnx_ir.Node] = []
        reader, value = node, node.inputs[0]
        while (maker := producer(value, *BETWEEN)) is not None and value is not None and len(between) < _FURTHEST:
            source = _computed_input(maker)
            if source is None:
                return None
            if not only_reader(value, reader):
                return (
                    Miss("what stands between is read elsewhere too", maker) if producer(source, "Transpose") else None
                )
            between.append(maker)
            reader, value = maker, source
        first = producer(value, "Transpose")
        if first is None or not between or value is None:
            return None
        if not only_reader(value, reader):
            return Miss("the first Transpose is read elsewhere too", first)
        before, then = _order(first), _order(node)
        if before is None or then is None:
            return None
        if len(before) != len(then):
            return Miss("a constant between widens what is turned", between[-1])
        norm = next((one for one in between if one.op_type == "BatchNormalization"), None)
        if norm is not None and then[:2] != (0, 1):
            return Miss("the channels that are normalised move", norm)
        return _turned(first, between, permuted(before, then), then)


class TransposeIntoReduce(Rule):
    """A reduction of a Transpose reduces the original along the axes that were moved there."""

    name: ClassVar[str] = "transpose-into-reduce"
    operators: ClassVar[frozenset[str]] = _REDUCING

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if the axes that are left stand in the order they had before."""
        first = producer(node.inputs[0], "Transpose")
        order = _order(first) if first is not None else None
        axes = integers(node, "axes", 1)
        if first is None or order is None or axes is None:
            return None
        moved = [order[axis] for axis in axes]
        left = [axis for axis in order if axis not in moved]
        if node.attributes.get_int("keepdims", 1) or left != sorted(left):
            return Miss("the axes that are left would stand in another order", node)
        return _reduced(node, first.inputs[0], moved)


def _reduced(node: onnx_ir.Node, source: onnx_ir.Value | None, axes: list[int]) -> Replacement:
    if "axes" in node.attributes:
        attributes = {**node.attributes, "axes": onnx_ir.AttrInt64s("axes", axes)}
        made = onnx_ir.Node("", node.op_type, [source], list(attributes.values()))
        return Replacement((made.outputs[0],), (made,))
    given = weight(f"{node.name}_axes", np.array(axes, np.int64))
    made = onnx_ir.Node("", node.op_type, [source, given], list(node.attributes.values()))
    return Replacement((made.outputs[0],), (made,), (given,))


class TransposeSum(Rule):
    """Two Transposes by the same order whose results are added, multiplied and so on become one behind."""

    name: ClassVar[str] = "transpose-sum"
    operators: ClassVar[frozenset[str]] = _WITH_CONSTANT | {"Concat"}

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if every input is a Transpose by the same order that nothing else reads."""
        firsts = [producer(value, "Transpose") for value in node.inputs]
        if len(firsts) < 2 or any(first is None for first in firsts):
            return None
        transposes = [first for first in firsts if first is not None]
        orders = [_order(first) for first in transposes]
        if orders[0] is None or any(order != orders[0] for order in orders):
            return Miss("the orders differ", node)
        if not all(only_reader(first.outputs[0], node) for first in transposes):
            return Miss("a Transpose is read elsewhere too", node)
        order = orders[0]
        attributes = dict(node.attributes)
        if node.op_type == "Concat":
            axis = node.attributes["axis"].as_int() % len(order)
            attributes["axis"] = onnx_ir.AttrInt64("axis", order[axis])
        made = onnx_ir.Node("", node.op_type, [first.inputs[0] for first in transposes], list(attributes.values()))
        last = onnx_ir.Node("", "Transpose", [made.outputs[0]], [onnx_ir.AttrInt64s("perm", list(order))])
        return Replacement((last.outputs[0],), (made, last))


def _computed_input(node: onnx_ir.Node) -> onnx_ir.Value | None:
    """Return the one input that is not constant, None if there are more."""
    computed = [value for value in node.inputs if value is not None and constant(value) is None]
    if node.op_type == "Pad" and (len(node.inputs) > 3 or integers(node, "pads", 1) is None):
        return None
    if node.op_type in _ONE_BY_ONE or node.op_type == "Pad":
        return node.inputs[0] if computed == [node.inputs[0]] else None
    if node.op_type == "BatchNormalization":
        trains = node.attributes.get_int("training_mode", 0) or any(value.uses() for value in node.outputs[1:])
        return node.inputs[0] if computed == [node.inputs[0]] and not trains else None
    return computed[0] if len(computed) == 1 and len(node.inputs) == 2 else None


def _turned(
    first: onnx_ir.Node, between: list[onnx_ir.Node], order: tuple[int, ...], then: tuple[int, ...]
) -> Replacement:
    """Return what stood between, reading the original in its new order, with its constants turned along."""
    nodes: list[onnx_ir.Node] = []
    weights: list[onnx_ir.Value] = []
    value = first.inputs[0]
    if order != tuple(range(len(order))):
        nodes.append(onnx_ir.Node("", "Transpose", [value], [onnx_ir.AttrInt64s("perm", list(order))]))
        value = nodes[-1].outputs[0]
    for old in reversed(between):
        nodes.append(
            _turned_pad(old, value, then, weights) if old.op_type == "Pad" else _turned_node(old, value, then, weights)
        )
        value = nodes[-1].outputs[0]
        value.type = old.outputs[0].type
    return Replacement((value,), tuple(nodes), tuple(weights))


def _turned_node(
    old: onnx_ir.Node, value: onnx_ir.Value | None, then: tuple[int, ...], weights: list[onnx_ir.Value]
) -> onnx_ir.Node:
    source = _computed_input(old)
    if old.op_type == "BatchNormalization":
        return onnx_ir.Node("", old.op_type, [value, *old.inputs[1:]], list(old.attributes.values()))
    inputs = [value if given is source else _turned_constant(given, then, old, weights) for given in old.inputs]
    return onnx_ir.Node("", old.op_type, inputs, list(old.attributes.values()))


def _turned_pad(
    old: onnx_ir.Node, value: onnx_ir.Value | None, then: tuple[int, ...], weights: list[onnx_ir.Value]
) -> onnx_ir.Node:
    pads = integers(old, "pads", 1) or ()
    begin, end = pads[: len(then)], pads[len(then) :]
    turned = [*(begin[axis] for axis in then), *(end[axis] for axis in then)]
    if "pads" in old.attributes:
        attributes = {**old.attributes, "pads": onnx_ir.AttrInt64s("pads", turned)}
        return onnx_ir.Node("", "Pad", [value], list(attributes.values()))
    weights.append(weight(f"{old.name}_pads_turned", np.array(turned, np.int64)))
    return onnx_ir.Node("", "Pad", [value, weights[-1], *old.inputs[2:]], list(old.attributes.values()))


def _turned_constant(
    given: onnx_ir.Value | None, then: tuple[int, ...], node: onnx_ir.Node, weights: list[onnx_ir.Value]
) -> onnx_ir.Value | None:
    """Return a constant in the new order of axes; one number needs none."""
    array = constant(given)
    if given is None or array is None or array.size == 1 or node.op_type in _ONE_BY_ONE:
        return given
    whole = array.reshape((1,) * (len(then) - array.ndim) + array.shape)
    weights.append(weight(f"{given.name}_turned", whole.transpose(then), array))
    return weights[-1]


def _order(node: onnx_ir.Node) -> tuple[int, ...] | None:
    order = node.attributes.get("perm")
    return None if order is None else tuple(order.as_ints())


TRANSPOSES: tuple[Rule, ...] = (TransposeThrough(), TransposeIntoReduce(), TransposeSum())
