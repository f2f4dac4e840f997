"""Dense convolutions written as depthwise and pointwise ones."""

import numpy as np
import pytest

from onnxopt.context import Missed, Warned
from onnxopt.errors import PassError, UsageError
from tests.graphs import answers, from_text, mlp, samples

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'


def of_rank(rank, outputs=16, inputs=8, kernel=(3, 3), seed=0):
    """Return the weight of a convolution each input's slice of which is of a rank."""
    random = np.random.default_rng(seed)
    wide = random.standard_normal((inputs, outputs, rank))
    slices = wide @ random.standard_normal((inputs, rank, int(np.prod(kernel)))) / 9
    return slices.transpose(1, 0, 2).reshape(outputs, inputs, *kernel).astype(np.float32)


def convolution(attributes, weight, given="1, 8, 12, 12"):
    bias = np.linspace(-1, 1, len(weight)).astype(np.float32)
    made = ", ".join("abcd"[: len(given.split(","))])
    text = f"{HEAD} m (float[{given}] x) => (float[{made}] y) {{ c = Conv <{attributes}> (x, w, b) y = Relu (c) }}"
    return from_text(text, {"w": weight, "b": bias})


def error(after, before):
    feeds = samples(before, 1).read(0).feeds
    expected, got = answers(before, feeds)["y"], answers(after, feeds)["y"]
    assert expected.shape == got.shape
    return float(np.abs(expected - got).max() / np.abs(expected).max())


@pytest.mark.parametrize(
    "attributes",
    [
        "pads = [1, 1, 1, 1]",
        "strides = [2, 1], pads = [0, 1, 2, 1]",
        "dilations = [2, 3], kernel_shape = [3, 3]",
        'auto_pad = "SAME_UPPER", strides = [2, 2]',
    ],
)
@pytest.mark.parametrize("multiplier", [1, 2])
def test_slices_of_the_multiplier_s_rank_give_the_same(prune, attributes, multiplier):
    before = convolution(attributes, of_rank(multiplier))
    after = prune(before, "separate-convolutions", keep=0.5, multiplier=multiplier)
    first, second = (node for node in after.graph.graph if node.op_type == "Conv")
    assert first.attributes.get_int("group") == 8
    assert first.inputs[1].shape.numpy() == (8 * multiplier, 1, 3, 3)
    assert second.inputs[1].shape.numpy() == (16, 8 * multiplier, 1, 1)
    assert second.outputs[0].name == "c"
    assert set(second.attributes) <= {"group"}
    assert error(after, before) < 1e-5


def test_slices_of_a_higher_rank_do_not_give_the_same(prune):
    before = convolution("pads = [1, 1, 1, 1]", of_rank(2))
    assert error(prune(before, "separate-convolutions", keep=0.5, multiplier=1), before) > 0.05
    assert error(prune(before, "separate-convolutions", keep=0.5, multiplier=2), before) < 1e-5


def test_a_kernel_along_one_axis_is_separated_too(prune):
    before = convolution("pads = [2, 2]", of_rank(1, kernel=(5,)), given="1, 8, 20")
    after = prune(before, "separate-convolutions", keep=0.5)
    assert [node.op_type for node in after.graph.graph].count("Conv") == 2
    assert error(after, before) < 1e-5


def test_the_graph_before_and_after(prune):
    before = convolution("pads = [1, 1, 1, 1], strides = [2, 2]", of_rank(1))
    after = prune(before, "separate-convolutions", keep=0.5)
    told = [
        (node.op_type, [value.name for value in node.inputs], [value.name for value in node.outputs])
        for node in after.graph.graph
    ]
    assert told == [
        ("Conv", ["x", "w_depthwise"], ["c_depthwise"]),
        ("Conv", ["c_depthwise", "w_pointwise", "b"], ["c"]),
        ("Relu", ["c"], ["y"]),
    ]
    assert "w" not in after.graph.graph.initializers


TWO = f"""{HEAD} m (float[1, 8, 8, 8] x) => (float[1, 16, 8, 8] y) {{
    h = Conv <pads = [1, 1, 1, 1]> (x, v) y = Conv <pads = [1, 1, 1, 1]> (h, w) }}"""


def two(first, second):
    weights = {"v": of_rank(first, outputs=8, seed=1), "w": of_rank(second, outputs=16, seed=2)}
    return from_text(TWO, weights)


def test_what_loses_least_for_what_it_saves_is_separated(prune):
    told = []
    after = prune(two(9, 1), "separate-convolutions", keep=0.6, emit=told.append)
    assert "w_depthwise" in after.graph.graph.initializers
    assert "v" in after.graph.graph.initializers
    assert ["saves too little" in event.reason for event in told if isinstance(event, Missed)] == [True]
    other = prune(two(1, 9), "separate-convolutions", keep=0.8)
    assert "v_depthwise" in other.graph.graph.initializers
    assert "w" in other.graph.graph.initializers


def test_a_budget_out_of_reach_is_told(prune):
    told = []
    after = prune(two(9, 9), "separate-convolutions", keep=0.05, emit=told.append)
    assert [node.op_type for node in after.graph.graph].count("Conv") == 4
    assert any("not 5%" in event.text for event in told if isinstance(event, Warned))


def test_a_node_to_leave_is_left(prune):
    model = two(1, 1)
    name = model.graph.graph[0].name
    after = prune(model, "separate-convolutions", keep=0.2, skip=[name])
    assert "v" in after.graph.graph.initializers
    assert "w_depthwise" in after.graph.graph.initializers


@pytest.mark.parametrize(
    ("weight", "attributes"),
    [
        (of_rank(1, kernel=(1, 1)), "pads = [0, 0, 0, 0]"),
        (of_rank(1, inputs=4), "group = 2"),
        (of_rank(1, inputs=1), ""),
    ],
    ids=["pointwise", "grouped", "one input"],
)
def test_what_is_thin_already_is_not_separated(prune, weight, attributes):
    inputs = weight.shape[1] * (2 if "group" in attributes else 1)
    model = convolution(attributes or "pads = [0, 0, 0, 0]", weight, given=f"1, {inputs}, 12, 12")
    with pytest.raises(PassError, match="there is no Conv of one group that is cheaper"):
        prune(model, "separate-convolutions")


def test_wrong_use_is_told(prune):
    with pytest.raises(PassError, match="there is no Conv of one group that is cheaper"):
        prune(mlp(), "separate-convolutions")
    with pytest.raises(PassError, match="cheaper") as caught:
        prune(two(1, 1), "separate-convolutions", multiplier=9)
    assert "multiplier 9 may be too large" in caught.value.hint
    with pytest.raises(UsageError, match="there is no node 'nothing' to leave as it is"):
        prune(two(1, 1), "separate-convolutions", skip=["nothing"])
    with pytest.raises(UsageError, match="multiplier"):
        prune(two(1, 1), "separate-convolutions", multiplier=0)


def test_that_more_goes_than_was_asked_for_is_told(prune):
    model = convolution("pads = [1, 1, 1, 1]", of_rank(9))
    told = []
    prune(model, "separate-convolutions", keep=0.9, emit=told.append)
    assert any("not 90%: convolutions change as a whole" in event.text for event in told if isinstance(event, Warned))
