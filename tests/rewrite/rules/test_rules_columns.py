"""What works down a column of width one works along a row, and what only looks like a column stays."""

import numpy as np
import pytest

from onnxopt.rewrite.rules.columns import TurnedColumn
from onnxopt.rewrite.rules.transposes import TransposeThrough
from tests.rewrite.rules.cases import fires, kinds, misses, model, preserves, random, rewritten

COLUMN = "(float[n, 3, 20, 1] x) => (float[n, c, h, w] y)"
BLOCK = "c1 = Conv <pads = [2, 0, 1, 0]> (x, w, b) y = Relu (c1)"


def _weights(body: str) -> dict[str, np.ndarray]:
    known = {"w": random(4, 3, 4, 1), "one": random(4, 3, 1, 1), "wide": random(4, 3, 4, 3), "b": random(4)}
    return {name: array for name, array in known.items() if f" {name}" in body}


def test_a_convolution_down_a_column():
    body = "y = Conv <pads = [2, 0, 1, 0], strides = [2, 1], dilations = [3, 1]> (x, w, b)"
    after = ["val_0 = Transpose (x)", "val_1 = Conv (val_0, w_turned, b)", "y = Transpose (val_1)"]
    changed = fires(TurnedColumn(), model(COLUMN, body, _weights(body)), after, tolerance=1e-5)
    conv = changed.graph.graph[1].attributes
    assert [conv[name].as_ints() for name in ("pads", "strides", "dilations")] == [(0, 2, 0, 1), (1, 2), (1, 3)]


@pytest.mark.parametrize(
    "pool",
    [
        "MaxPool <kernel_shape = [2, 1], strides = [2, 1]>",
        "AveragePool <kernel_shape = [3, 1], pads = [1, 0, 1, 0]>",
        "AveragePool <kernel_shape = [1, 1]>",
    ],
)
def test_a_pool_follows_a_turned_convolution(pool):
    body = f'c1 = Conv <auto_pad = "SAME_UPPER"> (x, w) y = {pool} (c1)'
    changed = preserves(TurnedColumn(), model(COLUMN, body, _weights(body)), tolerance=1e-5)
    turned = ["Transpose", "Conv", "Transpose", "Transpose", pool.split()[0], "Transpose"]
    assert kinds(changed.graph.graph) == turned


def test_a_convolution_of_one_follows_what_was_turned():
    body = "c1 = Conv (x, w) y = Conv (c1, v)"
    before = model(COLUMN, body, {"w": random(4, 3, 4, 1), "v": random(2, 4, 1, 1)})
    changed = preserves(TurnedColumn(), before, tolerance=1e-5)
    assert kinds(changed.graph.graph) == ["Transpose", "Conv", "Transpose", "Transpose", "Conv", "Transpose"]


def test_normalisations_between_do_not_hold_transposes_apart():
    numbers = {name: random(3, seed=i) for i, name in enumerate("abc")} | {"d": np.abs(random(3, seed=5))}
    turn = "Transpose <perm = [0, 1, 3, 2]>"
    before = model(COLUMN, f"t = {turn} (x) s = BatchNormalization (t, a, b, c, d) y = {turn} (s)", numbers)
    fires(TransposeThrough(), before, ["y = BatchNormalization (x, a, b, c, d)"], tolerance=1e-5)
    moved = model(
        "(float[3, n, 20, 1] x) => (float[3, n, 20, 1] y)",
        "t = Transpose <perm = [1, 0, 2, 3]> (x) s = BatchNormalization (t, a, b, c, d)"
        " y = Transpose <perm = [1, 0, 2, 3]> (s)",
        numbers,
    )
    misses(TransposeThrough(), moved, "the channels that are normalised move")


def test_a_pool_follows_through_a_normalisation_and_an_activation():
    numbers = {name: random(4, seed=i) for i, name in enumerate(("g", "h", "m"))} | {"v": np.abs(random(4, seed=5))}
    body = (
        "c1 = Conv (x, w) r = Relu (c1) s = BatchNormalization (r, g, h, m, v) y = MaxPool <kernel_shape = [2, 1]> (s)"
    )
    before = model(COLUMN, body, {"w": random(4, 3, 4, 1), **numbers})
    changed, _ = rewritten(before, TurnedColumn(), TransposeThrough())
    inner = ["Conv", "Relu", "BatchNormalization", "MaxPool"]
    assert kinds(changed.graph.graph) == ["Transpose", *inner, "Transpose"]


def test_it_comes_to_rest():
    changed, _ = rewritten(model(COLUMN, BLOCK, _weights(BLOCK)), TurnedColumn())
    assert rewritten(changed, TurnedColumn())[1].fired == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("y = Conv (x, one)", None),
        ("y = Conv <pads = [0, 1, 0, 1]> (x, wide)", None),
        ("y = Conv <pads = [0, 1, 0, 0]> (x, w)", "it pads or strides across the column"),
        ("k = Abs ( w) y = Conv (x, k)", "its weights are not constant"),
        ("y = MaxPool <kernel_shape = [2, 1]> (x)", None),
        (
            "t = Transpose <perm = [0, 1, 3, 2]> (x) r = Transpose <perm = [0, 1, 3, 2]> (t)"
            " y, i = MaxPool <kernel_shape = [2, 1]> (r) z = Cast <to = 1> (i)",
            "the places of its maxima are read",
        ),
    ],
)
def test_what_is_no_plain_column_stays(body, reason):
    signature = (
        COLUMN if " z =" not in body else "(float[n, 3, 20, 1] x) => (float[n, 3, 19, 1] y, float[n, 3, 19, 1] z)"
    )
    misses(TurnedColumn(), model(signature, body, _weights(body)), reason)


def test_an_image_stays():
    before = model("(float[n, 3, 20, 8] x) => (float[n, c, h, w] y)", "y = Conv (x, w)", {"w": random(4, 3, 4, 1)})
    misses(TurnedColumn(), before, None)
