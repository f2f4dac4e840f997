"""Which outputs answer by their argmax."""

from __future__ import annotations

import pytest

from onnxopt.ir.outputs import classifier_outputs
from tests.graphs import from_text


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("y = Softmax (x) z = Relu (x)", {"y"}),
        ("y = LogSoftmax (x) z = ArgMax (x)", {"y", "z"}),
        ("s = Softmax (x) y = Cast <to = 10> (s) i = Identity (y) z = Flatten (i)", {"y", "z"}),
        ("s = Softmax (x) y = Mul (s, x) z = Sigmoid (x)", set()),
        ("s = Softmax (x) k = Constant <value_ints = [-1]> () y = Reshape (s, k) z = Reshape (x, k)", {"y"}),
    ],
)
def test_classifier_outputs(body: str, found: set[str]) -> None:
    model = from_text(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[2, 3] x) => (float[a] y, float[b] z) {{ {body} }}'
    )

    assert classifier_outputs(model.graph.graph) == found


def test_an_input_that_is_an_output_is_no_answer() -> None:
    model = from_text('<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] x) { y = Softmax (x) }')

    assert classifier_outputs(model.graph.graph) == frozenset()
