"""The passes that remove channels and heads, end to end."""

import numpy as np
import pytest

from onnxopt.context import Missed, Warned
from onnxopt.data.sample import InMemory, Sample
from onnxopt.errors import NothingToPruneError, PassError, UsageError
from onnxopt.passes import make_pass
from onnxopt.prune.groups import prepared
from onnxopt.prune.sizes import find_sizes
from tests.graphs import answers, attention_block, cnn, from_text, mlp, samples
from tests.prune.exactness import groups_of


@pytest.mark.parametrize("criterion", ["l2", "l1", "median", "scale", "random"])
def test_a_pruned_model_is_smaller_and_takes_and_gives_the_same(prune, criterion):
    before = cnn()
    after = prune(before, "prune-channels", keep=0.5, align=1, criterion=criterion)
    assert after.signature == before.signature
    assert [value.const_value.shape.numpy() for value in after.graph.graph.initializers.values()] != [
        value.const_value.shape.numpy() for value in before.graph.graph.initializers.values()
    ]
    feeds = samples(before, 1).read(0).feeds
    assert np.isfinite(answers(after, feeds)["scores"]).all()


def test_channels_that_compute_nothing_are_the_first_to_go(prune):
    before = mlp(width=16)
    weights = {name: value.const_value.numpy().copy() for name, value in before.graph.graph.initializers.items()}
    weights["w1"][:, 8:], weights["b1"][8:], weights["w2"][8:] = 0, 0, 0
    text = """<ir_version: 8, opset_import: ["" : 17]>
        mlp (float[batch, 8] x) => (float[batch, 4] y) {
            h = Gemm (x, w1, b1) a = Relu (h) y = Gemm (a, w2, b2) }"""
    model = from_text(text, weights)
    after = prune(model, keep=0.5, align=1)
    feeds = samples(model, 1).read(0).feeds
    np.testing.assert_allclose(answers(after, feeds)["y"], answers(model, feeds)["y"], rtol=1e-5, atol=1e-6)
    assert after.graph.graph.initializers["w1"].shape[1] == 8


def test_heads_go_as_a_whole_and_channels_may_leave_them_alone(prune):
    after = prune(attention_block(), "prune-heads", keep=0.6)
    assert after.graph.graph.initializers["wq"].shape[1] == 8
    with pytest.raises(PassError, match="there is nothing to remove"):
        prune(attention_block(), keep=0.6, heads=False)
    with pytest.raises(PassError, match="there is nothing to remove"):
        prune(cnn(), "prune-heads")


def test_the_residual_stream_is_cut_where_that_is_asked_for(prune):
    text = """<ir_version: 8, opset_import: ["" : 17]>
        block (float[batch, 8] x) => (float[batch, 4] y) {
            s = MatMul (x, w0) n = LayerNormalization (s, g, b) h = MatMul (n, w1) r = Relu (h) d = MatMul (r, w2)
            a = Add (s, d) m = LayerNormalization (a, g, b) y = MatMul (m, w3) }"""
    random = np.random.default_rng(0)
    shapes = {"w0": (8, 16), "g": 16, "b": 16, "w1": (16, 32), "w2": (32, 16), "w3": (16, 4)}
    model = from_text(text, {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()})
    plain, wide = prune(model, keep=0.6, align=1), prune(model, keep=0.6, align=1, residual=True)
    assert plain.graph.graph.initializers["w0"].shape[1] == 16
    assert wide.graph.graph.initializers["w0"].shape[1] < 16


def test_a_budget_that_cannot_be_kept_is_told(prune):
    told = []
    prune(cnn(), keep=0.05, align=1, least=0.5, emit=told.append)
    warned = [event.text for event in told if isinstance(event, Warned)]
    assert len(warned) == 1
    assert "of the multiply-accumulates are left, not 5%" in warned[0]


