"""Recurrent layers are not given the zeros they start from anyway."""

import numpy as np
import pytest

from onnxopt.rewrite.rules.recurrent import ZeroInitialState
from tests.rewrite.rules.cases import F32, fires, misses, model, random

LAYER = {"GRU": 3, "LSTM": 4, "RNN": 1}
SIGNATURE = "(float[5, n, 4] x) => (float[5, 1, n, 2] y)"
MAKERS = [
    "z = ConstantOfShape (to)",
    "z = ConstantOfShape <value = float[1] {0}> (to)",
    "z = Expand (zero, to)",
    "e = Expand (zero, two) z = Slice (e, k0, k1)",
]


def _weights(operator: str) -> dict[str, np.ndarray]:
    rows = 2 * LAYER[operator]
    made = {"w": random(1, rows, 4), "r": random(1, rows, 2, seed=1)}
    sizes = {"k0": np.array([0]), "k1": np.array([1])}
    return {**made, **sizes, "zero": np.zeros(1, F32), "to": np.array([1, 3, 2]), "two": np.array([2, 3, 2])}


def _given(operator: str, body: str) -> dict[str, np.ndarray]:
    read = body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    return {name: array for name, array in _weights(operator).items() if name in read}


@pytest.mark.parametrize("operator", LAYER)
@pytest.mark.parametrize("maker", MAKERS)
def test_zeros_to_start_from_go(operator, maker):
    body = f"{maker} y = {operator} <hidden_size = 2> (x, w, r, , , z)"
    fires(ZeroInitialState(), model(SIGNATURE, body, _given(operator, body)), [f"y = {operator} (x, w, r)"], n=3)


def test_one_state_of_two_goes():
    body = "z = ConstantOfShape (to) y = LSTM <hidden_size = 2> (x, w, r, , , c, z)"
    before = model(SIGNATURE, body, {**_given("LSTM", body), "c": random(1, 3, 2)})
    fires(ZeroInitialState(), before, ["y = LSTM (x, w, r, , , c)"], n=3)


@pytest.mark.parametrize("maker", ["z = ConstantOfShape <value = float[1] {1}> (to)", "z = Identity (c)"])
def test_other_states_stay(maker):
    body = f"{maker} y = GRU <hidden_size = 2> (x, w, r, , , z)"
    extra = {"c": random(1, 3, 2)} if "(c)" in maker else {}
    misses(ZeroInitialState(), model(SIGNATURE, body, {**_given("GRU", body), **extra}), None)
