"""Parts that are joined again, and choices written the long way round."""

import numpy as np
import pytest

from onnxopt.rewrite.rules.joins import (
    ConcatChain,
    DoubleNegation,
    PickFromConcat,
    SliceChain,
    SplitConcat,
    TransposeIntoGemm,
    WhereNot,
)
from tests.rewrite.rules.cases import fires, misses, model, random

X = "(float[n, 4] x) => (float[n, 4] y)"
INTS = np.array


def test_parts_joined_again_are_the_whole():
    body = "a, b = Split <axis = 1> (x, k) c = Concat <axis = -1> (a, b) y = Relu (c)"
    fires(SplitConcat(), model(X, body, {"k": INTS([1, 3])}), ["y = Relu (x)"])


@pytest.mark.parametrize(
    ("concat", "reason"),
    [
        ("Concat <axis = 1> (b, a)", None),
        ("Concat <axis = 1> (a, b, b)", "it does not join all parts in order"),
        ("Concat <axis = 0> (a, b)", "it joins along another axis"),
    ],
)
def test_parts_joined_otherwise_are_not(concat, reason):
    before = model(
        "(float[n, 4] x) => (float[m, k] y)", f"a, b = Split <axis = 1> (x, k) y = {concat}", {"k": INTS([2, 2])}
    )
    misses(SplitConcat(), before, reason or "it does not join all parts in order")


def test_concats_in_a_row_are_one():
    body = "a = Concat <axis = 1> (x, x) b = Concat <axis = 1> (x, a, x) y = Relu (b)"
    before = model("(float[n, 4] x) => (float[n, 16] y)", body)
    fires(ConcatChain(), before, ["val_0 = Concat (x, x, x, x)", "y = Relu (val_0)"])


def test_a_concat_that_only_concats_read_goes():
    body = "a = Concat <axis = 1> (x, x) y = Concat <axis = -1> (x, a) z = Concat <axis = 1> (a, a)"
    before = model("(float[n, 4] x) => (float[n, 12] y, float[n, 16] z)", body)
    fires(ConcatChain(), before, ["y = Concat (x, x, x)", "z = Concat (x, x, x, x)"])


@pytest.mark.parametrize("reader", ["Relu (a)", "Concat <axis = 0> (a, a)"])
def test_a_concat_that_is_read_elsewhere_stays(reader):
    body = f"a = Concat <axis = 1> (x, x) y = Concat <axis = 1> (x, a) z = {reader}"
    before = model("(float[n, 4] x) => (float[n, 12] y, float[m, 8] z)", body)
    misses(ConcatChain(), before, "what is joined first is read elsewhere too")


def test_a_negated_choice_is_turned():
    before = model("(bool[n] c, float[n] a, float[n] b) => (float[n] y)", "d = Not (c) y = Where (d, a, b)")
    fires(WhereNot(), before, ["y = Where (c, b, a)"])


@pytest.mark.parametrize(
    ("body", "after"),
    [
        ("a = Neg (x) b = Neg (a) y = Relu (b)", ["y = Relu (x)"]),
        ("a = Abs (x) b = Abs (a) y = Relu (b)", ["a = Abs (x)", "y = Relu (a)"]),
        ("a = Relu (x) b = Abs (a) y = Neg (b)", ["a = Relu (x)", "y = Neg (a)"]),
        ("a = Floor (x) b = Round (a) y = Relu (b)", ["a = Floor (x)", "y = Relu (a)"]),
    ],
)
def test_a_second_time_changes_nothing(body, after):
    fires(DoubleNegation(), model(X, body), after)


def test_a_different_second_time_stays():
    misses(DoubleNegation(), model(X, "a = Abs (x) y = Neg (a)"), None)


@pytest.mark.parametrize(
    ("body", "after", "flags"),
    [
        ("t = Transpose <perm = [1, 0]> (x) y = Gemm (t, w)", "y = Gemm (x, w)", {"transA": 1}),
        ("t = Transpose (x) y = Gemm <transA = 1> (t, v)", "y = Gemm (x, v)", {"transA": 0}),
        ("t = Transpose <perm = [1, 0]> (x) y = Gemm (u, t)", "y = Gemm (u, x)", {"transB": 1}),
    ],
)
def test_a_transpose_becomes_a_flag(body, after, flags):
    weights = {"w": random(3, 5), "v": random(4, 5), "u": random(5, 4)}
    used = {name: array for name, array in weights.items() if f" {name})" in body or f"({name}," in body}
    changed = fires(
        TransposeIntoGemm(), model("(float[3, 4] x) => (float[a, b] y)", body, used), [after], tolerance=1e-5
    )
    assert {key: value.as_int() for key, value in changed.graph.graph[0].attributes.items()} == flags


