"""Operators that are easily followed wrongly: what is removed changes no answer, or nothing is removed."""

import numpy as np
import pytest

from tests.graphs import from_text
from tests.prune.exactness import error_after, groups_of


def weights(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def numbers(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


ROWS = weights(w1=(8, 12), w2=(12, 4))
IMAGES = weights(w1=(12, 3, 1), w2=(4, 12, 1))
TALL = weights(w1=(12, 3, 1, 1))

CASES = {
    "the length of an axis as a number": (
        "float[n, 8] x",
        "float[n, 4] y",
        "h = MatMul (x, w1) s = Shape (h) q = Gather (s, i) f = Cast <to = 1> (q) d = Div (h, f) y = MatMul (d, w2)",
        ROWS | {"i": numbers(1)},
    ),
    "zeros of another tensor's shape": (
        "float[n, 8] x",
        "float[n, 4] y",
        "h = MatMul (x, w1) g = MatMul (x, w3) s = Shape (g) z = ConstantOfShape (s) a = Add (h, z)"
        " p = MatMul (a, w2) q = MatMul (g, w4) y = Add (p, q)",
        ROWS | weights(w3=(8, 12), w4=(12, 4)),
    ),
    "zeros of the input's shape": (
        "float[n, 12] x",
        "float[n, 4] y",
        "h = MatMul (x, w1) s = Shape (x) z = ConstantOfShape (s) a = Add (h, z) b = Sigmoid (a) y = MatMul (b, w2)",
        weights(w1=(12, 12), w2=(12, 4)),
    ),
    "an axis that is summed along": (
        "float[n, 3, 8] x",
        "float[n, 4, 8] y",
        "h = Conv (x, w1) a = Sigmoid (h) c = CumSum (a, i) y = Conv (c, w2)",
        IMAGES | {"i": np.asarray(1, np.int64)},
    ),
    "a statistic that is an output": (
        "float[n, 3, 8] x",
        "float[n, 4, 8] y, float[12] rm",
        "h = Conv (x, w1) a, rm, rv = BatchNormalization <training_mode = 1> (h, s, b, m, v) y = Conv (a, w2)",
        IMAGES | weights(s=(12,), b=(12,), m=(12,)) | {"v": np.ones(12, np.float32)},
    ),
    "axes of one squeezed by themselves": (
        "float[2, 3, 1, 1] x",
        "float[2, 4] y",
        "h = Conv (x, w1) a = Squeeze (h) y = MatMul (a, w2)",
        weights(w1=(2, 3, 1, 1), w2=(2, 4)),
    ),
    "blocks of space along channels": (
        "float[n, 3, 4, 4] x",
        "float[n, 1, 24, 8] y",
        "h = Conv (x, w1) a = Transpose <perm = [0, 2, 1, 3]> (h) y = DepthToSpace <blocksize = 2> (a)",
        TALL,
    ),
    "sizes that name the channels": (
        "float[n, 3, 4, 4] x",
        "float[n, 4, 8, 8] y",
        'h = Conv (x, w1) a = Resize <mode = "nearest", axes = [1, 2, 3]> (h, , , s) y = Conv (a, w2)',
        TALL | weights(w2=(4, 12, 1, 1)) | {"s": numbers(12, 8, 8)},
    ),
    "a shape shorter than what is expanded": (
        "float[n, 3, 12] x",
        "float[n, 3, 4] y",
        "h = MatMul (x, w1) r = Expand (h, s) y = MatMul (r, w2)",
        weights(w1=(12, 12), w2=(12, 4)) | {"s": numbers(3, 1)},
    ),
    "a sum over nothing": (
        "float[n, 8] x",
        "float[n, 4] y",
        "h = MatMul (x, w1) r = ReduceSum <keepdims = 0, noop_with_empty_axes = 1> (h) y = MatMul (r, w2)",
        ROWS,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_removed_changes_no_answer(case):
    given, made, nodes, stored = CASES[case]
    model = from_text(f'<ir_version: 8, opset_import: ["" : 18]> m ({given}) => ({made}) {{ {nodes} }}', stored)
    for seed in range(4):
        assert error_after(model, seed) < 1e-5


def test_an_operator_of_another_domain_is_not_followed_by_its_name():
    model = from_text(
        """<ir_version: 8, opset_import: ["" : 18, "acme" : 1]>
        m (float[n, 8] x) => (float[n, 4] y) { h = MatMul (x, w1) z = acme.Relu (h) y = MatMul (z, w2) }""",
        ROWS,
    )
    assert not groups_of(model).found
