"""Structure and onnx's checker, on graphs that never were a file; files are in test_ir_read."""

from __future__ import annotations

import onnx_ir
import pytest

from onnxopt.errors import ModelError, PassError
from onnxopt.ir.check import check_structure, checker_complaint
from onnxopt.ir.model import normalise
from onnxopt.passes import checked
from tests.graphs import cnn, from_text, mlp


def test_whole_models_pass() -> None:
    for model in (mlp(), cnn()):
        check_structure(model.graph, "here")
        assert checker_complaint(model.graph) is None


def test_a_node_that_was_removed_is_missed() -> None:
    graph = mlp().graph.clone()
    graph.graph.remove(graph.graph[1])

    with pytest.raises(ModelError) as caught:
        check_structure(graph, "step 3")
    assert caught.value.what == "node 'node_2' (Gemm) reads 'active', which nothing makes"
    assert caught.value.where == "step 3"


def test_branches_see_what_is_around_them() -> None:
    model = from_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (bool c, float[n] x) => (float[n] y) {
            z = Relu (x)
            y = If (c) <then_branch = t () => (float[n] a) { a = Add (z, x) },
                        else_branch = e () => (float[n] b) {
                            b = If (c) <then_branch = t2 () => (float[n] a2) { a2 = Neg (z) },
                                        else_branch = e2 () => (float[n] b2) { b2 = Abs (x) }> }>
        }"""
    )

    check_structure(model.graph, "here")
    assert model.nodes == 6


def test_branches_do_not_see_into_each_other() -> None:
    graph = from_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (bool c, float[n] x) => (float[n] y) {
            y = If (c) <then_branch = t () => (float[n] a) { a = Abs (x) },
                        else_branch = e () => (float[n] b) { b = Neg (x) }>
        }"""
    ).graph
    node = graph.graph[0]
    inside = node.attributes["then_branch"].as_graph()[0].outputs[0]
    node.attributes["else_branch"].as_graph()[0].replace_input_with(0, inside)

    with pytest.raises(ModelError, match="reads 'a', which nothing makes"):
        check_structure(graph, "here")


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda graph: setattr(graph.graph[1], "op_type", "Nonsense"), "No Op registered for Nonsense"),
        (lambda graph: graph.graph[0].resize_inputs(1), "input size 1 not in range"),
        (lambda graph: graph.graph[3].attributes.add(onnx_ir.AttrString("axis", "one")), "Mismatched attribute type"),
        (lambda graph: graph.opset_imports.clear(), "opset_import"),
    ],
)
def test_complaints_are_one_line(spoil: object, complaint: str) -> None:
    graph = mlp().graph.clone()
    assert callable(spoil)
    spoil(graph)

    found = checker_complaint(graph)
    assert found is not None
    assert complaint in found
    assert "\n" not in found


def test_checked_refuses_a_cycle_with_the_change_that_made_it() -> None:
    model = mlp()
    graph = model.graph.clone()
    graph.graph[0].replace_input_with(0, graph.graph[3].outputs[0])

    with pytest.raises(PassError, match="pass 'tangle' made an invalid model: the graph has a cycle"):
        checked(model, graph, "pass 'tangle'")


def test_normalise_sorts_and_names() -> None:
    graph = mlp().graph.clone()
    nodes = list(graph.graph)
    graph.graph.remove(nodes)
    graph.graph.extend(reversed(nodes))
    for node in nodes:
        node.name = "same"

    normalise(graph)

    assert [node.op_type for node in graph.graph] == ["Gemm", "Relu", "Gemm", "Softmax"]
    assert len({node.name for node in graph.graph}) == 4
    check_structure(graph, "here")