def test_what_cannot_lose_channels_is_told_with_its_share(prune):
    text = """<ir_version: 8, opset_import: ["" : 17]>
        two (float[batch, 8] x) => (float[batch, 4] y, float[batch, 6] z) {
            z = MatMul (x, w0) h = MatMul (x, w1) y = MatMul (h, w2) }"""
    shapes = {"w0": (8, 6), "w1": (8, 12), "w2": (12, 4)}
    told = []
    model = from_text(text, {name: np.ones(shape, np.float32) for name, shape in shapes.items()})
    prune(model, keep=0.6, align=1, emit=told.append)
    missed = [event for event in told if isinstance(event, Missed)]
    assert ["it is part of the output 'z'" in event.reason for event in missed] == [True]
    assert "MatMul, 25.0% of the multiply-accumulates" in missed[0].reason


def test_a_quantized_model_is_refused(prune):
    text = """<ir_version: 8, opset_import: ["" : 17]>
        q (float[batch, 8] x) => (float[batch, 4] y) {
            i = QuantizeLinear (x, s, p) f = DequantizeLinear (i, s, p) h = MatMul (f, w1) y = MatMul (h, w2) }"""
    weights = {"w1": np.ones((8, 12), np.float32), "w2": np.ones((12, 4), np.float32)}
    weights |= {"s": np.float32(0.1), "p": np.uint8(128)}
    with pytest.raises(PassError, match="the model is quantized already"):
        prune(from_text(text, weights))


@pytest.mark.parametrize("keep", [0, 1, -1, 1.5])
def test_a_share_that_is_none_is_refused(keep):
    with pytest.raises(UsageError, match="keep"):
        make_pass("prune-channels", {"keep": keep})


def test_options_at_odds_are_refused(prune):
    with pytest.raises(UsageError, match="together=layer cuts all alike"):
        prune(cnn(), per="seconds", together="layer")


def test_sizes_that_cannot_be_inferred_are_seen():
    text = """<ir_version: 8, opset_import: ["" : 17]>
        picked (float[rows, 8] x) => (float[n, 4] y) {
            h = MatMul (x, w1) m = Greater (x, zero) i = NonZero (m) r = Gather <axis = 0> (i, zeroth)
            p = Gather <axis = 0> (h, r) y = MatMul (p, w2) }"""
    weights = {"w1": np.ones((8, 12), np.float32), "w2": np.ones((12, 4), np.float32)}
    model = from_text(text, weights | {"zero": np.float32(0), "zeroth": np.int64(0)})
    feeds = {"x": np.ones((3, 8), np.float32)}
    found = find_sizes(prepared(model.graph), InMemory((Sample("three", feeds),)))
    assert found["p"] == (24, 12)
    assert found["h"] == (3, 12)


def test_layers_of_branches_are_told_and_count_for_nothing():
    text = """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2, 8] x, bool c) => (float[2, 4] y) {
            y = If (c) <then_branch = one () => (float[2, 4] a) { a = MatMul (x, w1) },
                        else_branch = other () => (float[2, 4] b) { b = MatMul (x, w2) }> }"""
    weights = {name: np.ones((8, 4), np.float32) for name in ("w1", "w2")}
    groups = groups_of(from_text(text, weights))
    assert groups.coverage == 0
    assert [left.operator for left in groups.left] == ["MatMul", "MatMul"]
    assert all("it is inside If" in left.reason for left in groups.left)


def test_a_model_without_heads_is_told_so(prune):
    with pytest.raises(NothingToPruneError, match="no group is of whole heads of attention"):
        prune(cnn(), "prune-heads")


def test_a_model_of_no_work_is_told_so(prune):
    text = """<ir_version: 8, opset_import: ["" : 17]>
        g (float[0, 8] x) => (float[0, 4] y) { h = MatMul (x, w1) y = MatMul (h, w2) }"""
    weights = {"w1": np.ones((8, 12), np.float32), "w2": np.ones((12, 4), np.float32)}
    told = []
    prune(from_text(text, weights), emit=told.append)
    assert any("multiplies nothing" in event.text for event in told if isinstance(event, Warned))
