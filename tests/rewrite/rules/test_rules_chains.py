"""Values moved or retyped twice in a row are moved once or not at all."""

import numpy as np
import pytest

from onnxopt.rewrite.rules.chains import CastChain, ConstantChain, ReshapeChain, SqueezeUnsqueeze, TransposeChain
from tests.rewrite.rules.cases import fires, misses, model

CUBE = "(float[n, 3, 4] x) => (float[a, b, c] y)"
INTS = np.array


def test_two_transposes_become_one():
    body = "t = Transpose <perm = [1, 2, 0]> (x) u = Transpose <perm = [0, 2, 1]> (t) y = Relu (u)"
    after = fires(TransposeChain(), model(CUBE, body), ["val_0 = Transpose (x)", "y = Relu (val_0)"])
    assert list(after.graph.graph[0].attributes["perm"].as_ints()) == [1, 0, 2]


@pytest.mark.parametrize("last", ["<perm = [2, 1, 0]>", ""])
def test_transposes_that_undo_each_other_go(last):
    body = f"t = Transpose (x) u = Transpose {last} (t) y = Relu (u)"
    fires(TransposeChain(), model("(float[n, 3, 4] x) => (float[n, 3, 4] y)", body), ["y = Relu (x)"])


def test_the_first_transpose_stays_where_it_is_read_elsewhere():
    body = "t = Transpose <perm = [1, 2, 0]> (x) u = Transpose <perm = [2, 0, 1]> (t) y = Relu (u) z = Abs (t)"
    before = model("(float[n, 3, 4] x) => (float[n, 3, 4] y, float[a, b, c] z)", body)
    fires(TransposeChain(), before, ["t = Transpose (x)", "y = Relu (x)", "z = Abs (t)"])


def test_axes_of_an_unknown_number_are_not_reversed():
    body = "s = Reshape (x, k) t = Transpose (s) u = Transpose (t) y = Relu (u)"
    before = model("(float[n] x, int64[r] k) => (float y)", body)
    misses(TransposeChain(), before, "the number of axes it reverses is not known")


@pytest.mark.parametrize(
    "first", ["Reshape (x, k)", "Flatten (x)", "Unsqueeze (x, k0)", "Squeeze (x, k1)"], ids=lambda text: text.split()[0]
)
def test_a_reshape_reads_what_was_reshaped_before(first):
    weights = {"k": INTS([-1]), "k0": INTS([0]), "k1": INTS([1]), "l": INTS([4, -1])}
    before = model("(float[n, 1, 4] x) => (float[4, m] y)", f"r = {first} y = Reshape (r, l)", weights)
    fires(ReshapeChain(), before, ["y = Reshape (x, l)"])


def test_a_reshape_that_copies_a_dimension_stays():
    before = model(CUBE, "r = Reshape (x, k) y = Reshape (r, l)", {"k": INTS([2, -1]), "l": INTS([0, 2, -1])})
    misses(ReshapeChain(), before, "a 0 in the shape copies a dimension of what was reshaped before")


def test_a_reshape_to_a_computed_shape_stays():
    before = model("(float[n, 4] x, int64[3] l) => (float[a, b, c] y)", "r = Flatten (x) y = Reshape (r, l)")
    misses(ReshapeChain(), before, "the shape is computed, and a 0 in it would copy a dimension")


@pytest.mark.parametrize(
    ("first", "then", "opset"),
    [
        ("Unsqueeze (x, k)", "Squeeze (t, k)", 17),
        ("Unsqueeze <axes = [1]> (x)", "Squeeze <axes = [1]> (t)", 11),
        ("Unsqueeze (x, k)", "Squeeze (t, minus)", 17),
    ],
)
def test_squeeze_undoes_unsqueeze(first, then, opset):
    weights = {"k": INTS([1]), "minus": INTS([-2])} if opset > 12 else {}
    before = model("(float[n, 4] x) => (float[n, 4] y)", f"t = {first} u = {then} y = Relu (u)", weights, opset)
    fires(SqueezeUnsqueeze(), before, ["y = Relu (x)"])


