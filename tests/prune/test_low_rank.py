"""Layers written as two thin ones."""

import numpy as np
import pytest

from onnxopt.context import Missed, Warned
from onnxopt.data.sample import InMemory, Sample
from onnxopt.errors import PassError, UsageError
from onnxopt.evaluate.gram import Gram
from tests.graphs import answers, cnn, from_text, samples


def thin(shape: tuple[int, ...], rank: int, seed: int) -> np.ndarray:
    """Return a weight of low rank, as a matrix of outputs and the rest."""
    random = np.random.default_rng(seed)
    rest = int(np.prod(shape[1:]))
    made = random.standard_normal((shape[0], rank)) @ random.standard_normal((rank, rest)) / np.sqrt(rest)
    return made.reshape(shape).astype(np.float32)


MODELS = {
    "Conv": (
        "c = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w, b) r = Relu (c) y = Conv (r, v)",
        {"w": thin((32, 16, 3, 3), 8, 0), "b": thin((32, 1), 1, 1)[:, 0], "v": thin((4, 32, 1, 1), 4, 2)},
        "float[1, 16, 8, 8] x",
        "float[1, 4, 4, 4] y",
    ),
    "MatMul": (
        "h = MatMul (x, w) y = Relu (h)",
        {"w": thin((32, 48), 8, 0)},
        "float[batch, 32] x",
        "float[batch, 48] y",
    ),
    "Gemm": (
        "h = Gemm <transB = 1> (x, w, b) y = Relu (h)",
        {"w": thin((48, 32), 8, 0), "b": thin((48, 1), 1, 1)[:, 0]},
        "float[batch, 32] x",
        "float[batch, 48] y",
    ),
}


@pytest.mark.parametrize("operator", MODELS)
def test_a_weight_of_low_rank_becomes_two_thin_ones_that_give_the_same(prune, operator):
    nodes, weights, given, made = MODELS[operator]
    model = from_text(f'<ir_version: 8, opset_import: ["" : 17]> m ({given}) => ({made}) {{ {nodes} }}', weights)
    after = prune(model, "factorise-weights", keep=0.5, align=8)
    kinds = [node.op_type for node in after.graph.graph]
    assert kinds.count(operator) == [node.op_type for node in model.graph.graph].count(operator) + 1
    assert "w" not in after.graph.graph.initializers
    assert after.graph.graph.initializers["w_thin"].const_value.size < weights["w"].size / 2
    feeds = samples(model, 1).read(0).feeds
    np.testing.assert_allclose(answers(after, feeds)["y"], answers(model, feeds)["y"], rtol=1e-4, atol=1e-5)


def test_what_loses_least_is_factorised_first(prune):
    random = np.random.default_rng(0)
    weights = {
        "low": thin((32, 32), 4, 0),
        "full": np.linalg.qr(random.standard_normal((32, 32)))[0].astype(np.float32),
    }
    text = """<ir_version: 8, opset_import: ["" : 17]>
        m (float[batch, 32] x) => (float[batch, 32] y) { h = MatMul (x, full) r = Relu (h) y = MatMul (r, low) }"""
    told = []
    after = prune(from_text(text, weights), "factorise-weights", keep=0.65, align=4, emit=told.append)
    assert "low_thin" in after.graph.graph.initializers
    assert "full" in after.graph.graph.initializers
    assert ["saves too little" in event.reason for event in told if isinstance(event, Missed)] == [True]


def test_a_budget_out_of_reach_is_told(prune):
    told = []
    prune(cnn(), "factorise-weights", keep=0.05, align=4, emit=told.append)
    assert any("not 5%" in event.text for event in told if isinstance(event, Warned))


def test_wrong_use_is_told(prune):
    with pytest.raises(UsageError, match="there is no node 'nothing' to leave as it is"):
        prune(cnn(), "factorise-weights", skip=["nothing"])
    model = from_text("""<ir_version: 8, opset_import: ["" : 17]> r (float[2] x) => (float[2] y) { y = Relu (x) }""")
    with pytest.raises(PassError, match="there is nothing to factorise"):
        prune(model, "factorise-weights")


