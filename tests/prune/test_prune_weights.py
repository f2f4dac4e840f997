"""Weights set to zero: one by one, in blocks, two of four; shapes and answers' shapes stay."""

import numpy as np
import onnx_ir
import pytest

from onnxopt.context import Context, Missed, Warned
from onnxopt.data.sample import InMemory, Sample
from onnxopt.errors import PassError, UsageError
from onnxopt.passes import make_pass
from onnxopt.prune.compensation import damped, refit
from onnxopt.prune.masks import block_sums, largest, n_of_m, spread_blocks
from tests.graphs import answers, cnn, from_text, mlp

F32 = np.float32


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


def correlated(count: int = 16) -> InMemory:
    """Return inputs some of which nearly tell the others, of very different sizes."""
    random = np.random.default_rng(5)
    mixing = random.standard_normal((4, 16)) * np.logspace(0, 1, 16)
    made = (random.standard_normal((count, 32, 4)) @ mixing + 0.3 * random.standard_normal((count, 32, 16))).astype(F32)
    return InMemory(tuple(Sample(str(place), {"x": one}) for place, one in enumerate(made)))


def layers():
    """Return layers of every kind whose inputs can be seen: a product, a Gemm and a grouped convolution."""
    random = np.random.default_rng(6)
    weights = {
        "w": random.standard_normal((16, 24)).astype(F32),
        "v": random.standard_normal((8, 24)).astype(F32),
        "k": random.standard_normal((8, 4, 3)).astype(F32),
    }
    return from_text(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[n, 16] x) => (float[n, 8] y, float[1, 8, n] z) {
            h = MatMul (x, w) r = Relu (h) y = Gemm <transB = 1> (r, v)
            zero = Constant <value_ints: ints = [0]> () t = Transpose <perm = [1, 0]> (y) u = Unsqueeze (t, zero)
            z = Conv <group = 2, pads = [1, 1]> (u, k)
        }""",
        weights,
    )


def errors(before, after, data) -> dict[str, float]:
    """Return the energy of what each output is off by, as a share of the output's."""
    total: dict[str, list[float]] = {}
    for place in range(len(data)):
        feeds = data.read(place).feeds
        for name, expected in answers(before, feeds).items():
            one = total.setdefault(name, [0.0, 0.0])
            one[0] += float(np.square(answers(after, feeds)[name] - expected).sum())
            one[1] += float(np.square(expected).sum())
    return {name: off / whole for name, (off, whole) in total.items()}


@pytest.mark.parametrize(("name", "options"), [("prune-weights", {"together": "output"}), ("prune-n-m", {})])
def test_the_others_make_up_for_what_goes(prune, name, options):
    before, seen, unseen = layers(), correlated(), correlated(20)[16:]
    found = {
        criterion: prune(before, name, data=seen, criterion=criterion, **options)
        for criterion in ("size", "activation", "reconstruction")
    }
    for made in found.values():
        for weight_name in ("w", "v", "k"):
            assert (weight(made, weight_name) == 0).mean() == pytest.approx(0.5, abs=0.01)
    off = {criterion: errors(before, made, unseen) for criterion, made in found.items()}
    for output in ("y", "z"):
        assert off["reconstruction"][output] < 0.5 * off["activation"][output] < off["size"][output]


def test_blocks_stay_whole_where_the_others_make_up_for_them(prune):
    after = prune(layers(), "prune-weights", data=correlated(), block="1x4")
    zero = (weight(after, "w").T == 0).reshape(24, -1, 4)
    assert set(zero.sum(-1).reshape(-1).tolist()) == {0, 4}


def test_weights_are_found_wherever_layers_keep_them(prune):
    """In a Constant node, on the left of a product, and of a recurrent layer."""
    random = np.random.default_rng(7)
    model = from_text(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[4, 1, 8] x) => (float[4, 6, 8] y, float[4, 1, 1, 8] z) {
            y = MatMul (left, x) z, last = LSTM <hidden_size = 8> (x, w, r)
        }""",
        {
            "left": random.standard_normal((6, 1)).astype(F32),
            "w": random.standard_normal((1, 32, 8)).astype(F32),
            "r": random.standard_normal((1, 32, 8)).astype(F32),
        },
    )
    constant = onnx_ir.node("Constant", [], {"value": model.graph.graph.initializers["left"].const_value})
    constant.outputs[0].name = "held"
    graph = model.graph.graph
    graph.insert_before(graph[0], constant)
    graph[1].replace_input_with(0, constant.outputs[0])
    after = prune(model, "prune-weights", keep=0.5, together="layer")
    zeros = [
        (one.const_value.numpy() == 0).mean() for one in after.graph.graph.initializers.values() if one.const_value
    ]
    assert zeros == pytest.approx([0.5] * 3)


def test_what_cannot_be_seen_is_judged_by_its_size_and_told(prune):
    told = []
    model = from_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[1, 8, 4] x) => (float[1, 6, 4] y)'
        "{ y = ConvTranspose (x, w) }",
        {"w": np.random.default_rng(8).standard_normal((8, 6, 1)).astype(F32)},
    )
    data = InMemory((Sample("0", {"x": np.ones((1, 8, 4), F32)}),))
    after = prune(model, "prune-weights", data=data, emit=told.append)
    assert (weight(after, "w") == 0).mean() == 0.5
    assert [event.node for event in told if isinstance(event, Missed)] == ["w"]


@pytest.mark.parametrize("criterion", ["activation", "reconstruction"])
def test_samples_are_asked_for(prune, criterion):
    with pytest.raises(PassError, match="needs calibration data"):
        prune(mlp(), "prune-weights", criterion=criterion)


def test_refitting_is_the_least_squares_of_each_output():
    random = np.random.default_rng(9)
    rows = random.standard_normal((200, 12))
    moments = damped((rows.T @ rows / len(rows))[None])
    weights = random.standard_normal((1, 5, 12))
    stays = random.random((1, 5, 12)) < 0.5
    made = refit(weights, stays, moments)
    assert not made[~stays].any()
    matrix = damped(moments)[0]
    for output in range(5):
        on = stays[0, output]
        expected = np.linalg.solve(matrix[np.ix_(on, on)], matrix[on] @ weights[0, output])
        np.testing.assert_allclose(made[0, output, on], expected, rtol=1e-3, atol=1e-4)


def test_a_share_that_blocks_are_too_large_for_is_told(prune):
    told = []
    prune(mlp(width=32), "prune-weights", keep=0.9, block="1000x1000", emit=told.append)
    assert any("100% of the weights stay, not 90%" in event.text for event in told if isinstance(event, Warned))


def test_a_weight_to_skip_that_is_none_is_answered_with_one_that_is(prune):
    with pytest.raises(UsageError, match="there is no weight 'w11'") as caught:
        prune(mlp(), "prune-weights", skip=("w11",))
    assert caught.value.hint == "did you mean 'w1'?"
