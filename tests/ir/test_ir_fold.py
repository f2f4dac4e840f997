"""Folding computes what is constant, keeps quantized and large things as they are, and changes no answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir
import pytest
from onnx.reference import ReferenceEvaluator

from onnxopt.ir.check import checker_complaint
from onnxopt.ir.fold import fold
from onnxopt.ir.model import Model, normalise, private_copy
from onnxopt.ir.traverse import all_nodes
from tests.graphs import Array, from_text

FOUR = np.arange(1, 5, dtype=np.float32)
KIB = 1024


def _model(
    body: str, weights: dict[str, Any], *, opset: int = 17, interface: str = "float[4] x) => (float[m] y"
) -> Model:
    arrays = {name: np.asarray(value) for name, value in weights.items()}
    return from_text(f'<ir_version: 8, opset_import: ["" : {opset}]> g ({interface}) {{ {body} }}', arrays)


def _folded(model: Model, *, growth: int = 64 * KIB, keep: frozenset[str] = frozenset()) -> Model:
    """Return the folded model, which is valid and computes the same."""
    graph = private_copy(model.graph)
    fold(graph, growth, keep)
    normalise(graph)
    assert checker_complaint(graph) is None
    after = Model(graph)
    for before, now in zip(_outputs(model), _outputs(after), strict=True):
        np.testing.assert_allclose(now, before, rtol=1e-6, atol=1e-6)
    return after


def _outputs(model: Model) -> list[Array]:
    session = ReferenceEvaluator(onnx_ir.to_proto(model.graph))
    random = np.random.default_rng(0)
    feeds = {
        port.name: random.standard_normal(port.shape).astype(np.float32) if port.shape else np.array(True)
        for port in model.signature.inputs
    }
    found = session.run(None, feeds)
    assert all(np.ptp(array) > 0 for array in found)
    return found


def _fills(body: str, **weights: Any) -> Model:
    """Return a model in which the body makes ``a``, whose sum the input is multiplied by."""
    return _model(f"{body} f = Cast <to = 1> (a) b = ReduceSum <keepdims = 0> (f) y = Mul (x, b)", weights)


def test_folds_what_is_constant() -> None:
    after = _folded(_model("a = Add (w, w) b = Neg (a) c = Relu (x) y = Mul (c, b)", {"w": FOUR}))

    assert after.operators == {"Relu": 1, "Mul": 1}
    (value,) = after.graph.graph.initializers.values()
    assert value.const_value is not None
    assert value.const_value.numpy().tolist() == [-2, -4, -6, -8]


def test_folds_shapes_that_are_known() -> None:
    model = _model(
        "n = Size (x) t = Unsqueeze (n, i) y = Reshape (x, t)", {"i": [0]}, interface="float[2, 3] x) => (float[m] y"
    )

    assert set(_folded(model, growth=0).operators) - {"Constant"} == {"Reshape"}


def test_folds_inside_branches() -> None:
    model = _model(
        """y = If (c) <then_branch = t () => (float[4] a) { k = Neg (w) a = Mul (x, k) },
                       else_branch = e () => (float[4] b) { b = Abs (x) }>""",
        {"w": FOUR},
        interface="float[4] x, bool c) => (float[4] y",
    )

    assert _folded(model).operators == {"If": 1, "Mul": 1, "Abs": 1}


@pytest.mark.parametrize(
    ("body", "weights", "left"),
    [
        ("d = DequantizeLinear (q, s, z) y = Mul (x, d)", {"q": FOUR.astype("i1")}, {"DequantizeLinear": 1, "Mul": 1}),
        (
            "d = DequantizeLinear (q, s, z) t = Transpose (d) y = Mul (x, t)",
            {"q": FOUR.astype("i1")},
            {"DequantizeLinear": 1, "Transpose": 1, "Mul": 1},
        ),
        (
            "q = QuantizeLinear (w, s, z) d = DequantizeLinear (q, s, z) y = Mul (x, d)",
            {"w": FOUR},
            {"QuantizeLinear": 1, "DequantizeLinear": 1, "Mul": 1},
        ),
        (
            "a, b, c = DynamicQuantizeLinear (w) d = DequantizeLinear (a, b, c) y = Mul (x, d)",
            {"w": FOUR},
            {"DynamicQuantizeLinear": 1, "DequantizeLinear": 1, "Mul": 1},
        ),
    ],
)
def test_quantized_weights_stay_small(body: str, weights: dict[str, Any], left: dict[str, int]) -> None:
    after = _folded(_model(body, {"s": np.float32(0.5), "z": np.int8(1), **weights}, opset=21))

    assert after.operators == left


@pytest.mark.parametrize(
    ("operator", "body", "weights"),
    [
        ("ConstantOfShape", "a = ConstantOfShape <value = float[1] {0.5}> (s)", {"s": [100, 100]}),
        ("Expand", "a = Expand (w, s)", {"w": FOUR, "s": [2500, 4]}),
        ("Tile", "a = Tile (w, s)", {"w": FOUR, "s": [5000]}),
        ("Range", "a = Range (b0, b1, b2)", {"b0": 0, "b1": 9000, "b2": 1}),
        ("EyeLike", "a = EyeLike <dtype = 7> (e)", {"e": np.zeros((100, 120), np.int8)}),
        ("MatMul", "a = MatMul (w, v)", {"w": np.ones((200, 1), "f4"), "v": np.ones((1, 200), "f4")}),
        ("Cast", "i = Cast <to = 7> (w) a = Add (i, one)", {"w": np.ones((100, 100), np.int8), "one": 1}),
    ],
)
def test_what_grows_stays_until_growth_allows_it(operator: str, body: str, weights: dict[str, Any]) -> None:
    model = _fills(body, **weights)

    assert operator in _folded(model, growth=16 * KIB).operators
    assert _folded(model, growth=256 * KIB).operators == {"Mul": 1}


def test_a_result_as_large_as_what_it_frees_is_no_growth() -> None:
    weights = {"w": np.random.default_rng(0).standard_normal((400, 4)).astype(np.float32)}
    once = _model("t = Transpose (w) y = MatMul (x, t)", weights)
    twice = _model("t = Transpose (w) a = MatMul (x, t) u = MatMul (w, x) y = Add (a, u)", weights)

    assert _folded(once, growth=0).operators == {"MatMul": 1}
    assert _folded(twice, growth=0).operators == {"MatMul": 2, "Transpose": 1, "Add": 1}


def test_keep_leaves_a_weight_that_will_be_trained() -> None:
    model = _model("a = Neg (w) b = Neg (v) c = Add (a, b) y = Mul (x, c)", {"w": FOUR, "v": FOUR})

    after = _folded(model, keep=frozenset({"w"}))

    assert after.operators == {"Neg": 1, "Add": 1, "Mul": 1}
    assert "w" in after.graph.graph.initializers


def test_nothing_random_is_folded() -> None:
    graph = private_copy(_model("r = RandomNormal <shape = [4]> () y = Add (x, r)", {}).graph)

    fold(graph, 64 * KIB)

    assert Model(graph).operators == {"RandomNormal": 1, "Add": 1}


def test_weights_that_are_inputs_are_not_folded() -> None:
    model = _model("a = Neg (w) y = Mul (x, a)", {"w": FOUR})
    graph = private_copy(model.graph)
    graph.graph.inputs.append(graph.graph.initializers["w"])

    fold(graph, 64 * KIB)

    assert Model(graph).operators == {"Neg": 1, "Mul": 1}


@pytest.mark.parametrize("opset", [9, 11, 13])
def test_old_opsets_stay_valid(opset: int) -> None:
    model = _model(
        """s = Shape (x) z = Size (w) c = Cast <to = 1> (z) d = Cast <to = 1> (s) e = Add (c, d) f = Mul (e, w)
        y = Add (x, f)""",
        {"w": FOUR},
        opset=opset,
    )

    after = _folded(model)

    constants = [node for node in all_nodes(after.graph) if node.op_type == "Constant"]
    assert after.operators["Add"] == 1
    assert opset >= 12 or all(list(node.attributes) == ["value"] for node in constants)
