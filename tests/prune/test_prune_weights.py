"""Weights set to zero: one by one, in blocks, two of four; shapes and answers' shapes stay."""

import numpy as np
import pytest

from onnxopt.context import Context, Missed, Warned
from onnxopt.errors import PassError, UsageError
from onnxopt.passes import make_pass
from onnxopt.prune.masks import block_sums, largest, n_of_m, spread_blocks
from tests.graphs import cnn, from_text, mlp


def weight(model, name: str):
    return model.graph.graph.initializers[name].const_value.numpy()


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_the_smallest_of_all_layers_go(prune, keep):
    before = mlp(width=32)
    after = prune(before, "prune-weights", keep=keep)
    old = np.concatenate([weight(before, name).reshape(-1) for name in ("w1", "w2")])
    new = np.concatenate([weight(after, name).reshape(-1) for name in ("w1", "w2")])
    assert (new != 0).sum() == round(keep * len(old))
    assert np.abs(old[new != 0]).min() >= np.abs(old[new == 0]).max()
    assert np.array_equal(new[new != 0], old[new != 0])
    assert np.array_equal(weight(after, "b1"), weight(before, "b1"))


def test_each_layer_keeps_its_share_where_that_is_asked_for(prune):
    before = cnn()
    after = prune(before, "prune-weights", keep=0.25, together="layer")
    for name in ("w1", "w2"):
        array = weight(after, name)
        assert (array != 0).mean() == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(("block", "shape"), [("1x4", (1, 4)), ("4x1", (4, 1)), ("2x2", (2, 2))])
def test_blocks_go_as_a_whole(prune, block, shape):
    before = mlp(width=32)
    after = prune(before, "prune-weights", keep=0.5, block=block)
    zero = weight(after, "w1").T == 0
    rows, columns = shape
    blocks = zero.reshape(zero.shape[0] // rows, rows, -1, columns)
    assert ((blocks.sum((1, 3)) == 0) | (blocks.sum((1, 3)) == rows * columns)).all()
    assert zero.any()


def test_two_of_four_along_what_is_summed_over(prune):
    before = mlp(width=32)
    after = prune(before, "prune-n-m")
    kept = (weight(after, "w1") != 0).reshape(2, 4, 32)
    assert (kept.sum(1) == 2).all()
    old = np.abs(weight(before, "w1")).reshape(2, 4, 32)
    assert np.array_equal(kept, old >= np.sort(old, 1)[:, 2:3])


def test_layers_that_sum_over_too_few_are_left_and_told(prune):
    told = []
    after = prune(cnn(), "prune-n-m", emit=told.append)
    assert np.array_equal(weight(after, "w1"), weight(cnn(), "w1"))
    assert [event.reason for event in told if isinstance(event, Missed)] == ["only 3 of its weights are summed over"]
    assert any("nor ONNX Runtime or OpenVINO faster" in event.text for event in told if isinstance(event, Warned))


def test_what_is_skipped_stays(prune):
    after = prune(mlp(), "prune-weights", skip=["w1"])
    assert np.array_equal(weight(after, "w1"), weight(mlp(), "w1"))
    assert (weight(after, "w2") == 0).any()


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("prune-weights", {"block": "0x4"}, "'0x4' is no block"),
        ("prune-weights", {"block": "four"}, "'four' is no block"),
        ("prune-weights", {"skip": ["nothing"]}, "there is no weight 'nothing'"),
        ("prune-n-m", {"n": 4, "m": 4}, "4 of 4 removes nothing"),
        ("prune-weights", {"keep": 1.0}, "keep"),
    ],
)
def test_wrong_use_is_told(name, options, text):
    with pytest.raises(UsageError, match=text):
        make_pass(name, options)(mlp(), Context.of())


def test_a_model_without_weights_is_refused(prune):
    model = from_text("""<ir_version: 8, opset_import: ["" : 17]> r (float[2] x) => (float[2] y) { y = Relu (x) }""")
    with pytest.raises(PassError, match="there is nothing to prune"):
        prune(model, "prune-weights")


def test_largest_keeps_the_first_of_equal_scores():
    masks = largest({"a": np.ones((2, 2)), "b": np.zeros(4)}, 0.25)
    assert masks["a"].tolist() == [[True, True], [False, False]]
    assert not masks["b"].any()


def test_what_is_left_over_of_an_axis_stays():
    mask = n_of_m(np.arange(12.0).reshape(2, 6), 1, 4, axis=1)
    assert mask.tolist() == [[False, False, False, True, True, True]] * 2


def test_blocks_at_the_edges_are_smaller():
    scores = np.ones((3, 5))
    sums = block_sums(scores, 2, 2)
    assert sums.tolist() == [[4, 4, 2], [2, 2, 1]]
    mask = spread_blocks(sums > 1, (3, 5), 2, 2)
    assert mask.shape == (3, 5)
    assert mask.sum() == 14
