"""Opsets go up and, where every operator allows it, down; elsewhere the reason is given and nothing changes."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest
from onnx.reference import ReferenceEvaluator

from onnxopt.errors import PassError
from onnxopt.ir.check import checker_complaint
from onnxopt.ir.model import Model
from onnxopt.ir.opset import convert
from tests.graphs import Array, cnn, from_text, mlp


def _text(opset: int, body: str, interface: str = "float[2, 3] x) => (float[2] y") -> Model:
    return from_text(
        f'<ir_version: 9, opset_import: ["" : {opset}]> g ({interface}) {{ {body} }}', {"axes": np.array([1])}
    )


MEAN = _text(13, "y = ReduceMean <axes = [1], keepdims = 0> (x)")
BRANCHES = _text(
    13,
    """y = If (c) <then_branch = t () => (float[2] a) { a = ReduceMean <axes = [1], keepdims = 0> (x) },
                   else_branch = e () => (float[2] b) { b = ReduceMax <axes = [1], keepdims = 0> (x) }>""",
    "bool c, float[2, 3] x) => (float[2] y",
)


def _outputs(model: Model) -> list[Array]:
    random = np.random.default_rng(1)
    feeds: dict[str, Array] = {"c": np.array(True)} if len(model.signature.inputs) > 1 else {}
    port = model.signature.inputs[-1]
    shape = [dim if isinstance(dim, int) else 2 for dim in port.shape or ()]
    feeds[port.name] = random.standard_normal(shape).astype(np.float32)
    return list(ReferenceEvaluator(onnx_ir.to_proto(model.graph)).run(None, feeds))


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (mlp(), [18, 21, 25]),
        (cnn(), [21, 23]),
        (MEAN, [17, 18, 21]),
        (BRANCHES, [17, 21]),
        (MEAN, [18, 17, 13]),
        (_text(21, "z = Flatten (x) y = Transpose (z)", "float[2, 3] x) => (float[3, 2] y"), [19, 17, 13]),
    ],
)
def test_conversion_keeps_answer_and_interface(model: Model, path: list[int]) -> None:
    before, signature = _outputs(model), model.signature
    assert np.ptp(before[0]) > 0

    for opset in path:
        graph = convert(model.graph, opset)
        model = Model(graph)
        assert graph.opset_imports[""] == opset
        assert checker_complaint(graph) is None
        assert model.signature == signature
        np.testing.assert_allclose(_outputs(model)[0], before[0], rtol=1e-5)


def test_axes_become_an_input_in_branches_too() -> None:
    branch = convert(BRANCHES.graph, 18).graph[0].attributes["then_branch"].as_graph()

    (mean,) = [node for node in branch if node.op_type == "ReduceMean"]
    assert "axes" not in mean.attributes
    assert len(mean.inputs) == 2


def test_other_domains_are_left_alone() -> None:
    model = from_text(
        """<ir_version: 8, opset_import: ["" : 17, "me" : 3]>
        g (float[2] x) => (float[2] y) { z = me.Secret <level = 2> (x) y = Relu (z) }"""
    )

    graph = convert(model.graph, 21)

    assert dict(graph.opset_imports) == {"": 21, "me": 3}
    assert Model(graph).operators == {"me::Secret": 1, "Relu": 1}


@pytest.mark.parametrize(
    ("model", "opset", "reason"),
    [
        (_text(20, "r = Gelu (x) y = ReduceMean <keepdims = 0> (r, axes)"), 17, "No Previous Version of Gelu exists"),
        (mlp(), 11, "No Adapter From Version $14 for Relu"),
        (MEAN, 999, "999"),
    ],
)
def test_refusal_gives_the_reason_and_changes_nothing(model: Model, opset: int, reason: str) -> None:
    before, have = Model(model.graph).digest, model.graph.opset_imports[""]

    with pytest.raises(PassError) as caught:
        convert(model.graph, opset)

    assert caught.value.what.startswith(f"the model cannot be converted from opset {have} to {opset}: ")
    assert reason in caught.value.what
    assert "\n" not in caught.value.what
    assert caught.value.hint == "try an opset in between, or export the model again with that opset"
    assert Model(model.graph).digest == before
