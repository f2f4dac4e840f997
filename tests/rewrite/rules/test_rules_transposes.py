"""Transposes meet and cancel through what works element by element."""

import numpy as np
import pytest

from onnxopt.rewrite.rules.transposes import TransposeIntoReduce, TransposeSum, TransposeThrough
from tests.rewrite.rules.cases import F32, fires, misses, model, random

X = "(float[n, 3, 4] x) => (float[n, 3, 4] y)"
THERE, BACK = "Transpose <perm = [0, 2, 1]>", "Transpose <perm = [0, 2, 1]>"


@pytest.mark.parametrize(
    ("between", "after"),
    [
        ("a = Relu (t)", ["y = Relu (x)"]),
        ("b = Relu (t) a = Sigmoid (b)", ["val_0 = Relu (x)", "y = Sigmoid (val_0)"]),
        ("a = Clip (t, one)", ["y = Clip (x, one)"]),
        ("a = Add (t, one)", ["y = Add (x, one)"]),
        ("a = Sub (row, t)", ["y = Sub (row_turned, x)"]),
        ("b = Mul (t, row) a = Div (b, all)", ["val_0 = Mul (x, row_turned)", "y = Div (val_0, all_turned)"]),
    ],
)
def test_they_cancel(between, after):
    weights = {"one": np.array(0.5, F32), "row": random(3), "all": random(4, 3) + F32(5)}
    used = {name: array for name, array in weights.items() if f" {name})" in between or f"({name}" in between}
    before = model(X, f"t = {THERE} (x) {between} y = {BACK} (a)", used)
    fires(TransposeThrough(), before, after, tolerance=1e-6)


def test_a_constant_that_adds_an_axis_stands_between():
    body = "t = Transpose <perm = [1, 0]> (x) a = Add (t, all) y = Transpose <perm = [0, 2, 1]> (a)"
    before = model("(float[3, 4] x) => (float[a, b, c] y)", body, {"all": random(2, 4, 3)})
    misses(TransposeThrough(), before, "a constant between widens what is turned")


def test_they_become_one_where_they_do_not_cancel():
    body = "t = Transpose <perm = [1, 2, 0]> (x) a = Add (t, row) y = Transpose <perm = [1, 0, 2]> (a)"
    before = model("(float[2, 3, 4] x) => (float[a, b, c] y)", body, {"row": random(4, 1)})
    after = fires(TransposeThrough(), before, ["val_0 = Transpose (x)", "y = Add (val_0, row_turned)"], tolerance=1e-6)
    assert list(after.graph.graph[0].attributes["perm"].as_ints()) == [2, 1, 0]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (f"t = {THERE} (x) a = Softmax (t) y = {BACK} (a)", None),
        (f"t = {THERE} (x) a = Mul (t, t) y = {BACK} (a)", None),
        (f"t = {THERE} (x) a = Relu (t) y = {BACK} (a) z = Abs (a)", "what stands between is read elsewhere too"),
        (f"t = {THERE} (x) a = Relu (t) y = {BACK} (a) z = Abs (t)", "the first Transpose is read elsewhere too"),
    ],
)
def test_they_stay(body, reason):
    signature = X if " z =" not in body else "(float[n, 3, 4] x) => (float[n, 3, 4] y, float[n, 4, 3] z)"
    misses(TransposeThrough(), model(signature, body), reason)


@pytest.mark.parametrize(
    ("operator", "after"),
    [("Add", "val_0 = Add (x, w)"), ("Max", "val_0 = Max (x, w)"), ("Concat <axis = -1>", "val_0 = Concat (x, w)")],
)
def test_a_sum_is_turned_once(operator, after):
    body = f"s = {THERE} (x) t = {THERE} (w) y = {operator} (s, t)"
    before = model("(float[n, 3, 4] x, float[n, 3, 4] w) => (float[n, a, b] y)", body)
    changed = fires(TransposeSum(), before, [after, "y = Transpose (val_0)"], n=2)
    if "Concat" in operator:
        assert changed.graph.graph[0].attributes["axis"].as_int() == 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (f"s = {THERE} (x) t = Transpose <perm = [2, 0, 1]> (x) y = Add (s, t)", "the orders differ"),
        (f"s = {THERE} (x) t = {THERE} (w) y = Add (s, t) z = Relu (s)", "a Transpose is read elsewhere too"),
        (f"s = {THERE} (x) y = Add (s, w)", None),
    ],
)
def test_other_sums_stay(body, reason):
    outputs = "float[a, b, c] y" + (", float[d, e, f] z" if " z =" in body else "")
    misses(TransposeSum(), model(f"(float[4, 4, 4] x, float[4, 4, 4] w) => ({outputs})", body), reason)


@pytest.mark.parametrize(
    ("pad", "opset", "after"),
    [
        ("Pad <pads = [0, 1, 0, 0, 2, 0]> (t)", 10, ["y = Pad (x)"]),
        ("Pad (t, by)", 13, ["y = Pad (x, node_1_pads_turned)"]),
        ("Pad (t, by, one)", 13, ["y = Pad (x, node_1_pads_turned, one)"]),
    ],
)
def test_pads_are_turned(pad, opset, after):
    weights = {"by": np.array([0, 1, 0, 0, 2, 0]), "one": np.array(1, F32)}
    used = {name: array for name, array in weights.items() if f", {name}" in pad}
    before = model("(float[n, 3, 4] x) => (float[n, 3, 7] y)", f"t = {THERE} (x) p = {pad} y = {BACK} (p)", used, opset)
    fires(TransposeThrough(), before, after)


@pytest.mark.parametrize("axes", [[1], [-1], [1, 2], [0, 2]], ids=str)
@pytest.mark.parametrize("opset", [13, 18])
def test_a_reduction_reads_the_original(axes, opset):
    signature = f"(float[2, 3, 4] x) => (float[{', '.join('ab'[: 3 - len(axes)])}] y)"
    weights = {"k": np.array(axes)} if opset == 18 else {}
    given = "<keepdims = 0> (t, k)" if weights else f"<keepdims = 0, axes = {axes}> (t)"
    before = model(signature, f"t = {THERE} (x) y = ReduceMean {given}", weights, opset)
    fires(TransposeIntoReduce(), before, ["y = ReduceMean (x, node_1_axes)" if weights else "y = ReduceMean (x)"], 1e-6)


@pytest.mark.parametrize(
    "body",
    [
        f"t = {THERE} (x) y = ReduceMean <axes = [1]> (t)",
        f"t = {THERE} (x) y = ReduceMean <axes = [0], keepdims = 0> (t)",
    ],
)
def test_a_reduction_that_keeps_turned_axes_stays(body):
    before = model("(float[2, 3, 4] x) => (float y)", body)
    misses(TransposeIntoReduce(), before, "the axes that are left would stand in another order")
