"""Convolutions beside each other become one, where their kernels can be laid over each other."""

import pytest

from onnxopt.rewrite.rules.parallel import ParallelConvs
from tests.rewrite.rules.cases import fires, misses, model, random

X = "(float[n, 4, 6, 6] x) => (float[n, a, b, c] y)"
WEIGHTS = {
    "w3": random(4, 4, 3, 3),
    "w1": random(4, 4, 1, 1, seed=1),
    "w31": random(4, 4, 3, 1, seed=2),
    "g3": random(4, 2, 3, 3, seed=3),
    "d3": random(4, 1, 3, 3, seed=4),
    "b": random(4, seed=5),
    "k": random(6, 4, 3, 3, seed=6),
}


def used(body):
    return {name: array for name, array in WEIGHTS.items() if f" {name})" in body or f" {name}," in body}


BRANCHES = [
    "p = Conv <pads = [1, 1, 1, 1]> (x, w3, b) q = Conv (x, w1) y = Add (p, q)",
    "p = Conv (x, w1, b) q = Conv <pads = [1, 1, 1, 1]> (x, w3, b) y = Add (p, q)",
    "p = Conv <pads = [1, 1, 1, 1]> (x, w3) q = Conv <pads = [1, 0, 1, 0]> (x, w31, b) y = Add (p, q)",
    "p = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w3) q = Conv <strides = [2, 2]> (x, w1) y = Add (p, q)",
    "p = Conv <pads = [1, 1, 1, 1]> (x, w3) y = Add (p, x)",
    "p = Conv <pads = [1, 1, 1, 1]> (x, w3, b) y = Add (x, p)",
    "p = Conv <group = 2, pads = [1, 1, 1, 1]> (x, g3) y = Add (p, x)",
    "p = Conv <group = 4, pads = [1, 1, 1, 1]> (x, d3) y = Add (p, x)",
    "p = Conv (x, w1) q = Conv (x, w1, b) y = Add (p, q)",
]


@pytest.mark.parametrize("body", BRANCHES)
def test_two_become_one(body):
    before = model(X, body, used(body))
    first = before.graph.graph[0].inputs[1].name
    fires(ParallelConvs(), before, [f"y = Conv (x, {first}_joined, {first}_bias)"], tolerance=1e-5)


STAY = [
    (
        "p = Conv <pads = [1, 1, 1, 1]> (x, w3) q = Conv <pads = [1, 1, 1, 1]> (x, w3) y = Add (p, q) z = Relu (p)",
        "read",
    ),
    ("p = Conv <pads = [2, 0, 0, 2]> (x, w3) q = Conv (x, w1) y = Add (p, q)", None),
    (
        "p = Conv <pads = [1, 1, 1, 1]> (x, w3) q = Conv <group = 2, pads = [1, 1, 1, 1]> (x, g3) y = Add (p, q)",
        "differ",
    ),
    ('p = Conv <auto_pad = "SAME_UPPER"> (x, w3) q = Conv (x, w1) y = Add (p, q)', "written out"),
    (
        "p = Conv <pads = [2, 2, 2, 2], dilations = [2, 2]> (x, w3) q = Conv (x, w1) y = Add (p, q)",
        "differ",
    ),
    ("r = Relu (x) p = Conv <pads = [1, 1, 1, 1]> (x, w3) y = Add (p, r)", ""),
]


@pytest.mark.parametrize(("body", "words"), STAY)
def test_others_stay_two(body, words):
    signature = X if " z =" not in body else "(float[n, 4, 6, 6] x) => (float[n, a, b, c] y, float[n, d, e, f] z)"
    reasons = {
        "read": "one of the convolutions is read elsewhere too",
        "differ": "strides, groups or the middles of the kernels differ",
        "written out": "weights are not constant, or pads are not written out",
        "": None,
    }
    before = model(signature, body, used(body))
    if words is None:
        fires(ParallelConvs(), before, ["y = Conv (x, w3_joined, w3_bias)"], tolerance=1e-5)
    else:
        misses(ParallelConvs(), before, reasons[words])
