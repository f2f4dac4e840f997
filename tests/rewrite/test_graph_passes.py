"""Each small pass as two texts and a number: the graph before, the graph after, and equal answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from onnxopt.context import Context
from onnxopt.ir.model import Model
from onnxopt.ir.signature import Port
from onnxopt.passes import make_pass
from tests.graphs import answers, from_text, node_lines

F32 = np.float32
ONE, TWO = np.full(1, 1, F32), np.full(1, 2, F32)


@dataclass(frozen=True)
class Case:
    """One rewrite.

    Attributes:
        before: Header and body in ONNX's text form, without versions.
        after: The nodes expected.
        weights: Initializers before.
        kept: Initializers after.
        options: Of the pass.
    """

    before: str
    after: Sequence[str]
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)
    kept: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def model(self) -> Model:
        return from_text(f'<ir_version: 8, opset_import: ["" : 17]> {self.before}', self.weights)


REWRITES = {
    "freeze-weights": Case(
        "g (float[n] x, float[1] w) => (float[n] y) { y = Mul (x, w) }",
        ["y = Mul (x, w)"],
        {"w": TWO},
        ["w"],
    ),
    "lift-constants": Case(
        "g (float[n] x) => (float[n] y) { c = Constant <value = float[1] {3}> () y = Mul (x, c) }",
        ["y = Mul (x, c)"],
        {},
        ["c"],
    ),
    "remove-unused": Case(
        "g (float[n] x, float[m] unread) => (float[n] y) { dead = Exp (x) deader = Add (dead, w) y = Relu (x) }",
        ["y = Relu (x)"],
        {"w": TWO, "v": ONE},
    ),
    "remove-identities": Case(
        """g (float[n] x) => (float[n] y, float[n] z) {
            a = Identity (x)
            b = Relu (a)
            y = Identity (b)
            c = Neg (b)
            d = Identity (c)
            z = Exp (d)
        }""",
        ["y = Relu (x)", "c = Neg (y)", "z = Exp (c)"],
    ),
    "fold-constants": Case(
        """g (float[n] x) => (float[n] y) {
            two = Add (one, one)
            four = Mul (two, two)
            y = Mul (x, four)
        }""",
        ["y = Mul (x, four)"],
        {"one": ONE},
        ["four"],
    ),
    "merge-duplicates": Case(
        """g (float[n] x) => (float[n] y) {
            a = Mul (x, w)
            b = Mul (x, v)
            ea = Exp (a)
            eb = Exp (b)
            y = Add (ea, eb)
        }""",
        ["a = Mul (x, w)", "ea = Exp (a)", "y = Add (ea, ea)"],
        {"w": TWO, "v": TWO},
        ["w"],
    ),
}

NEAR_MISSES = {
    "freeze-weights, an input without a default": (
        "freeze-weights",
        Case("g (float[n] x, float[1] w) => (float[n] y) { y = Mul (x, w) }", ["y = Mul (x, w)"]),
    ),
    "lift-constants, a constant made of an input": (
        "lift-constants",
        Case("g (int64[1] x) => (float[n] y) { y = ConstantOfShape (x) }", ["y = ConstantOfShape (x)"]),
    ),
    "remove-unused, a weight only a branch reads": (
        "remove-unused",
        Case(
            """g (bool c, float[n] x) => (float[n] y) {
                y = If (c) <
                    then_branch = t () => (float[n] a) { a = Mul (x, w) },
                    else_branch = e () => (float[n] b) { b = Neg (x) }
                >
            }""",
            ["y = If (c)"],
            {"w": TWO},
            ["w"],
        ),
    ),
    "remove-identities, an output that copies an input": (
        "remove-identities",
        Case("g (float[n] x) => (float[n] y) { y = Identity (x) }", ["y = Identity (x)"]),
    ),
    "remove-identities, an output that copies another": (
        "remove-identities",
        Case(
            "g (float[n] x) => (float[n] y, float[n] z) { y = Relu (x) z = Identity (y) }",
            ["y = Relu (x)", "z = Identity (y)"],
        ),
    ),
    "remove-identities, a branch that hands an outer value on": (
        "remove-identities",
        Case(
            """g (bool c, float[n] x) => (float[n] y) {
                outer = Relu (x)
                y = If (c) <
                    then_branch = t () => (float[n] a) { a = Identity (outer) },
                    else_branch = e () => (float[n] b) { b = Neg (outer) }
                >
            }""",
            ["outer = Relu (x)", "y = If (c)"],
        ),
    ),
    "fold-constants, a weight the caller may replace": (
        "fold-constants",
        Case(
            "g (float[n] x, float[1] w) => (float[n] y) { a = Add (w, w) y = Mul (x, a) }",
            ["a = Add (w, w)", "y = Mul (x, a)"],
            {"w": TWO},
            ["w"],
        ),
    ),
    "fold-constants, a result much larger than its parts": (
        "fold-constants",
        Case(
            "g (float[n] x) => (float[1000, k] y) { c = ConstantOfShape (size) y = Add (x, c) }",
            ["c = ConstantOfShape (size)", "y = Add (x, c)"],
            {"size": np.array([1000, 1])},
            ["size"],
            {"growth": 100},
        ),
    ),
    "fold-constants, a quantized weight": (
        "fold-constants",
        Case(
            "g (float[n, 2] x) => (float[n, 3] y) { w = DequantizeLinear (q, s) y = MatMul (x, w) }",
            ["w = DequantizeLinear (q, s)", "y = MatMul (x, w)"],
            {"q": np.arange(6, dtype=np.int8).reshape(2, 3), "s": np.array(0.1, F32)},
            ["q", "s"],
        ),
    ),
    "merge-duplicates, another attribute": (
        "merge-duplicates",
        Case(
            """g (float[n, 4] x) => (float[n, 4] y) {
                a = Softmax <axis = 0> (x)
                b = Softmax <axis = 1> (x)
                y = Sub (a, b)
            }""",
            ["a = Softmax (x)", "b = Softmax (x)", "y = Sub (a, b)"],
        ),
    ),
    "merge-duplicates, other weights": (
        "merge-duplicates",
        Case(
            "g (float[n] x) => (float[n] y) { a = Mul (x, w) y = Add (a, v) }",
            ["a = Mul (x, w)", "y = Add (a, v)"],
            {"w": TWO, "v": ONE},
            ["v", "w"],
        ),
    ),
}


def _check(name: str, case: Case) -> tuple[Model, Model]:
    """Run the pass; compare the text, the interface and the answers."""
    before = case.model()
    after = make_pass(name, case.options)(before, Context.of())
    assert node_lines(after) == list(case.after)
    assert sorted(after.graph.graph.initializers) == list(case.kept)
    assert after.signature == before.signature
    for flag in (True, False):
        feeds = {port.name: _array(port, flag) for port in before.signature.inputs}
        want, have = answers(before, feeds), answers(after, feeds)
        assert want.keys() == have.keys()
        for output, array in want.items():
            np.testing.assert_array_equal(have[output], array)
    return before, after


def _array(port: Port, flag: bool) -> np.ndarray:
    if port.dtype == "bool":
        return np.array(flag)
    shape = [dim if isinstance(dim, int) else 4 for dim in port.shape or ()]
    return np.random.default_rng(int(flag)).uniform(1, 3, shape).astype(port.dtype)


@pytest.mark.parametrize("name", REWRITES)
def test_a_pass_rewrites_and_is_done(name: str) -> None:
    before, after = _check(name, REWRITES[name])
    assert after.digest != before.digest
    assert after.lineage[-1].name == name
    assert make_pass(name)(after, Context.of()) is after


@pytest.mark.parametrize("title", NEAR_MISSES)
def test_a_pass_keeps_its_hands_off(title: str) -> None:
    before, after = _check(*NEAR_MISSES[title])
    assert after is before


def test_frozen_weights_are_no_longer_inputs() -> None:
    before = REWRITES["freeze-weights"].model()
    after = make_pass("freeze-weights")(before, Context.of())
    assert [value.name for value in before.graph.graph.inputs] == ["x", "w"]
    assert [value.name for value in after.graph.graph.inputs] == ["x"]


def test_the_growth_a_fold_may_cause_is_an_option() -> None:
    case = NEAR_MISSES["fold-constants, a result much larger than its parts"][1]
    after = make_pass("fold-constants", {"growth": 4000})(case.model(), Context.of())
    assert node_lines(after) == ["y = Add (x, c)"]


def test_random_numbers_are_not_merged() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[n] x) => (float[n] y) {
        a = RandomNormalLike (x)
        b = RandomNormalLike (x)
        y = Sub (a, b)
    }"""
    model = from_text(text)
    assert make_pass("merge-duplicates")(model, Context.of()) is model


@pytest.mark.parametrize("name", ["lift-constants", "remove-identities", "fold-constants"])
def test_branches_and_loop_bodies_are_rewritten_too(name: str) -> None:
    model = from_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (int64 trip, float[n] x) => (float[n] y) {
            go = Constant <value = bool {1}> ()
            y = Loop (trip, go, x) <body = b (int64 i, bool c, float[n] s) => (bool c_out, float[n] s_out) {
                c_out = Identity (c)
                k = Constant <value = float {0.25}> ()
                kk = Add (k, k)
                same = Identity (s)
                s_out = Mul (same, kk)
            }>
        }""")
    after = make_pass(name)(model, Context.of())
    assert after.nodes < model.nodes
    for trip in (0, 1, 3):
        feeds = {"trip": np.array(trip), "x": np.arange(3, dtype=F32)}
        np.testing.assert_allclose(answers(after, feeds)["y"], answers(model, feeds)["y"])
