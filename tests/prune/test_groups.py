"""Which channels move together, and what is said of those that do not."""

import numpy as np
import onnx_ir
import pytest

from onnxopt.context import Context
from onnxopt.errors import PassError
from onnxopt.prune.amounts import Size, find_amounts
from onnxopt.prune.choose import Budget, choose
from onnxopt.prune.importance import importance
from onnxopt.prune.lineage import kept_positions
from onnxopt.prune.shrink import shrink
from tests.graphs import attention_block, cnn, from_text, mlp
from tests.prune.exactness import error_after, groups_of


def sized(groups, of) -> Size:
    return Size(groups, groups.found, find_amounts(groups, of, Context.of()))


def slots(groups) -> list[list[str]]:
    return [sorted(map(str, group.slots)) for group in groups.found]


def test_what_one_convolution_makes_and_the_next_reads_is_one_group():
    groups = groups_of(cnn())
    assert slots(groups) == [["mean[0]", "scale[0]", "shift[0]", "var[0]", "w1[0]", "w2[1]"]]
    assert groups.found[0].width == 6
    assert groups.coverage == 1.0


def test_what_reaches_an_output_stays_and_the_reason_is_told():
    model = from_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        one (float[batch, 3, 8, 8] x) => (float[batch, 6, 6, 6] y) { y = Conv (x, w) }""",
        {"w": np.ones((6, 3, 3, 3), np.float32)},
    )
    groups = groups_of(model)
    assert not groups.found
    assert groups.coverage == 0
    assert "it is part of the output 'y'" in groups.left[0].reason


def test_heads_of_attention_are_whole():
    groups = groups_of(attention_block())
    assert [(group.width, group.each, group.heads) for group in groups.found] == [(2, 8, True)]
    assert slots(groups) == [["bk[0]", "bq[0]", "bv[0]", "wk[1]", "wo[0]", "wq[1]", "wv[1]"]]
    assert error_after(attention_block()) < 1e-6


def test_what_is_normalised_over_moves_where_that_is_asked_for():
    text = """<ir_version: 8, opset_import: ["" : 17]>
        norm (float[batch, 8] x) => (float[batch, 4] y) {
            h = MatMul (x, w1) n = LayerNormalization (h, g, b) y = MatMul (n, w2)
        }"""
    weights = {"w1": (8, 12), "g": (12,), "b": (12,), "w2": (12, 4)}
    model = from_text(text, {name: np.ones(shape, np.float32) for name, shape in weights.items()})
    assert not groups_of(model).found
    assert any("normalises over it" in left.reason for left in groups_of(model).left)
    assert slots(groups_of(model, statistics=True)) == [["b[0]", "g[0]", "w1[1]", "w2[0]"]]


def test_an_operator_nobody_described_keeps_what_it_reads():
    text = """<ir_version: 8, opset_import: ["" : 17]>
        det (float[batch, 8] x) => (float[batch, 4] y) {
            h = MatMul (x, w1) d = MatMul (h, w2) u = Unique (h) s = ReduceSum (u) y = Add (d, s)
        }"""
    model = from_text(text, {"w1": np.ones((8, 12), np.float32), "w2": np.ones((12, 4), np.float32)})
    groups = groups_of(model)
    assert not groups.found
    assert any("Unique is not followed" in left.reason for left in groups.left)


def test_a_shared_weight_is_cut_once_and_everywhere():
    text = """<ir_version: 8, opset_import: ["" : 17]>
        twice (float[batch, 8] x) => (float[batch, 8] y) {
            a = MatMul (x, up) b = Relu (a) c = MatMul (b, down) d = Relu (c) e = MatMul (d, up) y = MatMul (e, down)
        }"""
    random = np.random.default_rng(0)
    weights = {"up": random.standard_normal((8, 12)), "down": random.standard_normal((12, 8))}
    model = from_text(text, {name: array.astype(np.float32) for name, array in weights.items()})
    assert slots(groups_of(model)) == [["down[0]", "up[1]"]]
    assert error_after(model) < 1e-6


@pytest.mark.parametrize("share", [0.3, 0.5, 0.75])
def test_the_budget_is_kept_with_the_channels_that_matter_least(share):
    groups = groups_of(mlp(width=64))
    scores = [importance(groups, group, "l2", 0) for group in groups.found]
    chosen = choose(sized(groups, "macs"), groups.found, scores, Budget(share, align=4, least=0.1))
    assert abs(chosen.share - share) < 0.05
    assert chosen.widths["w1"] % 4 == 0
    assert chosen.share == pytest.approx(groups.macs_share(groups.kept(chosen.removed)))
    worst = np.argsort(scores[0])[: len(chosen.removed)]
    assert set(chosen.removed) == set(groups.found[0].classes[worst])


def test_parameters_are_counted_as_they_are():
    groups = groups_of(cnn())
    scores = [importance(groups, group, "l1", 0) for group in groups.found]
    chosen = choose(sized(groups, "parameters"), groups.found, scores, Budget(0.5, align=1, least=0.1))
    before = sum(value.const_value.size for value in groups.graph.graph.initializers.values())
    after = shrink(groups, groups.kept(chosen.removed))
    left = sum(value.const_value.size for value in after.graph.initializers.values())
    assert chosen.share == pytest.approx(left / before)


@pytest.mark.parametrize("criterion", ["l2", "l1", "median", "scale"])
def test_channels_without_weights_matter_least(criterion):
    model = cnn()
    groups = groups_of(model)
    for name in ("w1", "scale", "shift", "w2"):
        weight = groups.graph.graph.initializers[name]
        array = weight.const_value.numpy().copy()
        array[(slice(None), [1, 4]) if name == "w2" else [1, 4]] = 0
        weight.const_value = onnx_ir.tensor(array)
    scores = importance(groups, groups.found[0], criterion, 0)
    assert scores.sum() == pytest.approx(1)
    assert set(np.argsort(scores)[:2]) == {1, 4}


@pytest.mark.parametrize("criterion", ["l2", "l1", "median"])
@pytest.mark.parametrize("fill", [0.0, -1e4, -np.inf])
def test_a_mask_of_its_own_for_each_channel_is_no_weight(criterion, fill):
    random = np.random.default_rng(0)
    weights = {"w1": random.standard_normal((8, 12)), "w2": random.standard_normal((12, 4))}
    weights["w1"][:, 3] *= 1e-3
    weights["w2"][3] *= 1e-3
    mask = np.where(np.tri(12, 12, 10), 0.0, fill)[None]
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[1, 12, 8] x) => (float[1, 12, 4] y) {
        h = MatMul (x, w1) m = Add (h, mask) r = Relu (m) y = MatMul (r, w2) }"""
    arrays = {name: array.astype(np.float32) for name, array in (weights | {"mask": mask}).items()}
    groups = groups_of(from_text(text, arrays))
    assert np.argmin(importance(groups, groups.found[0], criterion, 0)) == 3


