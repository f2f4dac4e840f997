"""Activations are recognised however they were taken apart, and not where something else only looks like one."""

import numpy as np
import pytest

from onnxopt.rewrite.rules.activations import ClipChain, Gelu, HardSigmoid, HardSwish, LeakyRelu, Mish
from tests.rewrite.rules.cases import F32, fires, misses, model

X = "(float[n, 4] x) => (float[n, 4] y)"
TWO = "(float[n, 4] x) => (float[n, 4] y, float[n, 4] z)"


def scalars(**values: float) -> dict[str, np.ndarray]:
    return {name: np.array(value, F32) for name, value in values.items()}


@pytest.mark.parametrize(
    ("body", "values"),
    [
        ("a = Add (x, three) c = Clip (a, zero, six) y = Div (c, six)", {"three": 3, "zero": 0, "six": 6}),
        (
            "a = Add (three, x) c = Clip (a, zero, six) y = Mul (c, sixth)",
            {"three": 3, "zero": 0, "six": 6, "sixth": 1 / 6},
        ),
        ("m = Mul (x, k) a = Add (m, h) y = Clip (a, zero, one)", {"k": 0.2, "h": 0.5, "zero": 0, "one": 1}),
        ("m = Div (x, k) a = Add (m, h) y = Clip (a, zero, one)", {"k": 6, "h": 0.5, "zero": 0, "one": 1}),
        ("a = Add (x, h) y = Clip (a, zero, one)", {"h": 0.5, "zero": 0, "one": 1}),
    ],
)
def test_hard_sigmoid_however_written(body, values):
    fires(HardSigmoid(), model(X, body, scalars(**values)), ["y = HardSigmoid (x)"], tolerance=1e-6)


@pytest.mark.parametrize(
    ("signature", "body", "values", "reason"),
    [
        (
            X,
            "a = Add (x, three) c = Clip (a, zero, six) y = Div (c, five)",
            {"three": 3, "zero": 0, "six": 6, "five": 5},
            None,
        ),
        (X, "a = Add (x, three) c = Clip (a, one, six) y = Div (c, six)", {"three": 3, "one": 1, "six": 6}, None),
        (
            TWO,
            "a = Add (x, three) c = Clip (a, zero, six) y = Div (c, six) z = Abs (c)",
            {"three": 3, "zero": 0, "six": 6},
            "what is clipped is read elsewhere too",
        ),
    ],
)
def test_what_only_looks_like_hard_sigmoid(signature, body, values, reason):
    misses(HardSigmoid(), model(signature, body, scalars(**values)), reason)


WIDER = "(float[n, 4] x) => (float[1, n, 4] y)"


@pytest.mark.parametrize(
    ("rule", "body", "wide"),
    [
        (HardSigmoid(), "a = Add (x, h) y = Clip (a, zero, one)", "h"),
        (LeakyRelu(), "m = Mul (x, h) y = Max (x, m)", "h"),
        (Gelu(), "d = Div (x, root) e = Erf (d) a = Add (e, one) m = Mul (x, a) y = Mul (m, h)", "h"),
        (Gelu(), "d = Div (x, root) e = Erf (d) a = Add (e, one) m = Mul (x, a) y = Mul (m, h)", "one"),
    ],
)
def test_a_number_of_more_axes_adds_an_axis_to_what_it_is_combined_with(rule, body, wide):
    values = scalars(h=0.5, zero=0, one=1, root=float(np.sqrt(2)))
    values[wide] = values[wide].reshape(1, 1, 1)
    read = {name: value for name, value in values.items() if f"{name})" in body or f"{name}," in body}
    misses(rule, model(WIDER, body, read, opset=20), None)


def test_what_gained_an_axis_before_is_taken_as_it_is():
    values = {**scalars(h=0.5, zero=0, one=1), "k": np.full((1, 1, 1), 6, F32)}
    before = model(WIDER, "m = Div (x, k) a = Add (m, h) y = Clip (a, zero, one)", values)
    fires(HardSigmoid(), before, ["m = Div (x, k)", "y = HardSigmoid (m)"], tolerance=1e-6)


@pytest.mark.parametrize("body", ["m = Mul (x, c) y = Div (m, six)", "m = Mul (c, x) y = Mul (sixth, m)"])
def test_a_gate_that_is_divided_after_it_was_multiplied(body):
    values = scalars(three=3, zero=0, six=6, sixth=1 / 6)
    values = {name: value for name, value in values.items() if name != "sixth" or name in body}
    before = model(X, f"a = Add (x, three) c = Clip (a, zero, six) {body}", values)
    fires(HardSigmoid(), before, ["val_0 = HardSigmoid (x)", "y = Mul (x, val_0)"], tolerance=1e-6)


def test_a_gated_product_that_is_read_before_it_is_divided():
    body = "a = Add (x, three) c = Clip (a, zero, six) m = Mul (x, c) y = Div (m, six) z = Abs (m)"
    before = model(TWO, body, scalars(three=3, zero=0, six=6))
    misses(HardSigmoid(), before, "the product is read elsewhere before it is divided")


@pytest.mark.parametrize("order", ["x, s", "s, x"])
def test_hard_swish(order):
    body = f"s = HardSigmoid <alpha = 0.16666667, beta = 0.5> (x) y = Mul ({order})"
    fires(HardSwish(), model(X, body), ["y = HardSwish (x)"], tolerance=1e-6)


def test_hard_sigmoid_of_another_slope_is_no_hard_swish():
    before = model(X, "s = HardSigmoid (x) y = Mul (x, s)")
    misses(HardSwish(), before, "its slope 0.2 and offset 0.5 are not 1/6 and 1/2")


