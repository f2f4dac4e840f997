"""Which channels go to a budget: by what they cost, in steps that kernels like."""

import numpy as np
import pytest

from onnxopt.data.synthetic import Synthetic
from onnxopt.ir.model import Model
from onnxopt.prune.amounts import Amount, Size
from onnxopt.prune.choose import Budget, choose
from onnxopt.prune.groups import find_groups, prepared
from onnxopt.prune.sizes import find_sizes
from tests.graphs import from_text

F32 = np.float32


def branches(width: int = 64):
    """Return the groups of two alike branches that are added."""
    random = np.random.default_rng(0)
    shapes = {"a1": (16, width), "a2": (width, 16), "b1": (16, width), "b2": (width, 16)}
    graph = prepared(
        from_text(
            """<ir_version: 8, opset_import: ["" : 17]> g (float[4, 16] x) => (float[4, 16] y) {
                p = MatMul (x, a1) q = Relu (p) s = MatMul (q, a2)
                t = MatMul (x, b1) u = Relu (t) v = MatMul (u, b2) y = Add (s, v)
            }""",
            {name: random.standard_normal(shape).astype(F32) for name, shape in shapes.items()},
        ).graph
    )
    samples = Synthetic(synthetic=1).open(Model(graph), ".")
    return find_groups(graph, find_sizes(graph, samples))


def sized(groups, seconds=(1.0, 1.0), block=1):
    """Return the size of the branches whose nodes take so long each."""
    amounts = [
        Amount(seconds["ab".index((cost.node.inputs[1].name or "")[0])], cost.axes)
        for cost in groups.costs
        if cost.node.inputs[1] is not None
    ]
    return Size(groups, groups.found, amounts, block)


def even(groups):
    return [np.full(group.width, 1 / group.width) for group in groups.found]


def test_of_what_matters_alike_goes_what_takes_longest():
    groups = branches()
    taken = choose(sized(groups, seconds=(3.0, 1.0)), groups.found, even(groups), Budget(0.6, 8, 0.125))
    assert taken.share == pytest.approx(0.6, abs=0.03)
    assert taken.widths["a1"] < taken.widths["b1"]


def test_what_matters_most_stays_though_it_takes_longest():
    groups = branches()
    scores = [one * (50 if group.name == "a1" else 1) for group, one in zip(groups.found, even(groups), strict=True)]
    taken = choose(sized(groups, seconds=(3.0, 1.0)), groups.found, scores, Budget(0.8, 8, 0.125))
    assert taken.widths["a1"] > taken.widths["b1"]


def test_a_width_between_two_blocks_saves_nothing():
    groups = branches()
    size = sized(groups, block=16)
    assert size.share(np.asarray([57, 64])) == size.share(np.asarray([64, 64])) == 1
    assert size.share(np.asarray([48, 64])) == pytest.approx(0.875)
    taken = choose(size, groups.found, even(groups), Budget(0.6, 16, 0.125))
    assert all(width % 16 == 0 for width in taken.widths.values())


@pytest.mark.parametrize(("width", "step"), [(256, 16), (128, 16), (64, 8), (32, 4), (12, 1)])
def test_narrow_groups_are_cut_in_finer_steps(width, step):
    groups = branches(width)
    taken = choose(sized(groups), groups.found, even(groups), Budget(0.75, 16, 0.125))
    assert all(one % step == 0 for one in taken.widths.values())
    assert taken.share == pytest.approx(0.75, abs=0.03)


def test_steps_that_miss_the_budget_are_made_finer():
    groups = branches(128)
    one = groups.found[:1]
    size = Size(groups, one, [Amount(1.0, cost.axes) for cost in groups.costs][:2], 1)
    taken = choose(size, one, even(groups)[:1], Budget(0.906, 64, 0.125))
    assert taken.share == pytest.approx(0.906, abs=0.02)


def test_no_group_falls_below_the_least():
    groups = branches()
    taken = choose(sized(groups), groups.found, even(groups), Budget(0.01, 8, 0.5))
    assert set(taken.widths.values()) == {32}


def test_importance_may_be_held_against_seconds_where_something_else_is_counted():
    groups = branches()
    alike, slow = sized(groups), sized(groups, seconds=(3.0, 1.0))
    taken = choose(alike, groups.found, even(groups), Budget(0.6, 8, 0.125), slow)
    assert taken.share == pytest.approx(0.6, abs=0.03)
    assert taken.widths["a1"] < taken.widths["b1"]
    first, second = choose(alike, groups.found, even(groups), Budget(0.6, 8, 0.125)).widths.values()
    assert abs(first - second) <= 8


@pytest.mark.parametrize("share", [0.3, 0.5, 0.75])
def test_each_group_may_lose_the_same_share_whatever_matters(share):
    groups = branches()
    scores = [one * (50 if group.name == "a1" else 1) for group, one in zip(groups.found, even(groups), strict=True)]
    taken = choose(sized(groups), groups.found, scores, Budget(share, 8, 0.125, together="layer"))
    assert taken.share == pytest.approx(share, abs=0.05)
    assert taken.widths["a1"] == taken.widths["b1"] == round(64 * taken.share)


def test_small_steps_that_fit_are_not_taken_at_any_price():
    groups = branches()
    dear = np.where(np.arange(64) < 32, 0.0, 1 / 3.2)
    scores = [dear if group.name == "a1" else one for group, one in zip(groups.found, even(groups), strict=True)]
    taken = choose(sized(groups, seconds=(0.1, 1.0)), groups.found, scores, Budget(0.8, 16, 0.125))
    assert taken.share == pytest.approx(0.8, abs=0.02)
    assert taken.widths["a1"] >= 32
