"""Loops of few trips written out, and what is the same in every trip computed before the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir

from onnxopt.ir.traverse import subgraphs
from onnxopt.rewrite.reading import constant, producer, weight
from onnxopt.rewrite.rule import Miss, Outcome, Replacement, Rule, remade

_MOST_NODES = 32
"""Nodes a loop may become: a loop of more is shorter as it is, and what it saves by going is small beside its work."""


class UnrollLoop(Rule):
    """A Loop whose trips are known and few is its body, so many times."""

    name: ClassVar[str] = "unrolled-loop"
    operators: ClassVar[frozenset[str]] = frozenset({"Loop"})
    since: ClassVar[int] = 13

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if the number of trips is constant, no condition ends it early, and it becomes few nodes."""
        body, given = node.attributes["body"].as_graph(), constant(node.inputs[0])
        if given is None:
            return Miss("the number of trips is not constant", node)
        trips, size = max(int(given.reshape(-1)[0]), 0), _size(body)
        if not (_always(node.inputs[1]) and (_always(body.outputs[0]) or _is_copy(body.outputs[0], body.inputs[1]))):
            return Miss("a condition may end it early", node)
        if trips * size > _MOST_NODES:
            return Miss(f"{trips} trips of {size} nodes are more than {_MOST_NODES} nodes", node)
        if any(value is None for value in node.inputs[2:]):
            return Miss("a value it carries is not given", node)
        if trips == 0 and len(node.outputs) > len(node.inputs) - 2:
            return Miss("it runs no trip, and makes a tensor of no rows", node)
        return _unrolled(node, body, trips)


class HoistFromLoop(Rule):
    """What a Loop or Scan computes alike in every trip is computed once, before it."""

    name: ClassVar[str] = "hoist-from-loop"
    operators: ClassVar[frozenset[str]] = frozenset({"Loop", "Scan"})

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if a node of the body reads nothing that changes, and cannot fail where the loop runs no trip."""
        places = _invariant(node.attributes["body"].as_graph())
        if not places:
            return None
        body = node.attributes["body"].as_graph().clone(allow_outer_scope_values=True)
        nodes = list(body)
        hoisted = [nodes[place] for place in places]
        read = {value for one in hoisted for value in one.inputs}
        weights = [value for value in body.initializers.values() if value in read]
        for value in weights:
            del body.initializers[str(value.name)]
        body.remove(hoisted)
        after = remade(node, node.inputs, {**node.attributes, "body": onnx_ir.AttrGraph("body", body)})
        return Replacement(after.values, (*hoisted, *after.nodes), tuple(weights))


_SAFE = frozenset(
    {"Abs", "Add", "Cast", "Ceil", "Concat", "Cos", "Equal", "Erf", "Exp", "Floor", "Gemm", "Greater", "Less"}
    | {"Log", "MatMul", "Max", "Min", "Mul", "Neg", "Not", "Pow", "Reciprocal", "Relu", "Shape", "Sigmoid", "Sin"}
    | {"Softmax", "Sqrt", "Sub", "Tanh", "Transpose", "Where"}
)
"""Operators that give the same for the same, and that fail for the values of no input of fitting shape."""


def _invariant(body: onnx_ir.Graph) -> list[int]:
    """Return the places of a body's nodes that read nothing that changes from trip to trip."""
    changing, places = set(body.inputs), []
    for place, node in enumerate(body):
        made_here = any(value.is_graph_output() for value in node.outputs)
        known = node.op_type in _SAFE and node.domain in ("", "ai.onnx") and not made_here
        if known and changing.isdisjoint(value for value in node.inputs if value is not None):
            places.append(place)
        else:
            changing.update(node.outputs)
    return places


def _size(graph: onnx_ir.Graph) -> int:
    """Return the number of nodes, those in branches too."""
    return len(graph) + sum(_size(inner) for node in graph for inner in subgraphs(node))


def _always(condition: onnx_ir.Value | None) -> bool:
    """Whether a condition is not given, or constant and true."""
    array = constant(condition)
    return condition is None or (array is not None and bool(array.all()))


def _is_copy(value: onnx_ir.Value, source: onnx_ir.Value) -> bool:
    copy = producer(value, "Identity")
    return value is source or (copy is not None and copy.inputs[0] is source)


@dataclass(frozen=True)
class _Trip:
    """A body's nodes reading what one trip is given, ready to be put into another graph."""

    nodes: Sequence[onnx_ir.Node]
    weights: Sequence[onnx_ir.Value]
    outputs: Sequence[onnx_ir.Value]


def _unrolled(node: onnx_ir.Node, body: onnx_ir.Graph, trips: int) -> Replacement:
    goes_on = weight(f"{node.name}_goes_on", np.array(True))
    first = weight(f"{node.name}_first_axis", np.array([0], np.int64))
    carried = [value for value in node.inputs[2:] if value is not None]
    nodes: list[onnx_ir.Node] = []
    weights = [goes_on, first]
    rows: list[Sequence[onnx_ir.Value]] = []
    for index in range(trips):
        number = weight(f"{node.name}_trip_{index}", np.array(index, np.int64))
        trip = _trip(body, [number, goes_on, *carried], f"{node.name}_{index}")
        nodes += trip.nodes
        weights += [number, *trip.weights]
        rows.append(trip.outputs[1 + len(carried) :])
        carried = list(trip.outputs[1 : 1 + len(carried)])
    stack = onnx_ir.tape.Tape()
    stacked = [_stacked(stack, values, first) for values in zip(*rows, strict=True)]
    return Replacement((*carried, *stacked), (*nodes, *stack.nodes), tuple(weights))


def _trip(body: onnx_ir.Graph, given: Sequence[onnx_ir.Value], name: str) -> _Trip:
    copy = body.clone(allow_outer_scope_values=True)
    outputs, nodes, weights = list(copy.outputs), list(copy), list(copy.initializers.values())
    copy.outputs.clear()
    copy.initializers.clear()
    copy.remove(nodes)
    instead = dict(zip(copy.inputs, given, strict=True))
    for value, one in instead.items():
        value.replace_all_uses_with(one)
    for node in nodes:
        node.name = f"{name}_{node.name}"
        for value in node.outputs:
            value.name = f"{name}_{value.name}"
    return _Trip(nodes, weights, [instead.get(value, value) for value in outputs])


def _stacked(tape: onnx_ir.tape.Tape, rows: Sequence[onnx_ir.Value], axis: onnx_ir.Value) -> onnx_ir.Value:
    """Return the tensor of what every trip adds a row to."""
    parts = [tape.op("Unsqueeze", [row, axis]) for row in rows]
    return parts[0] if len(parts) == 1 else tape.op("Concat", parts, {"axis": 0})


LOOPS: tuple[Rule, ...] = (UnrollLoop(), HoistFromLoop())
