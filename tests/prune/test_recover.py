"""Layers of a changed model that are made to make what the original's made."""

import numpy as np
import pytest

from onnxopt.context import Missed
from onnxopt.data.sample import InMemory, Sample
from onnxopt.errors import DataError, PassError
from onnxopt.evaluate.drift import compare_outputs
from tests.graphs import answers, from_text

F32 = np.float32
WAYS = ("correct-means", "match-statistics", "reconstruct-weights")
RANDOM = np.random.default_rng(0)


def weight(*shape: int) -> np.ndarray:
    return (RANDOM.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(F32)


def convolutions():
    """Return a model with a strided, a grouped, a depthwise and a pointwise convolution, and a product with an Add."""
    return from_text(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[n, 4, 9, 9] x) => (float[n, 5] y) {
            a = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w1, b1) r = Relu (a)
            d = Conv <group = 24, pads = [1, 1, 1, 1]> (r, w2) s = Relu (d)
            p = Conv (s, w3) t = Relu (p) g = GlobalAveragePool (t) f = Flatten (g)
            m = MatMul (f, w4) y = Add (m, b4)
        }""",
        {
            "w1": weight(24, 4, 3, 3),
            "b1": weight(24, 1)[:, 0],
            "w2": weight(24, 1, 3, 3) * 3,
            "w3": weight(16, 24, 1, 1),
            "w4": weight(16, 5),
            "b4": weight(5, 1)[:, 0],
        },
    )


def pictures(count: int, seed: int = 0) -> InMemory:
    """Return samples of few causes, so that channels can make up for each other."""
    random = np.random.default_rng(seed)
    causes = np.random.default_rng(9).standard_normal((6, 4 * 9 * 9))
    made = (random.standard_normal((4, 6)) @ causes for _ in range(count))
    return InMemory(tuple(Sample(str(i), {"x": one.reshape(4, 4, 9, 9).astype(F32)}) for i, one in enumerate(made)))


def kept_db(before, after, data) -> float:
    found = compare_outputs((answers(before, one.feeds), answers(after, one.feeds)) for one in data)
    assert found.sqnr_db is not None
    return found.sqnr_db


def test_each_way_wins_back_more_than_the_one_before_on_samples_it_never_saw(prune):
    model, seen, unseen = convolutions(), pictures(24), pictures(8, seed=1)
    cut = prune(model, keep=0.5, align=4)
    found = [kept_db(model, cut, unseen)]
    for way in WAYS:
        after = prune(cut, way, data=seen, original=model)
        assert after.signature == model.signature
        assert after.operators == cut.operators
        found.append(kept_db(model, after, unseen))
    assert found == sorted(found)
    assert found[-1] > found[0] + 6


def test_what_others_can_make_up_for_is_made_up_for(prune):
    """Channels come in equal pairs: one of each is enough, with the other's weights added to its own."""
    once = weight(8, 6)
    model = from_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 6] x) => (float[n, 3] y)'
        "{ a = Gemm <transB = 1> (x, u, c) r = Relu (a) y = Gemm <transB = 1> (r, v) }",
        {"u": np.repeat(once, 2, 0), "c": np.repeat(weight(8, 1)[:, 0], 2), "v": weight(3, 16)},
    )
    random = np.random.default_rng(2)
    data = InMemory(tuple(Sample(str(i), {"x": random.standard_normal((16, 6)).astype(F32)}) for i in range(12)))
    cut = prune(model, keep=0.5, align=1, criterion="reconstruction", weigh=False, data=data)
    assert sorted(cut.graph.graph.initializers["u"].shape.numpy()) == [6, 8]
    assert {tuple(row) for row in cut.graph.graph.initializers["u"].const_value.numpy()} <= set(map(tuple, once))
    after = prune(cut, "reconstruct-weights", data=data, original=model)
    assert kept_db(model, cut, data) < 15
    assert kept_db(model, after, data) > 35


@pytest.mark.parametrize("way", WAYS)
def test_layers_that_still_make_what_they_made_are_left_alone(prune, way):
    model = convolutions()
    after = prune(model, way, data=pictures(8), original=model).graph.graph.initializers
    for name, value in model.graph.graph.initializers.items():
        assert np.array_equal(after[name].const_value.numpy(), value.const_value.numpy())


def test_a_layer_that_is_none_of_the_originals_stays_and_the_reason_is_told(prune):
    model, told = convolutions(), []
    other = from_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 4] x) => (float[n, 2] y)'
        "{ q = MatMul (x, w) y = Gemm (q, v) }",
        {"w": weight(4, 3), "v": weight(3, 2)},
    )
    data = InMemory(tuple(Sample(str(i), {"x": weight(4, 4)}) for i in range(4)))
    before = from_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 4] x) => (float[n, 2] y) { y = Gemm (x, v) }',
        {"v": weight(4, 2)},
    )
    prune(other, "reconstruct-weights", data=data, original=before, emit=told.append)
    reasons = [event.reason for event in told if isinstance(event, Missed)]
    assert reasons == ["the original has no tensor of the name of what it makes"]
    with pytest.raises(PassError, match="no layer of the model is one of the original's"):
        prune(other, "reconstruct-weights", data=data, original=_renamed(model))


def _renamed(model):
    return from_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 4] x) => (float[n, 2] z) { z = Gemm (x, v) }',
        {"v": weight(4, 2)},
    )


def test_wrong_use_is_told(prune):
    model = convolutions()
    cut = prune(model, keep=0.5, align=4)
    with pytest.raises(PassError, match="needs calibration data"):
        prune(cut, "reconstruct-weights", original=model)
    with pytest.raises(PassError, match="the original, which is not known"):
        prune(cut, "reconstruct-weights", data=pictures(4))
    with pytest.raises(DataError, match="one sample only"):
        prune(cut, "match-statistics", data=pictures(1), original=model)
