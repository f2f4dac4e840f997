"""Fused attention: its heads are found as those of attention that is spelled out, and go without changing an answer."""

import numpy as np
import pytest

from onnxopt.context import Context
from onnxopt.ir.model import Model
from onnxopt.passes import make_pass
from onnxopt.prune.shrink import shrink
from tests.graphs import answers, attention_block, from_text, samples
from tests.prune.exactness import error_after, groups_of

PROJECTIONS = "q = MatMul (x, wq) k = MatMul (x, wk) v = MatMul (x, wv)"
OUT = "y = MatMul (a, wo)"
GROUPED = "com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 2"

PLACES = {"places": np.tile(np.arange(6), (2, 1))}
LENGTHS = {"last": np.full(2, 5, np.int32), "total": np.asarray(6, np.int32)}


def weights(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def angles(count: int) -> dict[str, np.ndarray]:
    turned = np.arange(6)[:, None] / 10.0 ** np.arange(count)
    return {"cos": np.cos(turned).astype(np.float32), "sin": np.sin(turned).astype(np.float32)}


def attending(nodes, stored, inputs="", outputs=""):
    """Return ``x [2, 6, 16] -> nodes that make a -> y [2, 6, 12]``; what they make as s is an output z [2, 3]."""
    if " s = " in nodes:
        nodes, outputs = f"{nodes} z = ReduceMean <keepdims = 0> (s, area)", ", float[2, 3] z"
        stored = stored | {"area": np.asarray([2, 3])}
    text = f"""<ir_version: 11, opset_import: ["" : 23, "com.microsoft" : 1]>
        m (float[2, 6, 16] x{inputs}) => (float[2, 6, 12] y{outputs}) {{ {nodes} {OUT} }}"""
    return from_text(text, stored)


EQUAL = weights(wq=(16, 16), wk=(16, 16), wv=(16, 16), wo=(16, 12))
SHARED = weights(wq=(16, 16), wk=(16, 8), wv=(16, 8), wo=(16, 12))
SINGLE = weights(wq=(16, 16), wk=(16, 4), wv=(16, 4), wo=(16, 12))
LARGE = weights(wq=(16, 64), wk=(16, 32), wv=(16, 32), wo=(64, 12)) | LENGTHS
WIDE = weights(wq=(16, 16), wk=(16, 16), wv=(16, 24), wo=(24, 12))
FOLDED = {"split": np.asarray([0, 0, -1, 4]), "join": np.asarray([0, 0, -1])}
ALONG_HEADS = " ".join(
    f"{h}0 = Reshape ({h}, split) {h}1 = Transpose <perm = [0, 2, 1, 3]> ({h}0)" for h in ("q", "k", "v")
)
JOINED = "r = Transpose <perm = [0, 2, 1, 3]> (t) a = Reshape (r, join)"
EACH = ["wk[1]", "wo[0]", "wq[1]", "wv[1]"]

FUSED = {
    "ONNX": (
        f"{PROJECTIONS} a = Attention <q_num_heads = 4, kv_num_heads = 4> (q, k, v)",
        EQUAL,
        (4, 4, EACH),
    ),
    "ONNX, queries that share keys": (
        f"{PROJECTIONS} a = Attention <q_num_heads = 4, kv_num_heads = 2> (q, k, v)",
        SHARED,
        (2, 4, EACH),
    ),
    "ONNX, queries that share one head of keys": (
        f"{PROJECTIONS} a = Attention <q_num_heads = 4, kv_num_heads = 1> (q, k, v)",
        SINGLE,
        (4, 4, ["wo[0]", "wq[1]"]),
    ),
    "ONNX, an axis of heads": (
        f"{PROJECTIONS} {ALONG_HEADS} t = Attention (q1, k1, v1) {JOINED}",
        SHARED | FOLDED,
        (2, 4, EACH),
    ),
    "ONNX, a mask for each head": (
        f"{PROJECTIONS} a = Attention <q_num_heads = 4, kv_num_heads = 2> (q, k, v, mask)",
        SHARED | weights(mask=(1, 4, 6, 6)),
        (2, 2, ["mask[1]", *EACH]),
    ),
    "ONNX, a mask for all heads": (
        f"{PROJECTIONS} a = Attention <q_num_heads = 4, kv_num_heads = 2> (q, k, v, mask)",
        SHARED | weights(mask=(6, 6)),
        (2, 4, EACH),
    ),
    "ONNX, earlier tokens": (
        f"{PROJECTIONS} a, pk, pv = Attention <q_num_heads = 4, kv_num_heads = 2> (q, k, v, , old, older)"
        " b = Add (pk, pv) s = Conv (b, ws)",
        SHARED | weights(old=(2, 2, 3, 4), older=(2, 2, 3, 4), ws=(3, 2, 1, 1)),
        (2, 1, ["old[1]", "older[1]", "ws[1]", *EACH]),
    ),
    "ONNX, scores that are read": (
        f"{PROJECTIONS} a, , , p = Attention <q_num_heads = 4, kv_num_heads = 2> (q, k, v) s = Conv (p, ws)",
        SHARED | weights(ws=(3, 4, 1, 1)),
        (2, 2, ["ws[1]", *EACH]),
    ),
    "ONNX, turned": (
        f"{PROJECTIONS} qt = RotaryEmbedding <num_heads = 4> (q, cos, sin, places)"
        " kt = RotaryEmbedding <num_heads = 2> (k, cos, sin, places)"
        " a = Attention <q_num_heads = 4, kv_num_heads = 2> (qt, kt, v)",
        SHARED | angles(2) | PLACES,
        (2, 4, EACH),
    ),
    "ONNX, an axis of heads, turned": (
        f"{PROJECTIONS} {ALONG_HEADS} qt = RotaryEmbedding (q1, cos, sin, places)"
        f" kt = RotaryEmbedding (k1, cos, sin, places) t = Attention (qt, kt, v1) {JOINED}",
        SHARED | FOLDED | angles(2) | PLACES,
        (2, 4, EACH),
    ),
    "MultiHeadAttention": (
        f"{PROJECTIONS} a = com.microsoft.MultiHeadAttention <num_heads = 4> (q, k, v)",
        EQUAL,
        (4, 4, EACH),
    ),
    "MultiHeadAttention, a bias and wide values": (
        f"{PROJECTIONS} a = com.microsoft.MultiHeadAttention <num_heads = 4> (q, k, v, b, , bias)",
        WIDE | weights(b=(56,), bias=(1, 4, 6, 6)),
        (4, 1, ["b[0]", "bias[1]", *EACH]),
    ),
    "MultiHeadAttention, keys along an axis of heads": (
        f"{PROJECTIONS} {ALONG_HEADS} a = com.microsoft.MultiHeadAttention <num_heads = 4> (q, k1, v1)",
        EQUAL | FOLDED,
        (4, 4, EACH),
    ),
    "MultiHeadAttention, earlier tokens": (
        f"{PROJECTIONS} a, pk, pv = com.microsoft.MultiHeadAttention <num_heads = 4> (q, k, v, , , , old, older)"
        " b = Add (pk, pv) s = Conv (b, ws)",
        EQUAL | weights(old=(2, 4, 3, 4), older=(2, 4, 3, 4), ws=(3, 4, 1, 1)),
        (4, 1, ["old[1]", "older[1]", "ws[1]", *EACH]),
    ),
    "MultiHeadAttention, turned": (
        f"{PROJECTIONS} qt = com.microsoft.RotaryEmbedding <num_heads = 4> (q, places, cos, sin)"
        " kt = com.microsoft.RotaryEmbedding (k, places, cos, sin)"
        " a = com.microsoft.MultiHeadAttention <num_heads = 4> (qt, kt, v)",
        EQUAL | angles(2) | PLACES,
        (4, 4, EACH),
    ),
    "GroupQueryAttention": (
        f"{PROJECTIONS} a, pk, pv = {GROUPED}> (q, k, v, , , last, total) b = Add (pk, pv) s = Conv (b, ws)",
        LARGE | weights(ws=(3, 2, 1, 1)),
        (2, 1, ["ws[1]", *EACH]),
    ),
    "GroupQueryAttention, turned, a mask and sinks": (
        f"{PROJECTIONS} a, pk, pv = {GROUPED}, do_rotary = 1> (q, k, v, , , last, total, cos, sin, , mask, sinks)",
        LARGE | angles(8) | weights(mask=(1, 4, 6, 6), sinks=(4,)),
        (2, 2, ["mask[1]", "sinks[0]", *EACH]),
    ),
    "GroupQueryAttention, side by side": (
        f"q = MatMul (x, w) a, pk, pv = {GROUPED}> (q, , , , , last, total)",
        weights(w=(16, 128), wo=(64, 12)) | LENGTHS,
        (2, 32, ["w[1]", "wo[0]"]),
    ),
    "GroupQueryAttention, side by side, one head of keys": (
        f"q = MatMul (x, w) a, pk, pv = {GROUPED.replace('kv_num_heads = 2', 'kv_num_heads = 1')}>"
        " (q, , , , , last, total)",
        weights(w=(16, 96), wo=(64, 12)) | LENGTHS,
        (4, 16, ["w[1]", "wo[0]"]),
    ),
    "Attention of com.microsoft": (
        "a = com.microsoft.Attention <num_heads = 4> (x, w, b)",
        weights(w=(16, 48), b=(48,), wo=(16, 12)),
        (4, 4, ["b[0]", "w[1]", "wo[0]"]),
    ),
    "Attention of com.microsoft, wide values": (
        "a = com.microsoft.Attention <num_heads = 4, qkv_hidden_sizes = [16, 16, 24]> (x, w, b, , , bias)",
        weights(w=(16, 56), b=(56,), bias=(1, 4, 6, 6), wo=(24, 12)),
        (4, 1, ["b[0]", "bias[1]", "w[1]", "wo[0]"]),
    ),
}


@pytest.mark.parametrize("case", FUSED)
def test_heads_of_fused_attention_go_whole_and_change_no_answer(case):
    nodes, stored, (width, each, slots) = FUSED[case]
    model = attending(nodes, stored)
    groups = groups_of(model)
    assert [(group.width, group.each, group.heads) for group in groups.found] == [(width, each, True)]
    assert sorted(map(str, groups.found[0].slots)) == sorted(slots)
    for seed in range(2):
        assert error_after(model, seed) < 1e-5


@pytest.mark.parametrize(
    ("case", "macs"),
    [
        ("ONNX, earlier tokens", 2 * (2 * 4 * 6 * 9) * 4),
        ("MultiHeadAttention, a bias and wide values", (2 * 4 * 6 * 6) * (4 + 6)),
        ("GroupQueryAttention, side by side", 2 * (2 * 4 * 6 * 6) * 16),
        ("Attention of com.microsoft, wide values", (2 * 4 * 6 * 6) * (4 + 6) + 2 * 6 * 16 * 56),
    ],
)
def test_both_products_are_counted_with_all_tokens_there_are_keys_of(case, macs):
    costs = groups_of(attending(*FUSED[case][:2])).costs
    assert sum(cost.macs for cost in costs if cost.node.op_type.endswith("Attention")) == macs


HELD = {
    "keys are an output": (
        f"{PROJECTIONS} a, pk, pv = Attention <q_num_heads = 4, kv_num_heads = 2> (q, k, v)",
        SHARED,
        "",
        ", float[2, 2, 6, 4] pk",
        "it is part of the output 'pk'",
    ),
    "values of a grouped cache are an output": (
        f"{PROJECTIONS} a, pk, pv = {GROUPED}> (q, k, v, , , last, total)",
        LARGE,
        "",
        ", float[2, 2, 6, 16] pv",
        "it is part of the output 'pv'",
    ),
    "a cache is an input": (
        f"{PROJECTIONS} a, pk, pv = {GROUPED}> (q, k, v, old, older, last, total)",
        LARGE,
        ", float[2, 2, 6, 16] old, float[2, 2, 6, 16] older",
        "",
        "its cache 'old' does not move",
    ),
    "keys and values together are an output": (
        "a, p = com.microsoft.Attention <num_heads = 4> (x, w, b)",
        weights(w=(16, 48), b=(48,), wo=(16, 12)),
        "",
        ", float[2, 2, 4, 6, 4] p",
        "it is part of the output 'p'",
    ),
    "a mask for each head is an input": (
        f"{PROJECTIONS} a = com.microsoft.MultiHeadAttention <num_heads = 4> (q, k, v, , , mask)",
        EQUAL,
        ", float[2, 4, 6, 6] mask",
        "",
        "its mask 'mask' does not move",
    ),
    "there is one head": (
        f"{PROJECTIONS} a = com.microsoft.MultiHeadAttention <num_heads = 1> (q, k, v)",
        EQUAL,
        "",
        "",
        "it has one head",
    ),
    "keys are an input": (
        "q = MatMul (x, wq) v = MatMul (x, wv) a = Attention <q_num_heads = 4, kv_num_heads = 4> (q, k, v)",
        weights(wq=(16, 16), wv=(16, 16), wo=(16, 12)),
        ", float[2, 6, 16] k",
        "",
        "what it reads does not move",
    ),
}


@pytest.mark.parametrize("case", HELD)
def test_heads_stay_where_something_holds_them_and_the_reason_is_told(case):
    nodes, stored, inputs, outputs, reason = HELD[case]
    groups = groups_of(attending(nodes, stored, inputs, outputs))
    assert not groups.found
    assert any(reason in left.reason for left in groups.left)


def found(model) -> list[tuple[int, int, bool]]:
    return [(group.width, group.each, group.heads) for group in groups_of(model).found]


@pytest.mark.parametrize("how", [{"level": "runtime"}, {"only": ("attention",)}])
def test_rewriting_hides_no_heads(how, tmp_path):
    ctx = Context.of(scratch=tmp_path)
    plain = make_pass("convert-opset", {"opset": 23})(attention_block(), ctx) if "only" in how else attention_block()
    fused = make_pass("rewrite", how)(plain, ctx)
    assert [name for name in fused.operators if name.endswith("Attention")]
    before, after = groups_of(plain), groups_of(fused)
    assert found(fused) == found(plain) == [(2, 8, True)]
    assert after.macs == before.macs
    assert after.coverage == before.coverage == 1.0
    assert error_after(fused) < 1e-5


SUMMED = "d = MatMul (x, w1) u = MatMul (x, w2)"
LOOKED_UP = "t = ArgMax <axis = -1, keepdims = 0> (x) i = Cast <to = 6> (t)"
NORMALISED = {
    "SkipLayerNormalization": (
        f"{SUMMED} n, , , r = com.microsoft.SkipLayerNormalization <epsilon = 0.00001> (d, u, g, b, c)",
        f"{SUMMED} p = Add (d, u) r = Add (p, c) n = LayerNormalization (r, g, b)",
    ),
    "SkipSimplifiedLayerNormalization": (
        f"{SUMMED} n, , , r = com.microsoft.SkipSimplifiedLayerNormalization <epsilon = 0.00001> (d, u, g, c)",
        f"{SUMMED} p = Add (d, u) r = Add (p, c) n = RMSNormalization (r, g)",
    ),
    "EmbedLayerNormalization": (
        f"{LOOKED_UP} n, m, r = com.microsoft.EmbedLayerNormalization <epsilon = 0.00001> (i, , w1, w2, , g, b)",
        f"{LOOKED_UP} d = Gather (w1, i) u = Gather (w2, places) r = Add (d, u) n = LayerNormalization (r, g, b)",
    ),
}


@pytest.mark.parametrize("case", NORMALISED)
def test_fused_normalisation_loses_the_channels_that_it_loses_spelled_out(case):
    stored = weights(w1=(16, 16), w2=(16, 16), g=(16,), b=(16,), c=(16,), wr=(16, 16), wn=(16, 16), wo=(16, 12))
    read = " nr = MatMul (n, wn) rr = MatMul (r, wr) a = Add (nr, rr)"
    models = [attending(nodes + read, stored | {"places": np.arange(6)}) for nodes in NORMALISED[case]]
    assert not any("w1[1]" in map(str, group.slots) for model in models for group in groups_of(model).found)
    feeds = samples(models[0], 1).read(0).feeds
    fused, plain = (answers(without_last(model, "w1", 6), feeds)["y"] for model in models)
    np.testing.assert_allclose(fused, plain, rtol=1e-4, atol=1e-4)


def without_last(model, weight, count):
    """Return a model without the last channels that a weight makes."""
    groups = groups_of(model, statistics=True)
    labels = groups.stored[groups.graph.graph.initializers[weight], 1]
    after = shrink(groups, groups.kept(groups.solved.classes[labels[-count:]]))
    assert after.graph.initializers[weight].shape[1] == len(labels) - count
    return Model(after)