def test_random_is_the_same_for_a_seed():
    groups = groups_of(cnn())
    first, again, other = (importance(groups, groups.found[0], "random", seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_model_tells_which_channels_of_the_original_it_keeps(prune):
    model = cnn()
    original = model.graph.graph.initializers["w1"].const_value.numpy()
    once = prune(model, keep=0.7, align=1)
    twice = prune(once, keep=0.6, align=1)
    for after in (once, twice):
        places = kept_positions(after.graph)["w1"][0]
        assert np.array_equal(after.graph.graph.initializers["w1"].const_value.numpy(), original[places])
    assert kept_positions(twice.graph)["w2"][1].tolist() == kept_positions(twice.graph)["w1"][0].tolist()


def test_an_axis_is_never_emptied():
    groups = groups_of(cnn())
    kept = groups.kept(groups.found[0].classes)
    assert kept.count(next(iter(groups.made.values()))[0]) == 1
    assert shrink(groups, kept).graph.initializers["w1"].shape[0] == 1


def test_a_model_without_anything_to_remove_is_refused_with_the_reason(prune):
    model = from_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        one (float[batch, 8] x) => (float[batch, 4] y) { y = MatMul (x, w) }""",
        {"w": np.ones((8, 4), np.float32)},
    )
    with pytest.raises(PassError, match=r"there is nothing to remove: .*it is part of the output 'y'"):
        prune(model)
