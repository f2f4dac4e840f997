"""Shapes that need not be computed at run time are not."""

import numpy as np
import pytest

from onnxopt.rewrite.rules.shapes import ConstantReshape, KnownDimensions, NoOpExpand, SliceOfShape, ViewChain
from tests.rewrite.rules.cases import fires, misses, model

INTS = np.array
WEIGHTS = {"k0": INTS([0]), "k1": INTS([1]), "k2": INTS([2]), "three": INTS([3]), "rest": INTS([-1]), "i": INTS(1)}


N = "n = Gather (s, k0)"
M = "m = Gather (s, k1)"


def _shape(model) -> list[int]:
    return list(model.graph.graph.initializers["y_shape"].const_value.numpy())


@pytest.mark.parametrize(
    ("dims", "shape"),
    [
        (f"{N} to = Concat <axis = 0> (n, rest)", [0, -1]),
        ("n = Slice (s, k0, k1) to = Concat <axis = 0> (n, three, rest)", [0, 3, -1]),
        (f"a = Gather (s, k1) b = Gather (s, k2) m = Mul (a, b) {N} to = Concat <axis = 0> (n, m)", [0, 24]),
        (f"{N} o = Mul (n, k1) a = Gather (s, i) u = Unsqueeze (a, k0) to = Concat <axis=0> (o, u, rest)", [0, 4, -1]),
        (f"{N} two = Add (n, n) to = Concat <axis = 0> (two, three, k2, k2)", [-1, 3, 2, 2]),
    ],
)  # fmt: skip
def test_a_shape_of_known_and_copied_dimensions_is_constant(dims, shape):
    body = f"s = Shape (x) {dims} y = Reshape (x, to)"
    before = model(f"(float[n, 4, 6] x) => (float[{', '.join('abcd'[: len(shape)])}] y)", body, WEIGHTS)
    after = fires(ConstantReshape(), before, ["y = Reshape (x, y_shape)"])
    assert _shape(after) == shape


def test_a_shape_copied_from_another_value_of_the_same_names():
    body = f"s = Shape (mask) {N} {M} to = Concat <axis = 0> (n, m, three, k2) y = Reshape (x, to)"
    before = model("(float[n, m, 6] x, float[n, m] mask) => (float[n, m, 3, 2] y)", body, WEIGHTS)
    assert _shape(fires(ConstantReshape(), before, ["y = Reshape (x, y_shape)"])) == [0, 0, 3, 2]


@pytest.mark.parametrize(("last", "reason"), [("rest", ""), ("k0", "a 0 in its shape is an empty dimension")])
def test_a_0_that_means_an_empty_dimension_is_not_taken_for_a_copied_one(last, reason):
    body = f"s = Shape (x) {N} to = Concat <axis = 0> (n, {last}) y = Reshape <allowzero = 1> (x, to)"
    before = model("(float[n, 4] x) => (float[a, b] y)", body, WEIGHTS)
    if reason:
        misses(ConstantReshape(), before, reason)
    else:
        assert _shape(fires(ConstantReshape(), before, ["y = Reshape (x, y_shape)"])) == [0, -1]


def test_two_dimensions_that_are_computed_stay():
    body = f"s = Shape (x) {N} {M} to = Concat <axis = 0> (m, n) y = Reshape (x, to)"
    misses(
        ConstantReshape(),
        model("(float[n, m] x) => (float[m, n] y)", body, WEIGHTS),
        "its dimensions [0, 1] are computed",
    )


def test_a_computed_dimension_beside_a_copied_one_stays_for_the_sake_of_empty_batches():
    body = f"s = Shape (x) {N} {M} o = Mul (m, k2) to = Concat <axis = 0> (n, o) y = Reshape (x, to)"
    before = model("(float[n, m, 2] x) => (float[n, o] y)", body, WEIGHTS)
    misses(ConstantReshape(), before, "its dimensions [1] are computed")


@pytest.mark.parametrize("shape", ["s = Shape (x)", "s = Identity (k1)", "a = Shape (x) s = Slice (a, k1, k2)"])
def test_an_expand_to_its_own_shape_goes(shape):
    before = model("(float[n, 4] x) => (float[n, 4] y)", f"{shape} e = Expand (x, s) y = Relu (e)", WEIGHTS)
    fires(NoOpExpand(), before, ["y = Relu (x)"])


def test_an_expand_to_another_shape_stays():
    body = "s = Shape (z) e = Expand (x, s) y = Relu (e)"
    misses(NoOpExpand(), model("(float[1, 4] x, float[n, 4] z) => (float[n, 4] y)", body), None)