def test_unsqueeze_undoes_squeeze():
    before = model(
        "(float[n, 1, 4] x) => (float[n, 1, 4] y)",
        "t = Squeeze (x, k) u = Unsqueeze (t, k) y = Relu (u)",
        {"k": INTS([1])},
    )
    fires(SqueezeUnsqueeze(), before, ["y = Relu (x)"])


@pytest.mark.parametrize(("axes", "reason"), [([2], "the axes differ"), (None, "the axes are not known")])
def test_other_axes_do_not(axes, reason):
    signature = "(float[n, 1, 1] x, int64[1] j) => (float[a, b, c] y)"
    body = f"t = Squeeze (x, {'l' if axes else 'j'}) y = Unsqueeze (t, k)"
    before = model(signature, body, {"k": INTS([1]), **({"l": INTS(axes)} if axes else {})})
    misses(SqueezeUnsqueeze(), before, reason)


@pytest.mark.parametrize(
    ("source", "between", "last", "after"),
    [
        ("float16", 1, 11, ["val_0 = Cast (x)", "y = Abs (val_0)"]),
        ("float", 11, 1, ["y = Abs (x)"]),
        ("int32", 7, 6, ["y = Abs (x)"]),
        ("bool", 7, 1, ["val_0 = Cast (x)", "y = Abs (val_0)"]),
    ],
)
def test_a_cast_to_a_wider_type_between_goes(source, between, last, after):
    names = {1: "float", 6: "int32", 11: "double"}
    body = f"c = Cast <to = {between}> (x) d = Cast <to = {last}> (c) y = Abs (d)"
    fires(CastChain(), model(f"({source}[n] x) => ({names[last]}[n] y)", body), after)


@pytest.mark.parametrize(
    ("source", "between", "words"),
    [
        ("float", 10, "FLOAT16 does not hold every value of FLOAT"),
        ("int32", 1, "FLOAT does not hold every value of INT32"),
    ],
)
def test_a_cast_that_rounds_stays(source, between, words):
    body = f"c = Cast <to = {between}> (x) d = Cast <to = 11> (c) y = Abs (d)"
    misses(CastChain(), model(f"({source}[n] x) => (double[n] y)", body), words)


ROWS = "(float[n, 4] x) => (float[n, 4] y)"
NUMBERS = {"a": np.array(2.5, np.float32), "b": np.array([0.5], np.float32), "r": np.arange(4, dtype=np.float32) + 1}


@pytest.mark.parametrize("operator", ["Add", "Mul"])
@pytest.mark.parametrize(("first", "then"), [("x, a", "m, b"), ("a, x", "m, r"), ("x, r", "r, m"), ("r, x", "m, a")])
def test_constants_one_after_the_other_are_one(operator, first, then):
    read = f"{first}, {then}".split(", ")
    weights = {name: array for name, array in NUMBERS.items() if name in read}
    body = f"m = {operator} ({first}) y = {operator} ({then})"
    fires(ConstantChain(), model(ROWS, body, weights), [f"y = {operator} (x, y_joint)"], tolerance=1e-6)


EXTREME = "the joint constant is too large or too small for its type"
OTHER = "the constants are not of one shape, or no floating-point numbers"


@pytest.mark.parametrize(
    ("body", "weights", "reason"),
    [
        ("m = Mul (x, a) y = Add (m, b)", {}, None),
        ("m = Mul (x, r) y = Mul (m, c)", {"c": np.ones((3, 1), np.float32)}, OTHER),
        (
            "m = Mul (x, h) y = Mul (m, h)",
            {"h": np.array(1e30, np.float32)},
            EXTREME,
        ),
    ],
)
def test_constants_that_stay_two(body, weights, reason):
    read = body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    used = {name: array for name, array in {**NUMBERS, **weights}.items() if name in read}
    misses(
        ConstantChain(),
        model(
            "(float[n, 4] x) => (float[n, 4] y)" if "c" not in used else "(float[1, 4] x) => (float[3, 4] y)",
            body,
            used,
        ),
        reason,
    )
