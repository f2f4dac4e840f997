"""Layers that read one value become one, split afterwards."""

import pytest

from onnxopt.rewrite.rules.siblings import SiblingLayers
from tests.rewrite.rules.cases import misses, model, preserves, random

ROWS = "(float[n, 3, 4] x) => (float[n, 3, 2] y, float[n, 3, 5] z)"
MATRIX = "(float[n, 4] x) => (float[n, 2] y, float[n, 5] z)"
IMAGE = "(float[n, 4, 5, 5] x) => (float[n, 2, a, b] y, float[n, 5, a, b] z)"
PAIR = {"v": random(4, 2), "w": random(4, 5, seed=1)}
KERNELS = {"v": random(2, 4, 3, 3), "w": random(5, 4, 3, 3, seed=1)}


def _merges(before, kinds):
    changed = preserves(SiblingLayers(), before, tolerance=1e-5)
    assert sorted(node.op_type for node in changed.graph.graph) == kinds


@pytest.mark.parametrize("biases", [("", ""), (", b", ""), ("", ", c"), (", b", ", c")])
@pytest.mark.parametrize("operator", ["Gemm", "Conv"])
def test_layers_of_one_input_become_one(operator, biases):
    weights = {**(PAIR if operator == "Gemm" else KERNELS), "b": random(2, seed=2), "c": random(5, seed=3)}
    used = {name: array for name, array in weights.items() if name in "vw" or f", {name}" in biases}
    body = f"y = {operator} (x, v{biases[0]}) z = {operator} (x, w{biases[1]})"
    _merges(model(MATRIX if operator == "Gemm" else IMAGE, body, used), [operator, "Split"])


def test_products_of_one_input_become_one():
    _merges(model(ROWS, "y = MatMul (x, v) z = MatMul (x, w)", PAIR), ["MatMul", "Split"])


def test_turned_weights_are_joined_along_their_rows():
    weights = {"v": random(2, 4), "w": random(5, 4, seed=1)}
    body = "y = Gemm <transB = 1> (x, v) z = Gemm <transB = 1> (x, w)"
    _merges(model(MATRIX, body, weights), ["Gemm", "Split"])


def test_others_that_read_the_value_stay():
    before = model(
        "(float[n, 4] x) => (float[n, 2] y, float[n, 5] z, float[n, 4] r)",
        "r = Relu (x) y = Gemm (x, v) z = Gemm (x, w)",
        PAIR,
    )
    _merges(before, ["Gemm", "Relu", "Split"])


ONE_EACH = "a bias is not one number for each channel"
MISSES = [
    (MATRIX, "y = Gemm (x, v) z = Gemm <alpha = 2.0> (x, w)", PAIR, None),
    (MATRIX, "y = Gemm (x, v) a = Abs (x) z = Gemm (a, w)", PAIR, None),
    (IMAGE, "y = Conv (x, v) z = Conv <pads = [1, 1, 1, 1]> (x, w)", KERNELS, None),
    (IMAGE, "y = Conv (x, v) z = Conv (x, w)", {**KERNELS, "v": random(2, 4, 1, 1)}, None),
    (MATRIX, "y = Gemm (x, v, b) z = Gemm (x, w)", {**PAIR, "b": random(1, 1)}, ONE_EACH),
]


@pytest.mark.parametrize(("signature", "body", "weights", "reason"), MISSES)
def test_layers_that_differ_stay(signature, body, weights, reason):
    misses(SiblingLayers(), model(signature, body, weights), reason)


def test_computed_weights_stay():
    before = model(
        "(float[n, 4] x, float[4, 5] w) => (float[n, 2] y, float[n, 5] z)",
        "y = Gemm (x, v) z = Gemm (x, w)",
        {"v": PAIR["v"]},
    )
    misses(SiblingLayers(), before, "its weights are not constant")
