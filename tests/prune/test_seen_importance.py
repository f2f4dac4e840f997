"""Which channels matter by what layers make of them on samples."""

import numpy as np
import pytest

from onnxopt.data.sample import InMemory, Sample
from onnxopt.errors import PassError
from tests.graphs import from_text

F32 = np.float32
QUIET, UNREAD, TWIN = 3, 7, 11


def model_of_tastes():
    """Return two products: channels differ in how loud they are, in how they are read, and one is another's twin."""
    random = np.random.default_rng(0)
    first = random.standard_normal((16, 12)).astype(F32)
    second = random.standard_normal((12, 5)).astype(F32)
    first[:, QUIET] *= 1e-3
    second[QUIET] *= 10  # its weights are large, what they make is small
    second[UNREAD] *= 1e-3
    first[:, UNREAD] *= 10
    first[:, TWIN], second[TWIN] = first[:, 0], second[0]
    return from_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 16] x) => (float[n, 5] y)'
        "{ h = MatMul (x, first) r = Relu (h) y = MatMul (r, second) }",
        {"first": first, "second": second},
    )


def data() -> InMemory:
    random = np.random.default_rng(1)
    return InMemory(tuple(Sample(str(i), {"x": random.standard_normal((32, 16)).astype(F32)}) for i in range(4)))


def gone(model, after) -> set[int]:
    left = {tuple(row) for row in after.graph.graph.initializers["first"].const_value.numpy().T}
    whole = model.graph.graph.initializers["first"].const_value.numpy().T
    return {place for place, row in enumerate(whole) if tuple(row) not in left}


@pytest.mark.parametrize(("criterion", "first"), [("activation", {QUIET}), ("hessian", {QUIET, UNREAD}), ("l2", set())])
@pytest.mark.parametrize("weigh", [True, False])
def test_each_criterion_lets_go_first_of_what_it_says(prune, criterion, first, weigh):
    """The weights alone tell neither channel for what it is."""
    model = model_of_tastes()
    after = prune(model, data=data(), keep=(12 - max(len(first), 1)) / 12, criterion=criterion, align=1, weigh=weigh)
    if first:
        assert gone(model, after) == first
    else:
        assert not gone(model, after) & {QUIET, UNREAD}


def test_what_another_channel_can_stand_in_for_goes_first(prune):
    model = model_of_tastes()
    after = prune(model, data=data(), keep=9 / 12, criterion="reconstruction", align=1, weigh=False)
    assert gone(model, after) == {QUIET, UNREAD}
    left = after.graph.graph.initializers["first"].const_value.numpy().T
    assert len({tuple(row) for row in left}) == len(left), "one of the twins is gone, and only one"


def test_groups_are_held_against_each_other_by_what_the_outputs_lose(prune):
    """One branch is added a thousandth: by its weights it matters as much as the other, by the outputs not at all."""
    random = np.random.default_rng(3)
    weights = {name: random.standard_normal((16, 16)).astype(F32) for name in ("a1", "a2", "b1", "b2")}
    model = from_text(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[n, 16] x) => (float[n, 16] y) {
            p = MatMul (x, a1) q = Relu (p) s = MatMul (q, a2)
            t = MatMul (x, b1) u = Relu (t) v = MatMul (u, b2) w = Mul (v, little) y = Add (s, w)
        }""",
        {**weights, "little": np.asarray(1e-3, F32)},
    )
    widths = {}
    for weigh in (True, False):
        after = prune(model, data=data(), keep=0.6, criterion="l2", align=1, weigh=weigh)
        widths[weigh] = [after.graph.graph.initializers[name].shape.numpy()[1] for name in ("a1", "b1")]
    assert widths[True][0] > 14 > 6 > widths[True][1]
    assert abs(widths[False][0] - widths[False][1]) <= 3


@pytest.mark.parametrize("criterion", ["activation", "hessian", "reconstruction"])
def test_without_samples_they_are_asked_for(prune, criterion):
    with pytest.raises(PassError, match="needs calibration data"):
        prune(model_of_tastes(), criterion=criterion)


@pytest.mark.parametrize(("criterion", "goes"), [("activation", True), ("hessian", False)])
def test_what_is_seldom_loud_is_small_on_average_and_holds_much_energy(prune, criterion, goes):
    random = np.random.default_rng(0)
    weights = {"first": np.eye(12, dtype=F32), "second": random.choice([-1, 1], (12, 5)).astype(F32)}
    model = from_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 12] x) => (float[n, 5] y)'
        "{ h = MatMul (x, first) r = Relu (h) y = MatMul (r, second) }",
        weights,
    )
    x = random.uniform(0.9, 1.1, (100, 12)).astype(F32)
    x[:, 4] = 0
    x[7, 4] = 20
    seen = InMemory((Sample("seldom", {"x": x}),))
    after = prune(model, data=seen, keep=11 / 12, criterion=criterion, align=1, weigh=False)
    assert (gone(model, after) == {4}) == goes
