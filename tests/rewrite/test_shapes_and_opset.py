"""The passes ``fix-shapes`` and ``convert-opset``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir
import pytest

from onnxopt.context import Context
from onnxopt.errors import PassError, UsageError
from onnxopt.ir.model import Model
from onnxopt.passes import make_pass
from tests.graphs import answers, cnn, from_text, mlp, node_lines, samples

CONCAT = """<ir_version: 8, opset_import: ["" : 17]> g (float[?, s] x, float[n, s] z) => (float[?, t] y) {
    both = Concat <axis = 1> (x, z)
    y = Relu (both)
}"""


def _fixed(model: Model, dims: Mapping[str, int]) -> Model:
    return make_pass("fix-shapes", {"dims": dims})(model, Context.of())


@pytest.mark.parametrize(
    ("dims", "ports"),
    [
        ({"s": 3}, ["x: float32[?,3]", "z: float32[n,3]", "y: float32[n,6]"]),
        ({"x.0": 2}, ["x: float32[2,s]", "z: float32[n,s]", "y: float32[2,t]"]),
        ({"x.0": 2, "n": 2, "s": 3}, ["x: float32[2,3]", "z: float32[2,3]", "y: float32[2,6]"]),
    ],
    ids=["by-name", "by-place", "all"],
)
def test_dimensions_get_numbers_and_the_rest_follows(dims: Mapping[str, int], ports: list[str]) -> None:
    after = _fixed(from_text(CONCAT), dims)
    assert [str(port) for port in (*after.signature.inputs, *after.signature.outputs)] == ports


def test_a_fixed_model_computes_the_same_and_takes_no_other_size() -> None:
    model = mlp()
    after = _fixed(model, {"batch": 3})
    assert node_lines(after) == node_lines(model)
    three, four = (samples(model, 1, batch=batch)[0].feeds for batch in (3, 4))
    np.testing.assert_array_equal(answers(after, three)["y"], answers(model, three)["y"])
    with pytest.raises(Exception, match="Got: 4 Expected: 3"):
        answers(after, four)


def test_wrong_shapes_left_by_an_exporter_are_forgotten() -> None:
    graph = mlp().graph.clone()
    hidden = next(node.outputs[0] for node in graph.graph)
    hidden.shape, hidden.type = onnx_ir.Shape([7, 7]), onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
    after = _fixed(Model(graph), {"batch": 3})
    assert next(node.outputs[0] for node in after.graph.graph).shape == onnx_ir.Shape([3, 16])


@pytest.mark.parametrize(
    ("dims", "text"),
    [
        ({"batc": 1}, "no input has a dimension 'batc'\n  at:   pass 'fix-shapes'\n  hint: did you mean 'batch'?"),
        ({"x.1": 8}, "no input has a dimension 'x.1'"),
        ({"batch": 0}, "the dimension 'batch' cannot be 0"),
    ],
)
def test_dimensions_that_cannot_be_fixed_are_refused(dims: Mapping[str, int], text: str) -> None:
    with pytest.raises(PassError) as caught:
        _fixed(mlp(), dims)
    assert text in str(caught.value)


def test_without_dimensions_nothing_changes() -> None:
    model = mlp()
    assert _fixed(model, {}) is model


@pytest.mark.parametrize("opset", [18, 21])
@pytest.mark.parametrize("build", [mlp, cnn], ids=["mlp", "cnn"])
def test_a_newer_opset_computes_the_same(build: Callable[[], Model], opset: int) -> None:
    model = build()
    after = make_pass("convert-opset", {"opset": opset})(model, Context.of())
    assert after.graph.opset_imports[""] == opset
    for sample in samples(model, 2):
        want, have = answers(model, sample.feeds), answers(after, sample.feeds)
        assert all(np.allclose(have[name], array, rtol=1e-5, atol=1e-6) for name, array in want.items())


def test_an_older_opset_where_the_operators_allow_it() -> None:
    model = mlp()
    after = make_pass("convert-opset", {"opset": 15})(model, Context.of())
    assert after.graph.opset_imports[""] == 15
    feeds = samples(model, 1)[0].feeds
    np.testing.assert_allclose(answers(after, feeds)["y"], answers(model, feeds)["y"], rtol=1e-5)


def test_the_opset_it_has_is_no_change() -> None:
    model = cnn()
    assert make_pass("convert-opset", {"opset": 17})(model, Context.of()) is model


@pytest.mark.parametrize(
    ("opset", "text"),
    [
        (13, r"the model cannot be converted from opset 17 to 13: .*LayerNormalization"),
        (99, r"opset 99 is not known, the newest here is \d+"),
    ],
)
def test_an_opset_that_cannot_be_had_is_refused_with_the_reason(opset: int, text: str) -> None:
    model = from_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[n, 4] x) => (float[n, 4] y) { y = LayerNormalization (x, s) }""",
        {"s": np.ones(4, np.float32)},
    )
    with pytest.raises(PassError, match=text):
        make_pass("convert-opset", {"opset": opset})(model, Context.of())


def test_an_opset_nobody_has_any_more_is_a_wrong_option() -> None:
    with pytest.raises(UsageError, match="opset is 6: it should be greater than or equal to 7"):
        make_pass("convert-opset", {"opset": 6})
