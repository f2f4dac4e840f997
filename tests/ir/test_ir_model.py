"""What a model tells about itself, and what its copies share."""

from __future__ import annotations

import onnx_ir

from onnxopt.ir.model import Model, private_copy
from onnxopt.ir.signature import Port
from tests.graphs import from_text, mlp

MANY = from_text(
    """<ir_version: 8, opset_import: ["" : 17, "com.me" : 1]>
    many (bool c, float[batch, 3, ?] x, float w, seq(float[2]) s) => (float[n] y, int64 length) {
        y = If (c) <then_branch = t () => (float[n] a) { a = com.me.Thing (x) },
                    else_branch = e () => (float[n] b) { r = Relu (x) b = Relu (r) }>
        length = SequenceLength (s)
    }"""
)


def test_operators_are_counted_in_branches_too() -> None:
    assert MANY.nodes == 5
    assert next(iter(MANY.operators.items())) == ("Relu", 2)
    assert MANY.operators == {"Relu": 2, "If": 1, "SequenceLength": 1, "com.me::Thing": 1}


def test_signature_tells_types_and_what_is_known_of_shapes() -> None:
    assert MANY.signature.inputs == (
        Port("c", "bool", ()),
        Port("x", "float32", ("batch", 3, None)),
        Port("w", "float32", ()),
        Port("s", "sequence<float32>", (2,)),
    )
    assert [str(port) for port in MANY.signature.outputs] == ["y: float32[n]", "length: int64[]"]


def test_unknown_dimensions_of_every_spelling_are_none() -> None:
    graph = mlp().graph.clone()
    graph.graph.inputs[0].shape = onnx_ir.Shape([-1, 8, None, "?", "", "n"])

    assert Model(graph).signature.inputs[0].shape == (None, 8, None, None, None, "n")


def test_a_weight_that_is_an_input_too_need_not_be_fed() -> None:
    graph = mlp().graph.clone()
    graph.graph.inputs.append(graph.graph.initializers["w1"])

    assert [port.name for port in Model(graph).signature.inputs] == ["x"]


def test_repr_names_the_graph() -> None:
    model = mlp()

    assert repr(model) == f"Model('mlp', 4 nodes, {model.digest[:12]})"


def test_a_private_copy_shares_tensors_only() -> None:
    model = from_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (bool c, float[n] x) => (float[n] y) {
            y = If (c) <then_branch = t () => (float[n] a) { a = Abs (x) },
                        else_branch = e () => (float[n] b) { b = Neg (x) }>
        }"""
    )
    before = model.digest
    copy = private_copy(model.graph)
    branch = copy.graph[0].attributes["then_branch"].as_graph()

    for value in (copy.graph.inputs[1], copy.graph.outputs[0], branch.outputs[0]):
        value.dtype = onnx_ir.DataType.FLOAT16
        value.shape = onnx_ir.Shape([7])
    branch[0].op_type = "Relu"
    copy.metadata_props["touched"] = "yes"
    copy.opset_imports["me"] = 1

    assert Model(model.graph).digest == before
    assert Model(copy).digest != before


def test_a_private_copy_of_weights_shares_them() -> None:
    model = mlp()
    copy = private_copy(model.graph)

    for name, value in model.graph.graph.initializers.items():
        assert copy.graph.initializers[name].const_value is value.const_value
