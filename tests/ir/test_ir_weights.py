"""Weights are found wherever exporters put them, with the node that computes with them."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest

from onnxopt.ir.model import Model
from onnxopt.ir.weights import constant_tensor, weights
from tests.graphs import from_text, mlp

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
W = np.arange(12, dtype=np.float32).reshape(4, 3)


def _found(model: Model, *, overridable: bool = False) -> list[tuple[str, str, int]]:
    return sorted((w.stored_as, w.consumer.op_type, w.slot) for w in weights(model.graph, overridable=overridable))


@pytest.mark.parametrize(
    ("body", "stored_as"),
    [
        ("y = MatMul (x, w)", "initializer"),
        ("k = Constant <value = float[4, 3] {0,1,2,3,4,5,6,7,8,9,10,11}> () y = MatMul (x, k)", "constant"),
        ("t = Transpose <perm = [1, 0]> (v) y = MatMul (x, t)", "initializer > Transpose"),
        ("t = Cast <to = 1> (d) y = MatMul (x, t)", "initializer > Cast"),
        ("t = Reshape (flat, shape) y = MatMul (x, t)", "initializer > Reshape"),
        ("t = DequantizeLinear (q, scale, zero) y = MatMul (x, t)", "initializer > DequantizeLinear"),
        (
            "a = DequantizeLinear (q, scale, zero) b = Identity (a) t = Cast <to = 1> (b) y = MatMul (x, t)",
            "initializer > DequantizeLinear > Identity > Cast",
        ),
    ],
)
def test_every_storage(body: str, stored_as: str) -> None:
    model = from_text(
        f"{HEAD} g (float[n, 4] x) => (float[n, 3] y) {{ {body} }}",
        {
            "w": W,
            "v": W.T.copy(),
            "d": W.astype(np.float64),
            "flat": W.reshape(-1),
            "shape": np.array([4, 3]),
            "q": W.astype(np.int8),
            "scale": np.float32(1.0),
            "zero": np.int8(0),
        },
    )

    assert _found(model) == [(stored_as, "MatMul", 1)]
    (weight,) = weights(model.graph)
    assert weight.tensor.numpy().size == 12
    assert sorted(weight.tensor.numpy().reshape(-1).tolist()) == list(range(12))
    assert weight.source.name in ("w", "k", "v", "d", "flat", "q")


def test_branches_and_what_they_read_from_outside() -> None:
    model = from_text(
        f"""{HEAD} g (bool c, float[n, 4] x) => (float[n, 3] y) {{
            y = If (c) <then_branch = t () => (float[n, 3] a) {{ a = MatMul (x, w) }},
                        else_branch = e () => (float[n, 3] b) {{
                            k = Constant <value = float[4, 3] {{0,1,2,3,4,5,6,7,8,9,10,11}}> ()
                            b = MatMul (x, k) }}>
        }}""",
        {"w": W},
    )

    assert _found(model) == [("constant", "MatMul", 1), ("initializer", "MatMul", 1)]


def test_functions_are_looked_into() -> None:
    model = from_text(
        """<ir_version: 8, opset_import: ["" : 17, "me" : 1]>
        g (float[2] x) => (float[2] y) { y = me.F (x) }
        <domain: "me", opset_import: ["" : 17]> F (a) => (b) {
            k = Constant <value = float[2] {1, 2}> ()
            b = Add (a, k)
        }"""
    )

    assert _found(model) == [("constant", "Add", 1)]


def test_a_weight_read_by_two_nodes_is_two() -> None:
    model = from_text(
        f"{HEAD} g (float[n, 4] x) => (float[n, 3] y) {{ a = MatMul (x, w) b = MatMul (x, w) y = Add (a, b) }}",
        {"w": W},
    )

    assert _found(model) == [("initializer", "MatMul", 1)] * 2


def test_weights_that_callers_may_override() -> None:
    graph = mlp().graph.clone()
    graph.graph.inputs.append(graph.graph.initializers["w1"])

    assert len(_found(Model(graph))) == 3
    assert len(_found(Model(graph), overridable=True)) == 4
    assert constant_tensor(graph.graph.initializers["w1"]) is None
    assert constant_tensor(graph.graph.initializers["w1"], overridable=True) is not None


def test_what_is_computed_from_inputs_is_no_weight() -> None:
    model = from_text(
        f"{HEAD} g (float[n, 4] x, float[3, 4] v) => (float[n, 3] y) {{ t = Transpose (v) y = MatMul (x, t) }}"
    )

    assert _found(model) == []
    assert constant_tensor(model.graph.graph[0].outputs[0]) is None


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("value = float[2] {1, 2}", np.array([1, 2], np.float32)),
        ("value_int = 3", np.array(3)),
        ("value_ints = [3, 4]", np.array([3, 4])),
        ("value_float = 0.5", np.array(0.5, np.float32)),
        ("value_floats = [0.5, 1.5]", np.array([0.5, 1.5], np.float32)),
    ],
)
def test_constants_of_every_spelling(attribute: str, value: np.ndarray) -> None:  # type: ignore[type-arg]
    model = from_text(f"{HEAD} g (float[2] x) => (float[2] y) {{ k = Constant <{attribute}> () y = me.Op (x, k) }}")

    tensor = constant_tensor(model.graph.graph[0].outputs[0])
    assert tensor is not None
    found = tensor.numpy()
    assert (found.dtype, found.tolist()) == (value.dtype, value.tolist())


def test_constant_of_a_text_and_of_nothing() -> None:
    model = from_text(f'{HEAD} g () => (string y) {{ k = Constant <value_string = "hi"> () y = Identity (k) }}')

    assert constant_tensor(model.graph.graph[0].outputs[0]) is None
    assert constant_tensor(None) is None
    assert constant_tensor(onnx_ir.Value(name="loose")) is None
