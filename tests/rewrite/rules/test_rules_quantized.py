"""Quantizing again with the same scale undoes dequantizing, also around what only moves values."""

import numpy as np
import pytest

from onnxopt.rewrite.rules.quantized import MoveQuantized, Requantize
from tests.rewrite.rules.cases import fires, misses, model

ZEROS = {"z": np.array(3, np.int8), "s": np.array(0.5, np.float32)}
SAME = "(int8[n, 4] x) => (int8[n, 4] y)"


def test_quantizing_again_as_before_changes_nothing():
    body = "d = DequantizeLinear (x, s, z) q = QuantizeLinear (d, s, z) y = Identity (q)"
    fires(Requantize(), model(SAME, body, ZEROS), ["y = Identity (x)"])


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"t": np.array(0.25, np.float32)}, "the scale is another, or not constant"),
        ({"u": np.array(4, np.int8)}, "the zero point is another, or not constant"),
    ],
)
def test_quantizing_again_otherwise_stays(other, reason):
    scale, zero = ("t", "z") if "t" in other else ("s", "u")
    body = f"d = DequantizeLinear (x, s, z) q = QuantizeLinear (d, {scale}, {zero}) y = Identity (q)"
    misses(Requantize(), model(SAME, body, {**ZEROS, **other}), reason)


def test_another_type_stays():
    weights = {"s": np.array(0.5, np.float32), "z": np.array(0, np.int32)}
    body = "d = DequantizeLinear (x, s, z) y = QuantizeLinear (d, s, z)"
    before = model(
        "(int32[n, 4] x) => (int8[n, 4] y)",
        body.replace("y = QuantizeLinear (d, s, z)", "y = QuantizeLinear (d, s)"),
        weights,
    )
    misses(Requantize(), before, "the zero point is another, or not constant")


MOVES = [
    ("Transpose <perm = [1, 0]> (d)", "(int8[n, 4] x) => (int8[4, n] y)"),
    ("Reshape (d, to)", "(int8[n, 4] x) => (int8[m, 2] y)"),
    ("Flatten <axis = 0> (d)", "(int8[n, 4] x) => (int8[1, m] y)"),
]


@pytest.mark.parametrize(("move", "signature"), MOVES, ids=lambda text: text.split()[0])
def test_quantized_values_are_moved_as_they_are(move, signature):
    weights = {**ZEROS, **({"to": np.array([-1, 2])} if "to" in move else {})}
    body = f"d = DequantizeLinear (x, s, z) m = {move} y = QuantizeLinear (m, s, z)"
    fires(
        MoveQuantized(),
        model(signature, body, weights),
        [f"y = {move.split()[0]} (x{', to' if 'to)' in move else ''})"],
    )


def test_scales_by_channel_stay_with_their_axis():
    weights = {"s": np.full(4, 0.5, np.float32), "z": np.zeros(4, np.int8)}
    body = "d = DequantizeLinear (x, s, z) m = Transpose <perm = [1, 0]> (d) y = QuantizeLinear <axis = 0> (m, s, z)"
    misses(
        MoveQuantized(),
        model("(int8[n, 4] x) => (int8[4, n] y)", body, weights),
        "its scale is not one number for all values",
    )


def test_what_is_read_between_stays():
    body = "d = DequantizeLinear (x, s, z) m = Transpose (d) y = QuantizeLinear (m, s, z) f = Abs (m)"
    before = model("(int8[n, 4] x) => (int8[4, n] y, float[4, n] f)", body, ZEROS)
    misses(MoveQuantized(), before, "what is moved is read elsewhere too")
