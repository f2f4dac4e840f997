"""Scales and shifts go into weights, wherever that gives the same; where it does not, the reason is told."""

import numpy as np
import pytest

from onnxopt.rewrite.rules.affine import MatMulAddToGemm, PadIntoConv, ScaleIntoLayer
from tests.rewrite.rules.cases import F32, fires, misses, model, random

IMAGE = "(float[n, 4, 6, 6] x) => (float[n, a, b, c] y)"
STATISTICS = {
    "scale": random(6, seed=1),
    "shift": random(6, seed=2),
    "mean": random(6, seed=3),
    "var": np.abs(random(6, seed=4)) + F32(0.1),
}
NORM = "y = BatchNormalization <epsilon = 0.01> (c, scale, shift, mean, var)"
CONV = {"w": random(6, 4, 3, 3), "b": random(6, seed=5)}

LAYERS = {
    "conv": ("Conv (x, w, b)", CONV),
    "conv-no-bias": ("Conv (x, w)", {"w": CONV["w"]}),
    "conv-groups": ("Conv <group = 2> (x, w, b)", {"w": random(6, 2, 3, 3), "b": CONV["b"]}),
    "conv-transpose": ("ConvTranspose <strides = [2, 2]> (x, w, b)", {"w": random(4, 6, 3, 3), "b": CONV["b"]}),
    "conv-transpose-groups": ("ConvTranspose <group = 2> (x, w, b)", {"w": random(4, 3, 3, 3), "b": CONV["b"]}),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_a_batch_norm_goes_into_a_convolution(layer):
    call, weights = LAYERS[layer]
    before = model(IMAGE, f"c = {call} {NORM}", {**weights, **STATISTICS})
    fires(ScaleIntoLayer(), before, [f"y = {call.split()[0]} (x, w_scaled, w_shift)"], tolerance=1e-5)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("shape", [(), (1,), (6, 1, 1), (1, 6, 1, 1)], ids=str)
@pytest.mark.parametrize("operator", ["Mul", "Div", "Add", "Sub"])
def test_arithmetic_by_channel_goes_into_a_convolution(layer, shape, operator):
    call, weights = LAYERS[layer]
    before = model(IMAGE, f"c = {call} y = {operator} (c, k)", {**weights, "k": random(*shape, seed=9) + F32(3)})
    changed = fires(
        ScaleIntoLayer(),
        before,
        [f"y = {call.split()[0]} (x, {'w_scaled' if operator in ('Mul', 'Div') else 'w'}{_bias(call, operator)})"],
        tolerance=1e-5,
    )
    assert len(changed.graph.graph.initializers) <= 2


def _bias(call: str, operator: str) -> str:
    return ", w_shift" if " b)" in call or operator in ("Add", "Sub") else ""


@pytest.mark.parametrize(
    ("attributes", "shape", "columns"),
    [("", (5, 6), 6), ("<transB = 1>", (6, 5), 6), ("<alpha = 0.5, beta = 2.0>", (5, 6), 6)],
    ids=["plain", "transposed", "scaled"],
)
@pytest.mark.parametrize("behind", ["norm", "mul"])
def test_a_gemm_takes_a_scale(attributes, shape, columns, behind):
    body = f"c = Gemm {attributes} (x, w, b) " + (NORM if behind == "norm" else "y = Mul (k, c)")
    weights = {"w": random(*shape), "b": random(columns, seed=5), "k": random(1, columns, seed=6), **STATISTICS}
    used = {name: array for name, array in weights.items() if name in body}
    before = model("(float[n, 5] x) => (float[n, 6] y)", body, used)
    fires(ScaleIntoLayer(), before, ["y = Gemm (x, w_scaled, w_shift)"], tolerance=1e-5)


def test_a_matmul_takes_a_factor_and_no_shift():
    signature = "(float[n, 3, 5] x) => (float[n, 3, 6] y)"
    weights = {"w": random(5, 6), "k": random(6, seed=1)}
    fires(
        ScaleIntoLayer(),
        model(signature, "c = MatMul (x, w) y = Mul (c, k)", weights),
        ["y = MatMul (x, w_scaled)"],
        1e-5,
    )
    misses(
        ScaleIntoLayer(),
        model(signature, "c = MatMul (x, w) y = Add (c, k)", weights),
        "a MatMul has no bias to take the shift",
    )


NEAR = {
    "read-elsewhere": (
        "(float[n, 4, 6, 6] x) => (float[n, a, b, c] y, float[n, d, e, f] z)",
        "c = Conv (x, w, b) y = Mul (c, k) z = Relu (c)",
        {**CONV, "k": random(1)},
        "the layer's output is read elsewhere too",
    ),
    "weights-computed": (
        "(float[n, 4, 6, 6] x, float[6, 4, 3, 3] v) => (float[n, a, b, c] y)",
        "c = Conv (x, v) y = Mul (c, k)",
        {"k": random(1)},
        "the layer's weights are not constant",
    ),
    "by-column": (
        IMAGE,
        "c = Conv (x, w, b) y = Mul (c, k)",
        {**CONV, "k": random(4)},
        "the constant does not go by output channel",
    ),
    "widened": (
        "(float[n, 4, 6, 6] x) => (float[p, n, a, b, c] y)",
        "c = Conv (x, w, b) y = Mul (c, k)",
        {**CONV, "k": random(2, 1, 1, 1, 1)},
        "the constant does not go by output channel",
    ),
    "by-zero": (IMAGE, "c = Conv (x, w, b) y = Div (c, k)", {**CONV, "k": np.zeros(1, F32)}, "it divides by zero"),
    "not-constant": (
        "(float[n, 4, 6, 6] x, float[1] k) => (float[n, a, b, c] y)",
        "c = Conv (x, w, b) y = Mul (c, k)",
        CONV,
        None,
    ),
    "from-a-constant": (IMAGE, "c = Conv (x, w, b) y = Sub (k, c)", {**CONV, "k": random(1)}, None),
}


@pytest.mark.parametrize("case", NEAR)
def test_what_would_not_be_the_same_stays(case):
    signature, body, weights, reason = NEAR[case]
    misses(ScaleIntoLayer(), model(signature, body, weights), reason)


@pytest.mark.parametrize("order", ["p, k", "k, p"])
@pytest.mark.parametrize("shape", [(6,), (1, 6), (1,)], ids=str)
def test_a_matmul_with_a_row_added_becomes_a_gemm(order, shape):
    before = model(
        "(float[n, 5] x) => (float[n, 6] y)",
        f"p = MatMul (x, w) y = Add ({order})",
        {"w": random(5, 6), "k": random(*shape)},
    )
    fires(MatMulAddToGemm(), before, ["y = Gemm (x, w, k)"], tolerance=1e-5)


@pytest.mark.parametrize(
    ("signature", "body", "weights", "reason"),
    [
        (
            "(float[n, 2, 5] x) => (float[n, 2, 6] y)",
            "p = MatMul (x, w) y = Add (p, k)",
            {"k": random(6)},
            "a side of the MatMul is no matrix",
        ),
        (
            "(float[3, 5] x) => (float[3, 6] y)",
            "p = MatMul (x, w) y = Add (p, k)",
            {"k": random(3, 6)},
            "what is added has several rows",
        ),
        (
            "(float[n, 5] x, float[6] k) => (float[n, 6] y)",
            "p = MatMul (x, w) y = Add (p, k)",
            {},
            "what is added is not constant",
        ),
        (
            "(float[n, 5] x) => (float[n, 6] y, float[n, 6] z)",
            "p = MatMul (x, w) y = Add (p, k) z = Relu (p)",
            {"k": random(6)},
            "the product is read elsewhere too",
        ),
    ],
)
def test_other_matmuls_stay(signature, body, weights, reason):
    misses(MatMulAddToGemm(), model(signature, body, {"w": random(5, 6), **weights}), reason)


@pytest.mark.parametrize("own", ["", "<pads = [1, 0, 2, 0]>"])
def test_a_pad_goes_into_a_convolution(own):
    before = model(IMAGE, f"p = Pad (x, k) y = Conv {own} (p, w, b)", {**CONV, "k": np.array([0, 0, 1, 2, 0, 0, 3, 0])})
    after = fires(PadIntoConv(), before, ["y = Conv (x, w, b)"], tolerance=1e-6)
    pads = list(after.graph.graph[0].attributes["pads"].as_ints())
    assert pads == ([2, 2, 5, 0] if own else [1, 2, 3, 0])


@pytest.mark.parametrize(
    ("pad", "conv", "reason"),
    [
        ("Pad (x, channels)", "Conv (p, w)", "it pads batch or channels, cuts off, or pads other than zeros"),
        ('Pad <mode = "edge"> (x, k)', "Conv (p, w)", "it pads batch or channels, cuts off, or pads other than zeros"),
        ("Pad (x, k, one)", "Conv (p, w)", "it pads batch or channels, cuts off, or pads other than zeros"),
        ("Pad (x, k)", 'Conv <auto_pad = "SAME_UPPER"> (p, w)', "the convolution pads by its own rule"),
    ],
)
def test_other_pads_stay(pad, conv, reason):
    weights = {
        "k": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "channels": np.array([0, 1, 0, 0, 0, 1, 0, 0]),
        "one": np.array(1, F32),
        "w": random(2, 6 if "channels" in pad else 4, 3, 3),
    }
    used = {name: array for name, array in weights.items() if name in pad + conv}
    misses(PadIntoConv(), model(IMAGE, f"p = {pad} y = {conv}", used), reason)
