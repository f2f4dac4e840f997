"""Operators written as those ONNX Runtime is faster at."""

import pytest

from onnxopt.rewrite.rules.ort_kernels import SpellOutPRelu
from tests.rewrite.rules.cases import fires, misses, model, random

IMAGE = "(float[n, 3, 5, 5] x) => (float[n, 4, 5, 5] y)"
KERNEL = random(4, 3, 1, 1)


@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 1, 1), (1,)])
def test_prelu_behind_a_convolution_is_spelled_out(shape):
    before = model(IMAGE, "c = Conv (x, w) y = PRelu (c, a)", {"w": KERNEL, "a": random(*shape, seed=1)})
    after = [
        "c = Conv (x, w)",
        "val_0 = Mul (c, a)",
        "val_1 = Relu (c)",
        "val_2 = Mul (val_1, node_1_rest)",
        "y = Add (val_0, val_2)",
    ]
    fires(SpellOutPRelu(), before, after, tolerance=1e-6)


def test_slopes_along_another_axis_stay():
    before = model(IMAGE, "c = Conv (x, w) y = PRelu (c, a)", {"w": KERNEL, "a": random(1, 1, 5)})
    misses(SpellOutPRelu(), before, "its slopes of shape [1, 1, 5] are not one for each channel")


def test_prelu_of_what_no_convolution_made_stays():
    before = model("(float[n, 4, 5, 5] x) => (float[n, 4, 5, 5] y)", "y = PRelu (x, a)", {"a": random(4, 1, 1)})
    misses(SpellOutPRelu(), before, None)
