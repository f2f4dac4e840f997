"""Every graph, node and tensor is visited once, wherever it is."""

from __future__ import annotations

import numpy as np

from onnxopt.ir.traverse import all_graphs, all_nodes, all_tensors, subgraphs
from tests.graphs import from_text

NESTED = from_text(
    """<ir_version: 8, opset_import: ["" : 17, "me" : 1]>
    main (bool c, float[2] x) => (float[2] y) {
        k = Constant <value = float[2] {1, 2}> ()
        z = me.F (x)
        y = If (c) <then_branch = outer_then () => (float[2] a) { a = Add (z, w) },
                    else_branch = outer_else () => (float[2] b) {
                        b = If (c) <then_branch = inner_then () => (float[2] d) { d = Sub (z, k) },
                                    else_branch = inner_else () => (float[2] e) {
                                        m = Constant <value = float[2] {3, 4}> ()
                                        e = Mul (z, m) }> }>
    }
    <domain: "me", opset_import: ["" : 17]> F (p) => (q) {
        n = Constant <value = float[2] {5, 6}> ()
        q = Div (p, n)
    }""",
    {"w": np.array([7, 8], np.float32)},
).graph


def test_graphs() -> None:
    names = [graph.name for graph in all_graphs(NESTED)]

    assert sorted(name or "F" for name in names) == [
        "F",
        "inner_else",
        "inner_then",
        "main",
        "outer_else",
        "outer_then",
    ]


def test_nodes() -> None:
    kinds = sorted(node.op_type for node in all_nodes(NESTED))

    assert kinds == ["Add", "Constant", "Constant", "Constant", "Div", "F", "If", "If", "Mul", "Sub"]


def test_tensors_and_their_places() -> None:
    found = [(tensor.numpy().tolist(), place) for place, tensor in all_tensors(NESTED)]

    (weight,) = [place for values, place in found if values == [7, 8]]
    assert weight == "initializer 'w'"
    assert sorted(values for values, _ in found) == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert sum("(Constant), attribute 'value'" in place for _, place in found) == 3


def test_subgraphs_of_one_node() -> None:
    (conditional,) = [node for node in NESTED.graph if node.op_type == "If"]

    assert [graph.name for graph in subgraphs(conditional)] == ["outer_then", "outer_else"]
    assert list(subgraphs(NESTED.graph[0])) == []
