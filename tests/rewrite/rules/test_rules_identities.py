"""Nodes that change nothing are removed; nodes that nearly change nothing stay, with the reason."""

import numpy as np
import pytest

from onnxopt.rewrite.rules.identities import (
    NeutralArithmetic,
    NoOpCast,
    NoOpDropout,
    NoOpPad,
    NoOpReshape,
    NoOpSlice,
    NoOpTranspose,
    SingleInput,
)
from tests.rewrite.rules.cases import F32, fires, misses, model

X = "(float[n, 4] x) => (float[n, 4] y)"
ONE = {"k": np.ones(1, F32)}
ENDLESS = np.iinfo(np.int64).max

FIRES = {
    "cast": (NoOpCast(), X, "a = Cast <to = 1> (x) y = Relu (a)", {}),
    "cast-output": (NoOpCast(), X, "a = Relu (x) y = Cast <to = 1> (a)", {}),
    "cast-like": (NoOpCast(), X, "a = CastLike (x, x) y = Relu (a)", {}),
    "dropout": (NoOpDropout(), X, "a = Dropout (x) y = Relu (a)", {}),
    "dropout-off": (
        NoOpDropout(),
        X,
        "a, m = Dropout (x, r, t) y = Relu (a)",
        {"r": np.array(0.5, F32), "t": np.array(False)},
    ),
    "reshape": (
        NoOpReshape(),
        "(float[2, 4] x) => (float[2, 4] y)",
        "a = Reshape (x, k) y = Relu (a)",
        {"k": np.array([2, 4])},
    ),
    "flatten": (NoOpReshape(), X, "a = Flatten (x) y = Relu (a)", {}),
    "expand": (
        NoOpReshape(),
        "(float[2, 4] x) => (float[2, 4] y)",
        "a = Expand (x, k) y = Relu (a)",
        {"k": np.array([1, 4])},
    ),
    "transpose": (NoOpTranspose(), X, "a = Transpose <perm = [0, 1]> (x) y = Relu (a)", {}),
    "pad": (NoOpPad(), X, "a = Pad (x, k) y = Relu (a)", {"k": np.zeros(4, np.int64)}),
    "slice": (
        NoOpSlice(),
        X,
        "a = Slice (x, s, e, c) y = Relu (a)",
        {"s": np.array([0]), "e": np.array([ENDLESS]), "c": np.array([1])},
    ),
    "slice-all": (
        NoOpSlice(),
        X,
        "a = Slice (x, s, e, c) y = Relu (a)",
        {"s": np.array([0]), "e": np.array([4]), "c": np.array([1])},
    ),
    "concat": (SingleInput(), X, "a = Concat <axis = 0> (x) y = Relu (a)", {}),
    "max": (SingleInput(), X, "a = Max (x) y = Relu (a)", {}),
    "add": (NeutralArithmetic(), X, "a = Add (x, k) y = Relu (a)", {"k": np.zeros(4, F32)}),
    "add-first": (NeutralArithmetic(), X, "a = Add (k, x) y = Relu (a)", {"k": np.zeros((1, 1), F32)}),
    "sub": (NeutralArithmetic(), X, "a = Sub (x, k) y = Relu (a)", {"k": np.zeros(1, F32)}),
    "mul": (NeutralArithmetic(), X, "a = Mul (x, k) y = Relu (a)", ONE),
    "div": (NeutralArithmetic(), X, "a = Div (x, k) y = Relu (a)", ONE),
    "pow": (NeutralArithmetic(), X, "a = Pow (x, k) y = Relu (a)", ONE),
}

STAYS = {
    "cast-elsewhere": (NoOpCast(), "(float[n] x) => (double[n] y)", "a = Cast <to = 11> (x) y = Relu (a)", {}, None),
    "cast-of-input-to-output": (
        NoOpCast(),
        X,
        "y = Cast <to = 1> (x)",
        {},
        "it makes an output of the graph, whose name its input cannot take",
    ),
    "dropout-trains": (
        NoOpDropout(),
        X,
        "a, m = Dropout (x, r, t) y = Relu (a)",
        {"r": np.array(0.5, F32), "t": np.array(True)},
        "it may train",
    ),
    "mask": (
        NoOpDropout(),
        "(float[n, 4] x) => (float[n, 4] y, bool[n, 4] m)",
        "a, m = Dropout (x) y = Relu (a)",
        {},
        "its mask is read",
    ),
    "reshape-unknown": (
        NoOpReshape(),
        "(float[n, 4] x, int64[2] k) => (float[a, b] y)",
        "c = Reshape (x, k) y = Relu (c)",
        {},
        None,
    ),
    "transpose": (
        NoOpTranspose(),
        "(float[2, 2] x) => (float[2, 2] y)",
        "a = Transpose <perm = [1, 0]> (x) y = Relu (a)",
        {},
        None,
    ),
    "pad-one": (
        NoOpPad(),
        "(float[2] x) => (float[3] y)",
        "a = Pad (x, k) y = Relu (a)",
        {"k": np.array([0, 1])},
        None,
    ),
    "slice-back": (
        NoOpSlice(),
        X,
        "a = Slice (x, s, e, c, t) y = Relu (a)",
        {"s": np.array([0]), "e": np.array([ENDLESS]), "c": np.array([1]), "t": np.array([2])},
        None,
    ),
    "concat-two": (
        SingleInput(),
        "(float[n, 4] x) => (float[m, 4] y)",
        "a = Concat <axis = 0> (x, x) y = Relu (a)",
        {},
        None,
    ),
    "widened": (
        NeutralArithmetic(),
        "(float[n, 1] x) => (float[n, 4] y)",
        "a = Add (x, k) y = Relu (a)",
        {"k": np.zeros(4, F32)},
        "the constant may widen the other input by broadcasting",
    ),
    "minus-from-zero": (NeutralArithmetic(), X, "a = Sub (k, x) y = Relu (a)", {"k": np.zeros(1, F32)}, None),
    "one-over": (NeutralArithmetic(), X, "a = Div (k, x) y = Relu (a)", ONE, None),
    "nearly-one": (NeutralArithmetic(), X, "a = Mul (x, k) y = Relu (a)", {"k": np.full(1, 1.0001, F32)}, None),
}


@pytest.mark.parametrize("case", FIRES)
def test_it_goes(case):
    rule, signature, body, weights = FIRES[case]
    output = "y = Relu (x)"
    fires(rule, model(signature, body, weights), [output])


@pytest.mark.parametrize("case", STAYS)
def test_it_stays(case):
    rule, signature, body, weights, reason = STAYS[case]
    misses(rule, model(signature, body, weights), reason)
