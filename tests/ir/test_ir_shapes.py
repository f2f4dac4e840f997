"""Inference fills in what it can, changes no declared type, and leaves every model usable."""

from __future__ import annotations

import onnx
import onnx_ir
import pytest

from onnxopt.ir.model import Model
from onnxopt.ir.shapes import forget_shapes, infer_shapes, known_shape
from tests.graphs import cnn, from_text, mlp


def _values(graph: onnx_ir.Model) -> dict[str, str]:
    return {value.name or "": str(value.shape) for node in graph.graph for value in node.outputs}


def test_fills_in_shapes_and_types() -> None:
    graph = cnn().graph.clone()

    assert infer_shapes(graph) is None
    assert _values(graph) == {
        "c1": "[batch,6,8,8]",
        "n1": "[batch,6,8,8]",
        "r1": "[batch,6,8,8]",
        "c2": "[batch,5,3,3]",
        "p": "[batch,5,1,1]",
        "scores": "[batch,5]",
    }
    assert {value.dtype for node in graph.graph for value in node.outputs} == {onnx_ir.DataType.FLOAT}


def test_goes_on_behind_an_operator_it_does_not_know() -> None:
    graph = from_text(
        """<ir_version: 8, opset_import: ["" : 17, "me" : 1]>
        g (float[n, 4] x) => (float[n, 4] y) {
            a = Relu (x)
            b = me.Secret (a)
            c = Concat <axis = 0> (b, x)
            d = Transpose (x)
            y = Add (a, x)
        }"""
    ).graph

    assert infer_shapes(graph) is None
    shapes = _values(graph)
    assert (shapes["a"], shapes["b"], shapes["d"]) == ("[n,4]", "None", "[4,n]")


def test_reshapes_by_a_computed_shape() -> None:
    graph = from_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2, 3, 4] x) => (float[a, b] y) {
            s = Shape <start = 0, end = 1> (x)
            m = Constant <value_ints = [-1]> ()
            t = Concat <axis = 0> (s, m)
            z = Reshape (x, t)
            y = Relu (z)
        }"""
    ).graph

    assert infer_shapes(graph) is None
    assert _values(graph)["z"] == "[2,12]"


BROKEN = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[2, 3] x, float[4, 5] w) => (float[2, 5] y) { h = Relu (x) y = MatMul (h, w) }"""


def test_what_cannot_be_inferred_stays_as_it_was() -> None:
    model = from_text(BROKEN)
    signature = model.signature

    infer_shapes(model.graph)

    assert Model(model.graph).signature == signature
    assert model.operators == {"Relu": 1, "MatMul": 1}


def test_a_failing_inference_is_told_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise onnx.shape_inference.InferenceError("[ShapeInferenceError] in y\ndetails")

    model = mlp()
    before = _values(model.graph)
    monkeypatch.setattr("onnxopt.ir.shapes._infer", fail)

    assert infer_shapes(model.graph) == "[ShapeInferenceError] in y"
    assert _values(model.graph) == before


@pytest.mark.parametrize("outputs", [False, True])
def test_declared_types_stay(outputs: bool) -> None:
    model = from_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[batch, 4] x) => (float[n, m] y, int64[k] s) { y = Relu (x) s = Shape (x) }"""
    )
    inputs = model.signature.inputs

    infer_shapes(model.graph, outputs=outputs)

    after = Model(model.graph).signature
    assert after.inputs == inputs
    if outputs:
        assert [port.shape for port in after.outputs] == [("n", 4), (2,)]
    else:
        assert after == model.signature


def test_declared_types_stay_even_where_a_weight_is_an_input() -> None:
    graph = mlp().graph.clone()
    graph.graph.initializers["w1"].shape = onnx_ir.Shape(["rows", "columns"])
    graph.graph.inputs.append(graph.graph.initializers["w1"])

    infer_shapes(graph)

    assert str(graph.graph.inputs[1].shape) == "[rows,columns]"


def test_branches_are_inferred_too() -> None:
    graph = from_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (bool c, float[n, 4] x) => (float[k, l] y) {
            y = If (c) <then_branch = t () => (a) { r = Relu (x) a = Transpose (r) },
                        else_branch = e () => (b) { b = Transpose (x) }>
        }"""
    ).graph

    assert infer_shapes(graph) is None
    branch = graph.graph[0].attributes["then_branch"].as_graph()
    assert str(branch[0].outputs[0].shape) == "[n,4]"


def test_forget_shapes_keeps_the_interface() -> None:
    model = cnn()
    infer_shapes(model.graph)

    forget_shapes(model.graph)

    assert set(_values(model.graph).values()) == {"None", "[batch,5]"}
    assert Model(model.graph).signature == model.signature


@pytest.mark.parametrize(
    ("shape", "known"), [([2, 3], (2, 3)), ([], ()), (["n", 3], None), ([None, 3], None), (None, None)]
)
def test_known_shape(shape: list[int | str | None] | None, known: tuple[int, ...] | None) -> None:
    value = onnx_ir.Value(name="v", shape=None if shape is None else onnx_ir.Shape(shape))

    assert known_shape(value) == known


def test_known_shape_of_nothing() -> None:
    assert known_shape(None) is None
