"""LayerNormalization is recognised, and not where only something like it stands."""

import numpy as np
import pytest

from onnxopt.rewrite.rules.norms import GroupNorm, LayerNorm, LayerNormBias, RmsNorm
from tests.rewrite.rules.cases import F32, fires, misses, model, random

X = "(float[n, 3, 8] x) => (float[n, 3, 8] y)"
WEIGHTS = {"two": np.array(2, F32), "eps": np.array(1e-5, F32), "g": random(8)}
BODY = (
    "m = ReduceMean <axes = [-1]> (x) d = Sub (x, m) p = {square} v = ReduceMean <axes = [{axis}]> (p)"
    " a = Add (v, eps) s = Sqrt (a) n1 = Div (d, s) y = Mul ({order})"
)


@pytest.mark.parametrize("square", ["Pow (d, two)", "Mul (d, d)"])
@pytest.mark.parametrize("axis", [-1, 2])
@pytest.mark.parametrize("order", ["n1, g", "g, n1"])
def test_layer_norm_however_written(square, axis, order):
    body = BODY.format(square=square, axis=axis, order=order)
    before = model(
        X, body, {name: array for name, array in WEIGHTS.items() if f"{name})" in body or f"({name}" in body}
    )
    after = fires(LayerNorm(), before, ["y = LayerNormalization (x, g)"], tolerance=1e-5)
    assert after.graph.graph[0].attributes["epsilon"].as_float() == pytest.approx(1e-5)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"axis": 1}, None),
        ({"square": "Mul (d, x)"}, None),
        ({"square": "Pow (d, g)"}, None),
        ({"order": "n1, one"}, "the scale is no constant row of the last axis' size"),
    ],
)
def test_what_only_looks_like_it(changes, reason):
    body = BODY.format(**{"square": "Mul (d, d)", "axis": -1, "order": "n1, g", **changes})
    weights = {**WEIGHTS, "one": np.ones(1, F32)}
    misses(LayerNorm(), model(X, body, {name: a for name, a in weights.items() if f"{name})" in body}), reason)


def test_an_older_opset_has_none():
    body = BODY.format(square="Mul (d, d)", axis=-1, order="n1, g")
    misses(LayerNorm(), model(X, body, {"eps": WEIGHTS["eps"], "g": WEIGHTS["g"]}, opset=16), None)


def test_a_row_that_is_added_becomes_the_bias():
    body = "l = LayerNormalization (x, g) y = Add (l, b)"
    before = model(X, body, {"g": WEIGHTS["g"], "b": random(8, seed=1)})
    fires(LayerNormBias(), before, ["y = LayerNormalization (x, g, b)"], tolerance=1e-5)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("l = LayerNormalization (x, g) y = Add (l, x)", "what is added is no constant row of the last axis' size"),
        ("l = LayerNormalization (x, g, b) y = Add (l, b)", None),
        (
            "l = LayerNormalization <axis = 2> (x, g) y = Add (l, b)",
            "what is added is no constant row of the last axis' size",
        ),
    ],
)
def test_what_is_no_bias_stays(body, reason):
    weights = {"g": WEIGHTS["g"], "b": random(8, seed=1)}
    misses(
        LayerNormBias(),
        model(X, body, {name: a for name, a in weights.items() if f"{name})" in body or f"{name}," in body}),
        reason,
    )


RMS = "p = {square} v = ReduceMean (p, last) a = Add (v, eps) s = Sqrt (a) {divided} y = Mul (n1, {scale})"
LAST = {"last": np.array([-1]), "eps": WEIGHTS["eps"], "g": WEIGHTS["g"]}


@pytest.mark.parametrize("square", ["Pow (x, two)", "Mul (x, x)"])
@pytest.mark.parametrize(
    "divided", ["n1 = Div (x, s)", "r = Reciprocal (s) n1 = Mul (x, r)", "r = Reciprocal (s) n1 = Mul (r, x)"]
)
def test_rms_norm_however_written(square, divided):
    weights = {**LAST, **({"two": WEIGHTS["two"]} if "two" in square else {})}
    before = model(X, RMS.format(square=square, divided=divided, scale="g"), weights, opset=23)
    after = fires(RmsNorm(), before, ["y = RMSNormalization (x, g)"], tolerance=1e-5)
    assert after.graph.graph[0].attributes["epsilon"].as_float() == pytest.approx(1e-5)


@pytest.mark.parametrize(
    ("changes", "opset", "reason"),
    [
        ({"scale": "x"}, 23, "the scale is no constant row of the last axis' size"),
        ({"square": "Mul (x, s1)"}, 23, None),
        ({}, 22, None),
    ],
)
def test_what_only_looks_like_rms_norm(changes, opset, reason):
    body = RMS.format(**{"square": "Mul (x, x)", "divided": "n1 = Div (x, s)", "scale": "g", **changes})
    body = ("s1 = Abs (x) " if "s1" in body else "") + body
    weights = {name: array for name, array in LAST.items() if name != "g" or changes.get("scale") != "x"}
    misses(RmsNorm(), model(X, body, weights, opset=opset), reason)


IMAGE = "(float[n, 6, 4, 5] x) => (float[n, 6, 4, 5] y)"
GROUPED = "r = Reshape (x, {to}) i = InstanceNormalization (r, {ones}, zeros) {back} m = Mul ({order}) y = Add (m, b)"
BACK = "shape = Shape (x) g = Reshape (i, shape)"
OF_GROUPS = {
    "rows": np.array([0, 3, -1]),
    "four": np.array([0, 3, 2, -1]),
    "ones": np.ones(3, F32),
    "twos": np.full(3, 2, F32),
    "zeros": np.zeros(3, F32),
    "w": random(6, 1, 1),
    "each": random(6, 4, 5),
    "b": random(6, 1, 1, seed=1),
}


def _grouped(**changes: str):
    body = GROUPED.format(**{"to": "rows", "ones": "ones", "back": BACK, "order": "g, w", **changes})
    words = body.replace(",", " ").replace("(", " ").replace(")", " ").split()
    return model(IMAGE, body, {name: array for name, array in OF_GROUPS.items() if name in words}, opset=21)


@pytest.mark.parametrize("order", ["g, w", "w, g"])
def test_group_norm(order):
    after = fires(
        GroupNorm(), _grouped(order=order), ["y = GroupNormalization (x, node_4_scale, node_4_shift)"], tolerance=1e-4
    )
    assert after.graph.graph[0].attributes["num_groups"].as_int() == 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"order": "g, each"}, "scale and shift do not go by channel"),
        ({"ones": "twos"}, None),
        ({"to": "four"}, None),
        ({"back": f"{BACK} z = Abs (g)", "order": "z, w"}, None),
    ],
)
def test_what_only_looks_like_group_norm(changes, reason):
    misses(GroupNorm(), _grouped(**changes), reason)
