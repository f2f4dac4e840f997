"""What a graph does not need goes, what it does need and its interface stay."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir
import pytest

from onnxopt.ir.check import check_structure, checker_complaint
from onnxopt.ir.cleanup import (
    freeze_weights,
    lift_constants,
    merge_equal_nodes,
    merge_equal_weights,
    remove_identities,
    remove_unused,
)
from onnxopt.ir.model import Model, normalise
from onnxopt.ir.traverse import all_graphs
from tests.graphs import from_text, mlp

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'


def _done(model: Model, change: Callable[[onnx_ir.Model], None]) -> Model:
    """Return the changed model, which is valid and has the same interface."""
    graph = model.graph.clone()
    change(graph)
    normalise(graph)
    after = Model(graph)
    assert after.signature == model.signature
    check_structure(graph, "after")
    assert checker_complaint(graph) is None
    return after


@pytest.mark.parametrize(
    "change",
    [freeze_weights, lift_constants, merge_equal_nodes, merge_equal_weights, remove_identities, remove_unused],
)
def test_a_tight_model_is_left_alone(change: Callable[[onnx_ir.Model], None]) -> None:
    assert _done(mlp(), change).digest == mlp().digest


def test_freeze_weights_raises_the_ir_version() -> None:
    graph = mlp().graph.clone()
    graph.graph.inputs.extend([graph.graph.initializers["w1"], graph.graph.initializers["b1"]])
    graph.ir_version = 3

    after = _done(Model(graph), freeze_weights)

    assert [value.name for value in after.graph.graph.inputs] == ["x"]
    assert after.graph.ir_version == 4
    assert set(after.graph.graph.initializers) == {"w1", "b1", "w2", "b2"}


def test_freeze_weights_keeps_a_newer_ir_version() -> None:
    assert _done(mlp(), freeze_weights).graph.ir_version == 8


def test_lift_constants_in_branches_too() -> None:
    model = from_text(
        f"""{HEAD} g (bool c, float[2] x) => (float[2] y) {{
            k = Constant <value_floats = [1.0, 2.0]> ()
            z = Add (x, k)
            y = If (c) <
                then_branch = t () => (float[2] a) {{ m = Constant <value = float[2] {{3, 4}}> () a = Add (z, m) }},
                else_branch = e () => (float[2] b) {{ b = Abs (z) }}>
        }}"""
    )

    after = _done(model, lift_constants)

    assert after.operators == {"Add": 2, "If": 1, "Abs": 1}
    held = [value.const_value for graph in all_graphs(after.graph) for value in graph.initializers.values()]
    assert sorted(tensor.numpy().tolist() for tensor in held if tensor is not None) == [[1, 2], [3, 4]]


def test_remove_identities_except_between_input_and_output() -> None:
    model = from_text(
        f"""{HEAD} g (float[2] x) => (float[2] y, float[2] copy) {{
            a = Identity (x)
            b = Relu (a)
            y = Identity (b)
            copy = Identity (x)
        }}"""
    )

    assert _done(model, remove_identities).operators == {"Relu": 1, "Identity": 1}


def test_merge_equal_weights_tells_types_and_bits_apart() -> None:
    model = from_text(
        f"""{HEAD} g (float[2] x) => (float[2] y) {{
            a = Add (x, w1)
            b = Add (a, w2)
            c = Add (b, w3)
            d = Cast <to = 1> (w4)
            y = Add (c, d)
        }}""",
        {
            "w1": np.array([0, 1], np.float32),
            "w2": np.array([0, 1], np.float32),
            "w3": np.array([-0.0, 1], np.float32),
            "w4": np.array([0, 0x3F800000], np.int32),
        },
    )

    after = _done(model, merge_equal_weights)

    assert len(after.graph.graph.initializers) == 3
    assert [node.inputs[1].name for node in list(after.graph.graph)[:2] if node.inputs[1]] == ["w1", "w1"]


def test_merge_equal_nodes_tells_attributes_apart() -> None:
    model = from_text(
        f"""{HEAD} g (float[2] x) => (float[2] y) {{
            a = Elu <alpha = 1.5> (x)
            b = Elu <alpha = 1.5> (x)
            c = Elu <alpha = 2.5> (x)
            d = Add (a, b)
            y = Add (d, c)
        }}"""
    )

    assert _done(model, merge_equal_nodes).operators == {"Elu": 2, "Add": 2}


def test_merge_equal_nodes_leaves_random_ones() -> None:
    model = from_text(
        f"""{HEAD} g (float[2] x) => (float[2] y) {{
            a = RandomNormalLike (x)
            b = RandomNormalLike (x)
            y = Sub (a, b)
        }}"""
    )

    assert _done(model, merge_equal_nodes).operators["RandomNormalLike"] == 2


def test_remove_unused_keeps_inputs() -> None:
    model = from_text(
        """<ir_version: 8, opset_import: ["" : 17, "me" : 1, "gone" : 1]>
        g (float[2] x, float[2] spare, bool c) => (float[2] y) {
            dead = Relu (spare)
            deader = Abs (dead)
            y = If (c) <then_branch = t () => (float[2] a) { q = Neg (x) a = Add (x, w) },
                        else_branch = e () => (float[2] b) { b = Abs (x) }>
        }
        <domain: "me", opset_import: ["" : 17]> Unused (p) => (q) { q = Relu (p) }""",
        {"w": np.ones(2, np.float32), "dead_weight": np.zeros(2, np.float32)},
    )

    after = _done(model, remove_unused)

    assert after.operators == {"If": 1, "Add": 1, "Abs": 1}
    assert [value.name for value in after.graph.graph.inputs] == ["x", "spare", "c"]
    assert set(after.graph.graph.initializers) == {"w"}
    assert not after.graph.functions
    assert dict(after.graph.opset_imports) == {"": 17}


def test_remove_unused_keeps_a_weight_that_is_an_output() -> None:
    model = from_text(f"{HEAD} g (float[2] x) => (float[2] y, float[2] w) {{ y = Relu (x) }}", {"w": np.ones(2, "f4")})

    assert set(_done(model, remove_unused).graph.graph.initializers) == {"w"}