@pytest.mark.parametrize("second", ["Slice (s, s0, e2, a1)", "Slice (s, s0, e2, minus, step)"])
def test_cuts_along_other_axes_are_one(second):
    weights = {
        "s0": INTS([0]),
        "e2": INTS([2]),
        "a0": INTS([0]),
        "a1": INTS([1]),
        "minus": INTS([-1]),
        "step": INTS([2]),
    }
    body = f"s = Slice (x, s0, e2, a0) y = {second}"
    used = {name: array for name, array in weights.items() if f" {name}" in body}
    before = model("(float[n, 4] x) => (float[a, b] y)", body, used)
    fires(SliceChain(), before, ["y = Slice (x, node_1_starts, node_1_ends, node_1_axes, node_1_steps)"])


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("s = Slice (x, s1, e3, a1) y = Slice (s, s1, e3, a1)", "both cut the same axis"),
        ("s = Slice (x, s1, e3, a1) y = Slice (s, s1, e3, minus)", "both cut the same axis"),
        ("s = Slice (x, s1, e3) y = Slice (s, s1, e3, a1)", "where it cuts is not constant"),
    ],
)
def test_cuts_along_the_same_axis_stay(body, reason):
    weights = {"s1": INTS([1]), "e3": INTS([3]), "a1": INTS([1]), "minus": INTS([-1])}
    used = {name: array for name, array in weights.items() if f" {name}" in body}
    misses(SliceChain(), model("(float[n, 4] x) => (float[a, b] y)", body, used), reason)


PARTS = "(float[n, 2] a, float[n, 3] b, float[n, 1] c) => (float[n, k] y)"


@pytest.mark.parametrize(
    ("pick", "after", "index"),
    [
        ("Gather <axis = 1> (j, i)", "y = Gather (b, node_1_index)", [1]),
        ("Gather <axis = -1> (j, last)", "y = Gather (c, node_1_index)", [0]),
        ("Gather <axis = 1> (j, both)", "y = Gather (b, node_1_index)", [2, 0]),
        ("Slice (j, three, five, one)", "y = Slice (b, node_1_starts, node_1_ends, one)", [1]),
        ("Slice (j, last, most, one)", "y = Slice (c, node_1_starts, node_1_ends, one)", [0]),
    ],
)
def test_what_one_part_holds_is_taken_from_it(pick, after, index):
    weights = {"i": [3], "last": [-1], "both": [4, 2], "three": [3], "five": [5], "one": [1], "most": [2**60]}
    read = {name: INTS(value) for name, value in weights.items() if f"{name})" in pick or f"{name}," in pick}
    body = f"j = Concat <axis = 1> (a, b, c) y = {pick}"
    changed = fires(PickFromConcat(), model(PARTS, body, read), [after])
    assert changed.graph.graph[0].inputs[1].const_value.numpy().tolist() == index


def test_a_number_picks_an_axis_away():
    signature = "(float[1, n] a, float[1, n] b) => (float[n] y)"
    before = model(signature, "j = Concat <axis = 0> (a, b) y = Gather (j, i)", {"i": INTS(-1)})
    fires(PickFromConcat(), before, ["y = Gather (b, node_1_index)"])


@pytest.mark.parametrize(
    ("signature", "pick", "reason"),
    [
        (PARTS, "Gather <axis = 1> (j, i)", None),
        (PARTS, "Gather <axis = 0> (j, i)", None),
        (PARTS, "Slice (j, i, i)", None),
        (PARTS.replace("3] b", "m] b"), "Gather <axis = 1> (j, i)", "the size of a part is not known"),
    ],
)
def test_what_several_parts_hold_is_taken_from_the_whole(signature, pick, reason):
    before = model(signature, f"j = Concat <axis = 1> (a, b, c) y = {pick}", {"i": INTS([0, 2])})
    misses(PickFromConcat(), before, reason)


def test_axes_counted_from_the_end_are_not_confused_where_the_rank_is_not_known():
    body = "r = Reshape (x, to) a = Concat <axis = -1> (r, r) y = Concat <axis = -2> (a, a)"
    misses(ConcatChain(), model("(float[n, 4] x, int64[k] to) => (float[m, 8] y)", body), None)