@pytest.mark.parametrize("body", ["m = Mul (x, k) y = Max (x, m)", "m = Mul (k, x) y = Max (m, x)"])
def test_leaky_relu(body):
    fires(LeakyRelu(), model(X, body, scalars(k=0.1)), ["y = LeakyRelu (x)"], tolerance=1e-6)


@pytest.mark.parametrize(
    ("slope", "reason"),
    [(1.5, "the slope 1.5 is not between 0 and 1"), (-0.1, "the slope -0.1 is not between 0 and 1")],
)
def test_another_slope_is_no_leaky_relu(slope, reason):
    misses(LeakyRelu(), model(X, "m = Mul (x, k) y = Max (x, m)", scalars(k=slope)), reason)


CHAINS = [
    ("r = Relu (x) y = Relu (r)", {}, ["y = Relu (x)"]),
    ("r = Relu (x) y = Clip (r, , six)", {"six": 6}, ["y = Clip (x, node_1_min, node_1_max)"]),
    ("r = Clip (x, , six) y = Relu (r)", {"six": 6}, ["y = Clip (x, node_1_min, node_1_max)"]),
    (
        "r = Clip (x, minus, six) y = Clip (r, zero, five)",
        {"minus": -1, "six": 6, "zero": 0, "five": 5},
        ["y = Clip (x, node_1_min, node_1_max)"],
    ),
    ("r = Clip (x, minus) y = Relu (r)", {"minus": -1}, ["y = Relu (x)"]),
    (
        "r = Clip (x, two, six) y = Clip (r, zero, one)",
        {"two": 2, "six": 6, "zero": 0, "one": 1},
        ["y = Clip (x, node_1_min, node_1_max)"],
    ),
]


@pytest.mark.parametrize(("body", "values", "after"), CHAINS)
def test_bounds_are_joined(body, values, after):
    changed = fires(ClipChain(), model(X, body, scalars(**values)), after)
    assert len(changed.graph.graph.initializers) <= 2


def test_a_clip_that_is_read_elsewhere_stays():
    before = model(TWO, "r = Relu (x) y = Clip (r, , six) z = Abs (r)", scalars(six=6))
    misses(ClipChain(), before, "what is clipped first is read elsewhere too")


def test_a_computed_bound_stays():
    before = model("(float[n, 4] x, float b) => (float[n, 4] y)", "r = Relu (x) y = Clip (r, b)")
    misses(ClipChain(), before, "a bound is not constant")


GELUS = [
    "d = Div (x, root) e = Erf (d) a = Add (e, one) m = Mul (x, a) y = Mul (m, half)",
    "d = Div (x, root) e = Erf (d) a = Add (one, e) m = Mul (x, half) y = Mul (m, a)",
    "d = Mul (x, inverse) e = Erf (d) a = Add (e, one) m = Mul (half, a) y = Mul (x, m)",
]


@pytest.mark.parametrize("body", GELUS)
def test_gelu_however_written(body):
    values = scalars(root=np.sqrt(2), inverse=np.sqrt(0.5), one=1, half=0.5)
    used = {name: array for name, array in values.items() if name in body}
    fires(Gelu(), model(X, body, used, opset=20), ["y = Gelu (x)"], tolerance=1e-6)


@pytest.mark.parametrize(("changes", "opset"), [({"root": 1.5}, 20), ({"half": 0.4}, 20), ({"one": 2}, 20), ({}, 19)])
def test_what_only_looks_like_gelu(changes, opset):
    values = scalars(**{"root": np.sqrt(2), "one": 1, "half": 0.5, **changes})
    misses(Gelu(), model(X, GELUS[0], values, opset=opset), None)


TANH_GELUS = [
    "p = Pow (x, three) c = Mul (p, k) s = Add (x, c) r = Mul (s, root) t = Tanh (r) a = Add (t, one) m = Mul (x, a)",
    "q = Mul (x, x) p = Mul (q, x) c = Mul (k, p) s = Add (c, x) r = Mul (s, root) t = Tanh (r) a = Add (one, t)"
    " m = Mul (a, x)",
]


@pytest.mark.parametrize("body", TANH_GELUS)
def test_gelu_by_its_tanh(body):
    values = scalars(three=3, k=0.044715, root=np.sqrt(2 / np.pi), one=1, half=0.5)
    used = {name: array for name, array in values.items() if name in body or name == "half"}
    changed = fires(Gelu(), model(X, f"{body} y = Mul (m, half)", used, opset=20), ["y = Gelu (x)"], tolerance=1e-6)
    assert changed.graph.graph[0].attributes["approximate"].as_string() == "tanh"


@pytest.mark.parametrize("change", [{"three": 2}, {"k": 0.05}, {"root": 0.7}, {"one": 2}])
def test_what_only_looks_like_the_tanh_of_gelu(change):
    values = scalars(**{"three": 3, "k": 0.044715, "root": np.sqrt(2 / np.pi), "one": 1, "half": 0.5, **change})
    misses(Gelu(), model(X, f"{TANH_GELUS[0]} y = Mul (m, half)", values, opset=20), None)


@pytest.mark.parametrize(
    "body", ["s = Softplus (x) t = Tanh (s) y = Mul (x, t)", "s = Softplus (x) t = Tanh (s) y = Mul (t, x)"]
)
def test_mish(body):
    fires(Mish(), model(X, body, opset=18), ["y = Mish (x)"], tolerance=1e-6)


def test_tanh_of_another_value_is_no_mish():
    misses(Mish(), model(X, "a = Abs (x) s = Softplus (a) t = Tanh (s) y = Mul (x, t)", opset=18), None)
    misses(Mish(), model(X, "s = Softplus (x) t = Tanh (s) y = Mul (x, t)", opset=17), None)
