"""Attention is recognised however it was taken apart, and not where something else only looks like it."""

import numpy as np
import pytest

from onnxopt.rewrite.rules.attention import Attention
from tests.rewrite.rules.cases import F32, fires, misses, model

HEADS = "float[n, 2, 3, 4]"
PLAIN = f"({HEADS} q, {HEADS} k, {HEADS} v) => ({HEADS} y)"
MASKED = f"({HEADS} q, {HEADS} k, {HEADS} v, float[n, 1, 3, 3] mask) => ({HEADS} y)"
TURNED = f"({HEADS} q, float[n, 3, 2, 4] k, {HEADS} v) => ({HEADS} y)"
TWICE = f"({HEADS} q, {HEADS} k, {HEADS} v) => ({HEADS} y, float[n, 2, 3, 3] z)"
T = "t = Transpose <perm = [0, 1, 3, 2]> (k)"
END = "p = Softmax <axis = -1> ({}) y = MatMul (p, v)"


def _model(signature: str, body: str, opset: int = 23):
    weights = {"c": np.array(0.25, F32), "eight": np.array(8, F32)}
    return model(signature, body, {name: array for name, array in weights.items() if f"{name})" in body}, opset=opset)


@pytest.mark.parametrize(
    ("body", "scale"),
    [
        (f"{T} s = MatMul (q, t) {END.format('s')}", 1.0),
        (f"{T} s = MatMul (q, t) m = Mul (s, c) {END.format('m')}", 0.25),
        (f"{T} s = MatMul (q, t) m = Div (s, eight) {END.format('m')}", 0.125),
        (f"a = Mul (q, c) {T} b = Mul (t, c) s = MatMul (a, b) {END.format('s')}", 0.0625),
    ],
)
def test_attention_whatever_is_scaled(body, scale):
    after = fires(Attention(), _model(PLAIN, body), ["y = Attention (q, k, v)"], tolerance=1e-5)
    assert after.graph.graph[0].attributes["scale"].as_float() == pytest.approx(scale)


@pytest.mark.parametrize("order", ["m, mask", "mask, m"])
def test_what_is_added_to_the_scores_is_the_mask(order):
    body = f"{T} s = MatMul (q, t) m = Mul (s, c) a = Add ({order}) {END.format('a')}"
    fires(Attention(), _model(MASKED, body), ["y = Attention (q, k, v, mask)"], tolerance=1e-5)


@pytest.mark.parametrize("rows", ["n, 1, 1, 3", "1, 3", "3"])
def test_a_mask_of_one_row_for_all_queries_is_not_what_runtimes_take(rows):
    body = f"{T} s = MatMul (q, t) a = Add (s, mask) {END.format('a')}"
    before = _model(MASKED.replace("n, 1, 3, 3", rows), body)
    misses(Attention(), before, "the mask is not known to have a row for each query, which ONNX Runtime asks for")


def test_keys_that_were_turned_further_are_turned_the_rest_of_the_way():
    body = f"t = Transpose <perm = [0, 2, 3, 1]> (k) s = MatMul (q, t) {END.format('s')}"
    fires(Attention(), _model(TURNED, body), ["val_0 = Transpose (k)", "y = Attention (q, val_0, v)"], tolerance=1e-5)


@pytest.mark.parametrize(
    ("signature", "body", "reason"),
    [
        (
            PLAIN,
            f"{T} s = MatMul (q, t) p = Softmax <axis = 1> (s) y = MatMul (p, v)",
            "its Softmax is not over the last axis",
        ),
        (PLAIN, f"{T} s = MatMul (q, t) m = Relu (s) {END.format('m')}", None),
        (
            TWICE,
            f"{T} s = MatMul (q, t) {END.format('s')} z = Abs (s)",
            "what is computed on the way is read elsewhere too",
        ),
        (
            "(float[2, 3, 4] q, float[2, 3, 4] k, float[2, 3, 4] v) => (float[2, 3, 4] y)",
            f"t = Transpose <perm = [0, 2, 1]> (k) s = MatMul (q, t) {END.format('s')}",
            "queries, keys and values are not known to have four axes",
        ),
    ],
)
def test_what_only_looks_like_attention(signature, body, reason):
    misses(Attention(), _model(signature, body), reason)


def test_an_older_opset_has_none():
    misses(Attention(), _model(PLAIN, f"{T} s = MatMul (q, t) {END.format('s')}", opset=22), None)