def in_a_subspace(shape, rank, seed, *, mean=0.0, count=12):
    """Return samples whose channels, along axis 1, lie in a subspace of few dimensions, about a mean."""
    random = np.random.default_rng(seed)
    basis = np.random.default_rng(99).standard_normal((rank, shape[1]))
    rows = [random.standard_normal((shape[0], *shape[2:], rank)) @ basis + mean for _ in range(count)]
    feeds = [{"x": np.moveaxis(row, -1, 1).astype(np.float32)} for row in rows]
    return InMemory([Sample(str(number), one) for number, one in enumerate(feeds)])


def full(shape, seed):
    """Return a weight whose singular values are all one."""
    random = np.random.default_rng(seed)
    matrix = np.linalg.qr(random.standard_normal((max(shape), max(shape))))[0][: shape[0], : int(np.prod(shape[1:]))]
    return matrix.reshape(shape).astype(np.float32)


def off(after, before, feeds):
    expected = answers(before, feeds)["y"]
    return float(np.linalg.norm(answers(after, feeds)["y"] - expected) / np.linalg.norm(expected))


SUBSPACES = {
    "MatMul": ("y = MatMul (x, w)", (32, 32), "float[4, 32] x", "float[4, 32] y", (4, 32)),
    "Gemm": ("y = Gemm <transB = 1> (x, w)", (32, 32), "float[4, 32] x", "float[4, 32] y", (4, 32)),
    "Conv": ("y = Conv (x, w)", (32, 32, 1, 1), "float[1, 32, 6, 6] x", "float[1, 32, 6, 6] y", (1, 32, 6, 6)),
}


@pytest.mark.parametrize("operator", SUBSPACES)
def test_inputs_of_a_subspace_make_a_full_weight_thin_where_the_data_is_in_view(prune, operator):
    nodes, shape, given, made, fed = SUBSPACES[operator]
    weight = full((32, 32), 3).reshape(shape)
    before = from_text(f'<ir_version: 8, opset_import: ["" : 17]> m ({given}) => ({made}) {{ {nodes} }}', {"w": weight})
    data, unseen = in_a_subspace(fed, 8, 0), in_a_subspace(fed, 8, 1).read(0).feeds
    seen = prune(before, "factorise-weights", data=data, keep=0.5, align=8)
    assert seen.graph.graph.initializers["w_thin"].shape.numpy().count(8) == 1
    assert off(seen, before, unseen) < 1e-2
    blind = prune(before, "factorise-weights", data=data, keep=0.5, align=8, criterion="weights")
    assert off(blind, before, unseen) > 0.5


@pytest.mark.parametrize("attributes", ["strides = [2, 1], pads = [1, 0, 1, 2]", "dilations = [2, 2]"])
def test_what_a_convolution_looks_at_follows_its_window(prune, attributes):
    text = f"""<ir_version: 8, opset_import: ["" : 17]> m (float[1, 4, 12, 12] x) => (float[1, 36, h, v] y) {{
        y = Conv <{attributes}> (x, w) }}"""
    before = from_text(text, {"w": full((36, 36), 5).reshape(36, 4, 3, 3)})
    data, unseen = in_a_subspace((1, 4, 12, 12), 1, 0), in_a_subspace((1, 4, 12, 12), 1, 1).read(0).feeds
    after = prune(before, "factorise-weights", data=data, keep=0.7, align=9)
    assert off(after, before, unseen) < 0.02
    blind = prune(before, "factorise-weights", keep=0.7, align=9)
    assert off(blind, before, unseen) > 0.3


BIASED = {
    "MatMul": "m = MatMul (x, w) y = Add (m, b)",
    "Gemm": "y = Gemm (x, w, b)",
    "Gemm without": "y = Gemm (x, w)",
    "MatMul without": "y = MatMul (x, w)",
}


@pytest.mark.parametrize("layer", BIASED)
def test_a_bias_takes_the_mean_of_what_is_lost(prune, layer):
    text = f"""<ir_version: 8, opset_import: ["" : 17]> m (float[4, 32] x) => (float[4, 32] y) {{ {BIASED[layer]} }}"""
    before = from_text(text, {"w": full((32, 32), 3), "b": np.ones(32, np.float32)})
    mean = np.random.default_rng(7).standard_normal(32) * 5
    data, unseen = in_a_subspace((4, 32), 8, 0, mean=mean), in_a_subspace((4, 32), 8, 1, mean=mean).read(0).feeds
    error = off(prune(before, "factorise-weights", data=data, keep=0.5, align=8), before, unseen)
    assert (error > 0.05) if layer == "MatMul without" else (error < 0.01)


