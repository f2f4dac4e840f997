"""Scales and shifts before a layer become part of its weights, unless padding or a missing bias stands against it."""

import numpy as np
import pytest

from onnxopt.rewrite.rules.before import ScaleFromBefore
from tests.rewrite.rules.cases import fires, misses, model, random

IMAGE = "(float[n, 4, 5, 5] x) => (float[n, 6, a, b] y)"
ROWS = "(float[n, 3, 4] x) => (float[n, 3, 2] y)"
TURNED = "(float[4, 3] x) => (float[3, 2] y)"
MATRIX = "(float[n, 4] x) => (float[n, 2] y)"
BY_CHANNEL = {"k": random(1, 4, 1, 1), "w": random(6, 4, 3, 3, seed=1), "b": random(6, seed=2)}


@pytest.mark.parametrize("scaling", ["Mul (x, k)", "Mul (k, x)", "Div (x, k)", "Add (x, k)", "Sub (x, k)"])
@pytest.mark.parametrize("bias", ["", ", b"])
def test_a_scale_or_shift_becomes_part_of_a_convolution(scaling, bias):
    weights = {name: BY_CHANNEL[name] for name in ("k", "w", *(["b"] if bias else []))}
    before = model(IMAGE, f"s = {scaling} y = Conv (s, w{bias})", weights)
    shifts = scaling.startswith(("Add", "Sub"))
    after = "y = Conv (x, w_scaled, w_shift)" if shifts else f"y = Conv (x, w_scaled{bias})"
    fires(ScaleFromBefore(), before, [after], tolerance=1e-5)


def test_groups_have_their_own_channels():
    weights = {"k": random(1, 4, 1, 1), "w": random(6, 2, 3, 3, seed=1)}
    before = model(IMAGE, "s = Add (x, k) y = Conv <group = 2> (s, w)", weights)
    fires(ScaleFromBefore(), before, ["y = Conv (x, w_scaled, w_shift)"], tolerance=1e-5)


def test_a_normalisation_becomes_part_of_the_convolution_behind_it():
    weights = {name: random(4, seed=i) for i, name in enumerate(("g", "h", "m"))}
    weights |= {"v": np.abs(random(4, seed=9)), "w": BY_CHANNEL["w"]}
    before = model(IMAGE, "s = BatchNormalization (x, g, h, m, v) y = Conv (s, w)", weights)
    fires(ScaleFromBefore(), before, ["y = Conv (x, w_scaled, w_shift)"], tolerance=1e-5)


@pytest.mark.parametrize("turned", [0, 1])
@pytest.mark.parametrize("scaling", ["Mul (x, k)", "Sub (x, k)"])
def test_a_gemm_takes_both(scaling, turned):
    weights = {"k": random(4), "w": random(2, 4, seed=1) if turned else random(4, 2, seed=1), "b": random(2, seed=2)}
    body = f"s = {scaling} y = Gemm <transB = {turned}, alpha = 2.0, beta = 0.5> (s, w, b)"
    last = "w_shift" if scaling.startswith("Sub") else "b"
    fires(ScaleFromBefore(), model(MATRIX, body, weights), [f"y = Gemm (x, w_scaled, {last})"], tolerance=1e-5)


def test_a_matmul_takes_a_scale():
    before = model(ROWS, "s = Mul (x, k) y = MatMul (s, w)", {"k": random(4), "w": random(4, 2)})
    fires(ScaleFromBefore(), before, ["y = MatMul (x, w_scaled)"], tolerance=1e-5)


ELSEWHERE = "the constant does not go by channel"
MISSES = [
    (IMAGE, "s = Add (x, k) y = Conv <pads = [1, 1, 1, 1]> (s, w)", {}, "padding knows no shift"),
    (IMAGE, "s = Mul (x, k) y = Conv (s, w)", {"k": random(1, 1, 5, 5)}, ELSEWHERE),
    (ROWS, "s = Add (x, k) y = MatMul (s, w)", {"k": random(4), "w": random(4, 2)}, "a MatMul has no bias"),
    (ROWS, "s = Mul (x, k) y = MatMul (s, w)", {"k": random(3, 1), "w": random(4, 2)}, ELSEWHERE),
    (TURNED, "s = Mul (x, k) y = Gemm <transA = 1> (s, w)", {"k": random(3), "w": random(4, 2)}, "it turns its input"),
]


@pytest.mark.parametrize(("signature", "body", "weights", "reason"), MISSES)
def test_what_stands_against_it(signature, body, weights, reason):
    used = {name: array for name, array in {**BY_CHANNEL, **weights}.items() if name != "b"}
    misses(ScaleFromBefore(), model(signature, body, used), reason)


@pytest.mark.parametrize("shape", [(1, 4), (1, 1)])
def test_what_may_widen_its_input_stays(shape):
    before = model(
        "(float[k] x) => (float[1, 2] y)", "s = Mul (x, k) y = Gemm (s, w)", {"k": random(*shape), "w": random(4, 2)}
    )
    misses(ScaleFromBefore(), before, "it may widen what it scales")


def test_a_scale_that_is_read_elsewhere_stays():
    body = "s = Mul (x, k) y = Conv (s, w) z = Abs (s)"
    before = model(
        "(float[n, 4, 5, 5] x) => (float[n, 6, a, b] y, float[n, 4, 5, 5] z)", body, {n: BY_CHANNEL[n] for n in "kw"}
    )
    misses(ScaleFromBefore(), before, "what is scaled is read elsewhere too")


def test_computed_weights_stay():
    body = "s = Mul (x, k) y = MatMul (s, w)"
    before = model("(float[n, 3, 4] x, float[4, 2] w) => (float[n, 3, 2] y)", body, {"k": random(4)})
    misses(ScaleFromBefore(), before, "the layer's weights are not constant")


@pytest.mark.parametrize("last", ["m = Mul (x, a) s = Mul (m, half)", "m = Mul (x, half) s = Mul (m, a)"])
def test_the_half_of_a_gelu_stays_with_it(last):
    body = f"d = Div (x, root) e = Erf (d) a = Add (e, one) {last} y = MatMul (s, w)"
    numbers = {"root": np.sqrt(2), "one": 1, "half": 0.5}
    weights = {name: np.array(number, np.float32) for name, number in numbers.items()} | {"w": random(4, 2)}
    reason = "it is the half of a Gelu, which runtimes know as a whole" if last.endswith("half)") else None
    misses(ScaleFromBefore(), model(MATRIX, body, weights), reason)
