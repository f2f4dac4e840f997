"""Short loops are written out, and what does not change in a loop is computed before it."""

from collections.abc import Mapping

import numpy as np
import pytest

from onnxopt.ir.model import Model
from onnxopt.rewrite.rules.loops import HoistFromLoop, UnrollLoop
from tests.rewrite.rules.cases import F32, fires, kinds, misses, model, preserves, random

TRIPS = "y, rows = Loop (trips, {go}, x) <body = b (int64 i, bool c, float[3] s) => ({outputs}) {{ {body} }}>"
OUTPUTS = "bool c_out, float[3] s_out, float[3] row"
BODY = "c_out = Identity (c) f = Cast <to = 1> (i) t = Add (s, f) s_out = Mul (t, k) row = Neg (s_out)"
K = {"k": np.array(0.5, F32)}


def _loop(trips: int, weights: Mapping[str, np.ndarray] = K, body: str = BODY, go: str = "") -> Model:
    given = {"trips": np.array(trips), **weights, **({"go": np.array(True)} if go == "go" else {})}
    loop = TRIPS.format(go=go, outputs=OUTPUTS, body=body)
    return model("(float[3] x, bool flag) => (float[3] y, float[t, 3] rows)", loop, given)


def test_one_trip_is_the_body():
    after = [
        "node_0_c_out = Identity (node_goes_on)",
        "node_0_f = Cast (node_trip_0)",
        "node_0_t = Add (x, node_0_f)",
        "y = Mul (node_0_t, k)",
        "node_0_row = Neg (y)",
        "rows = Unsqueeze (node_0_row, node_first_axis)",
    ]
    fires(UnrollLoop(), _loop(1), after)


@pytest.mark.parametrize("go", ["", "go"])
@pytest.mark.parametrize("trips", [2, 3])
def test_every_trip_goes_on_from_the_last_and_adds_a_row(trips, go):
    changed = preserves(UnrollLoop(), _loop(trips, go=go), 1e-6)
    rows = ["Unsqueeze"] * trips + ["Concat"]
    assert kinds(changed.graph.graph) == ["Identity", "Cast", "Add", "Mul", "Neg"] * trips + rows


def test_a_body_may_hold_weights_and_branches_and_hand_on_what_it_was_given():
    branch = "n = If (flag) <then_branch = t () => (float[3] p) { p = Add (s, w) }, else_branch = e () => (float[3] q)"
    body = f"<float[3] w = {{1, 2, 3}}> {{ c_out = Identity (c) {branch} {{ q = Abs (s) }}> row = Identity (x) }}"
    loop = TRIPS.replace("{{ {body} }}", "{body}").format(
        go="", outputs="bool c_out, float[3] n, float[3] row", body=body
    )
    signature = "(float[3] x, bool flag) => (float[3] y, float[t, 3] rows)"
    changed = preserves(UnrollLoop(), model(signature, loop, {"trips": np.array(2)}))
    assert "Loop" not in changed.operators
    assert changed.operators["If"] == 2


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        (_loop(7), "7 trips of 5 nodes are more than 32 nodes"),
        (_loop(0), "it runs no trip, and makes a tensor of no rows"),
        (_loop(2, body=BODY.replace("Identity (c)", "Not (c)")), "a condition may end it early"),
        (_loop(2, go="flag"), "a condition may end it early"),
    ],
    ids=["long", "empty", "ends", "asked"],
)
def test_a_loop_that_is_long_or_may_end_early_stays(before, reason):
    misses(UnrollLoop(), before, reason)


def test_a_loop_of_trips_that_are_not_known_stays():
    loop = TRIPS.format(go="", outputs=OUTPUTS, body=BODY)
    before = model("(float[3] x, int64 trips) => (float[3] y, float[t, 3] rows)", loop, K)
    misses(UnrollLoop(), before, "the number of trips is not constant")


SAME_EVERY_TRIP = (
    "c_out = Identity (c) a = Transpose (w) b = MatMul (x, a) t = Add (s, b) s_out = Tanh (t) row = Neg (b)"
)


def test_what_every_trip_computes_alike_is_computed_before():
    before = _loop(9, {"w": random(3, 3)}, SAME_EVERY_TRIP)
    changed = fires(HoistFromLoop(), before, ["a = Transpose (w)", "b = MatMul (x, a)", "y, rows = Loop (trips, , x)"])
    assert kinds(changed.graph.graph[-1].attributes["body"].as_graph()) == ["Identity", "Add", "Tanh", "Neg"]


def test_weights_it_reads_go_with_it():
    body = (
        "<float[3] w = {1, 2, 3}> { c_out = Identity (c) a = Mul (x, w) t = Add (s, a) n = Mul (t, w) row = Neg (n) }"
    )
    loop = TRIPS.replace("{{ {body} }}", "{body}").format(
        go="", outputs="bool c_out, float[3] n, float[3] row", body=body
    )
    before = model("(float[3] x) => (float[3] y, float[t, 3] rows)", loop, {"trips": np.array(9)})
    fires(HoistFromLoop(), before, ["a = Mul (x, w)", "y, rows = Loop (trips, , x)"])


@pytest.mark.parametrize(
    "body",
    [
        "c_out = Identity (c) s_out = Mul (s, k) row = Neg (x)",
        "c_out = Identity (c) two = Concat <axis = 0> (i1, i1) i1 = Unsqueeze (i, z) s_out = Mul (s, k) row = Neg (s)",
        "c_out = Identity (c) r = RandomNormalLike (x) s_out = Mul (s, r) row = Neg (s_out)",
    ],
    ids=["an output", "the trip", "random"],
)
def test_what_changes_or_must_be_made_there_stays(body):
    weights = {name: array for name, array in {**K, "z": np.array([0])}.items() if f"{name})" in body}
    if "Concat" in body:
        body = (
            "c_out = Identity (c) i1 = Unsqueeze (i, z) two = Concat <axis = 0> (i1, i1) s_out = Neg (s) row = Neg (s)"
        )
    misses(HoistFromLoop(), _loop(9, weights, body), None)