SHARED = """<ir_version: 8, opset_import: ["" : 17]> m (float[4, 32] x) => (float[4, 32] y) {
    a = MatMul (x, v) b = MatMul (x, w) r = Relu (a) y = Add (r, b) }"""


def shared():
    return from_text(SHARED, {"v": full((32, 32), 3), "w": full((32, 32), 4)})


def test_layers_that_read_the_same_share_a_thin_one(prune):
    data = in_a_subspace((4, 32), 8, 0)
    after = prune(shared(), "factorise-weights", data=data, keep=0.4, align=8)
    assert [name for name in after.graph.graph.initializers if "thin" in name] == ["v_thin"]
    assert [node.op_type for node in after.graph.graph].count("MatMul") == 3
    assert off(after, shared(), data.read(0).feeds) < 1e-2
    apart = prune(shared(), "factorise-weights", data=data, keep=0.5, align=8, share=False)
    assert [name for name in apart.graph.graph.initializers if "thin" in name] == ["v_thin", "w_thin"]
    assert off(apart, shared(), data.read(0).feeds) < 1e-2


def test_ranks_keep_at_least_the_energy_asked_for(prune):
    random = np.random.default_rng(0)
    left, right = (np.linalg.qr(random.standard_normal((32, 32)))[0] for _ in range(2))
    weight = left @ np.diag(0.5 ** np.arange(32)) @ right  # energies fall by four: three of them are 98.4 %
    text = """<ir_version: 8, opset_import: ["" : 17]> m (float[4, 32] x) => (float[4, 32] y) { y = MatMul (x, w) }"""
    before = from_text(text, {"w": weight.astype(np.float32)})
    for energy, rank in ((0.9, 2), (0.98, 3), (0.99, 4)):
        after = prune(before, "factorise-weights", energy=energy, align=1)
        assert after.graph.graph.initializers["w_thin"].shape.numpy() == (32, rank)
    stays = prune(shared(), "factorise-weights", energy=0.99)
    assert "v" in stays.graph.graph.initializers


def test_options_that_do_not_go_together_are_told(prune):
    with pytest.raises(UsageError, match="both keep and energy are given"):
        prune(cnn(), "factorise-weights", keep=0.5, energy=0.9)
    with pytest.raises(PassError, match="needs calibration data"):
        prune(cnn(), "factorise-weights", criterion="outputs")
    with pytest.raises(UsageError, match="criterion"):
        prune(cnn(), "factorise-weights", criterion="taste")


def test_sums_of_rows_go_with_their_products():
    gram, rows = Gram(None), np.arange(12, dtype=np.float32).reshape(4, 3)
    gram.add(rows)
    gram.add(rows)
    again = Gram.of(gram.state())
    np.testing.assert_array_equal(again.sums, 2 * rows.sum(0, keepdims=True))
    np.testing.assert_array_equal(again.matrix[0], 2 * rows.T @ rows)


def test_refitting_behind_it_wins_some_of_the_error_back(prune):
    text = """<ir_version: 8, opset_import: ["" : 17]> m (float[4, 32] x) => (float[4, 32] y) {
        h = MatMul (x, v) a = Add (h, b) r = Relu (a) y = MatMul (r, w) }"""
    before = from_text(text, {"v": full((32, 32), 3), "w": full((32, 32), 4), "b": np.zeros(32, np.float32)})
    data, unseen = in_a_subspace((4, 32), 24, 0, count=60), in_a_subspace((4, 32), 24, 1).read(0).feeds
    thinner = prune(before, "factorise-weights", data=data, keep=0.5, align=8, criterion="weights")
    refitted = prune(thinner, "reconstruct-weights", data=data, original=before)
    assert thinner.graph.graph.initializers["v_thin"].shape == refitted.graph.graph.initializers["v_thin"].shape
    assert off(refitted, before, unseen) < 0.85 * off(thinner, before, unseen)