@pytest.mark.parametrize(
    ("signature", "body", "shape"),
    [
        ("(float[n, 4] x) => (float[n, 1, 4, 1] y)", "a = Unsqueeze (x, k1) y = Unsqueeze (a, three)", [0, 1, 4, 1]),
        ("(float[n, 1, 4] x) => (float[n, 4, 1] y)", "a = Squeeze (x, k1) y = Unsqueeze (a, k2)", [0, 4, 1]),
        ("(float[1, n, 4] x) => (float[n, 4, 1] y)", "a = Squeeze (x, k0) y = Unsqueeze (a, k2)", [-1, 4, 1]),
        ("(float[n, 2, 3] x) => (float[n, 6] y)", "a = Unsqueeze (x, k1) y = Flatten (a)", [0, 6]),
        (
            "(float[n, 4, 5] x) => (float[n, 1, 4, 5] y)",
            "a = Unsqueeze (x, three) y = Transpose <perm = [0, 3, 1, 2]> (a)",
            [0, 1, 4, 5],
        ),
    ],
)
def test_views_of_views_are_one_reshape(signature, body, shape):
    used = {name: array for name, array in WEIGHTS.items() if f", {name})" in body}
    after = fires(ViewChain(), model(signature, body, used), ["y = Reshape (x, y_shape)"])
    assert _shape(after) == shape


@pytest.mark.parametrize(
    ("signature", "body", "reason"),
    [
        (
            "(float[n, 1, m] x) => (float[n, m, 1] y, float[n, m] z)",
            "a = Squeeze (x, k1) y = Unsqueeze (a, k2) z = Abs (a)",
            "what is reshaped first is read elsewhere too",
        ),
        (
            "(float[1, n, m] x) => (float[n, m, 1] y)",
            "a = Squeeze (x, k0) y = Unsqueeze (a, k2)",
            "its dimensions [0, 1] are computed",
        ),
        (
            "(float[n, 4, 5] x) => (float[n, 1, 5, 4] y)",
            "a = Unsqueeze (x, three) y = Transpose <perm = [0, 3, 2, 1]> (a)",
            None,
        ),
    ],
)
def test_views_that_stay(signature, body, reason):
    used = {name: array for name, array in WEIGHTS.items() if f", {name})" in body}
    misses(ViewChain(), model(signature, body, used), reason)


@pytest.mark.parametrize(
    ("body", "known"),
    [
        ("s = Shape (x) y = Slice (s, k1, three)", [4, 6]),
        ("s = Shape (x) y = Gather (s, k2)", [6]),
        ("s = Shape (x) a = Gather (s, k1) y = Mul (a, k2)", [8]),
        (
            "s = Shape (x) t = Shape (x) a = Slice (s, k1, k2) b = Slice (t, k2, three) y = Concat <axis=0> (b, a)",
            [6, 4],
        ),
    ],
)
def test_dimensions_that_are_numbers_are_a_constant(body, known):
    before = model("(float[n, 4, 6] x) => (int64[k] z)", f"{body} z = Abs (y)", WEIGHTS)
    after = fires(KnownDimensions(), before, ["z = Abs (y_known)"])
    assert after.graph.graph.initializers["y_known"].const_value.numpy().tolist() == known


@pytest.mark.parametrize("body", ["s = Shape (x) y = Slice (s, k0, k2)", "y = Cast <to = 7> (x)"])
def test_dimensions_that_are_not_all_numbers_are_computed(body):
    misses(KnownDimensions(), model("(float[n, 4, 6] x) => (int64[k] z)", f"{body} z = Abs (y)", WEIGHTS), None)


@pytest.mark.parametrize(
    ("part", "start", "end"),
    [
        ("Slice (s, k1, k2)", 1, 2),
        ("Slice (s, k1, far)", 1, None),
        ("Slice (s, near, rest)", -1024, -1),
        ("Slice (s, k0, k2, k0, k1)", 0, 2),
        ("Gather (s, k1)", 1, 2),
        ("Gather (s, rest)", -1, None),
    ],
)
def test_a_piece_of_a_shape_is_asked_for_at_once(part, start, end):
    weights = {**WEIGHTS, "far": INTS([2**63 - 1]), "near": INTS([-(2**63) + 1])}
    after = fires(
        SliceOfShape(),
        model("(float[n, m, 6] x) => (int64[k] y)", f"s = Shape (x) y = {part}", weights),
        ["y = Shape (x)"],
    )
    attributes = after.graph.graph[0].attributes
    assert (attributes.get_int("start"), attributes.get_int("end")) == (start, end)


@pytest.mark.parametrize(
    ("shape", "part", "reason"),
    [
        ("Shape <start = 1> (x)", "Slice (s, k0, k1)", "it is a part of the shape already"),
        ("Shape (x)", "Slice (s, three, k0, k0, rest)", "what it takes is not constant and in one piece"),
        ("Shape (x)", "Gather (s, i)", "what it takes is not constant and in one piece"),
        ("Shape (x)", "Gather (s, s)", "what it takes is not constant and in one piece"),
    ],
)
def test_what_is_no_piece_of_a_whole_shape_is_taken_from_it(shape, part, reason):
    signature = f"(float[1, 1, 1] x) => (int64{'' if '(s, i)' in part else '[k]'} y)"
    misses(SliceOfShape(), model(signature, f"s = {shape} y = {part}", WEIGHTS), reason)
