"""Quantized models keep to the rules of the runtime they were made for, and the check tells where others do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest

from onnxopt.context import Context
from onnxopt.ir.model import Model, private_copy
from onnxopt.ir.weights import weight_value
from onnxopt.passes import make_pass
from onnxopt.quantize.conformance import complaints
from onnxopt.targets.kernels import kernels
from tests.graphs import attention_block, cnn, from_text, mlp, samples

F32 = np.float32


def _residual() -> Model:
    random = np.random.default_rng(0)
    return from_text(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[n, 4, 8, 8] x) => (float[n, 4, 4, 4] y) {
            a = Conv <pads = [1, 1, 1, 1]> (x, w, b) r = Relu (a)
            c = Conv <pads = [1, 1, 1, 1]> (r, v) s = Add (c, x) m = Mul (s, k)
            p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (m)
            j = Concat <axis = 1> (p, p) y = Conv (j, u)
        }""",
        {
            "w": random.standard_normal((4, 4, 3, 3)).astype(F32),
            "b": random.standard_normal(4).astype(F32),
            "v": random.standard_normal((4, 4, 3, 3)).astype(F32),
            "k": random.uniform(0.5, 2, (1, 4, 1, 1)).astype(F32),
            "u": random.standard_normal((4, 8, 1, 1)).astype(F32),
        },
    )


MODELS = {"cnn": cnn, "mlp": mlp, "attention": attention_block, "residual": _residual}


@pytest.mark.parametrize("scope", ["compute", "all"])
@pytest.mark.parametrize("runtime", ["ort", "openvino", "tensorrt"])
@pytest.mark.parametrize("name", MODELS)
def test_what_quantize_makes_keeps_to_the_rules(tmp_path: Path, name: str, runtime: str, scope: str) -> None:
    after = _quantized(MODELS[name](), tmp_path, runtime=runtime, scope=scope)
    assert complaints(after.graph, kernels(runtime)) == []


def test_another_runtimes_model_does_not(tmp_path: Path) -> None:
    for_ort = _quantized(_residual(), tmp_path, runtime="ort", scope="all")
    told = complaints(for_ort.graph, kernels("tensorrt"))
    assert any("activations are uint8, int8 is wanted" in text for text in told)
    assert any("a bias is quantized, and tensorrt wants it in float" in text for text in told)
    for_openvino = _quantized(cnn(), tmp_path, runtime="openvino")
    assert any("only if what it makes is rounded" in text for text in complaints(for_openvino.graph, kernels("ort")))


@pytest.mark.parametrize(
    ("name", "change", "text"),
    [
        ("w1_zero_point", lambda a: a + 1, "a zero point is not 0, which symmetric weights have"),
        ("b1_scale", lambda a: a * 2, "the scale of a bias is not the product of its layer's scales"),
    ],
)
def test_a_changed_number_is_found(tmp_path: Path, name: str, change: Any, text: str) -> None:
    graph = private_copy(_quantized(mlp(), tmp_path).graph)
    value = graph.graph.initializers[name]
    assert value.const_value is not None
    new = weight_value(name, change(value.const_value.numpy()).astype(value.const_value.numpy().dtype))
    value.const_value = new.const_value
    assert any(text in told for told in complaints(graph, kernels("ort")))


def test_a_scale_that_changes_on_the_way_is_found(tmp_path: Path) -> None:
    graph = private_copy(_quantized(_residual(), tmp_path, scope="all").graph)
    pool = next(node for node in graph.graph if node.op_type == "MaxPool")
    (rounding,) = [reader for reader, _ in pool.outputs[0].uses()]
    scale = weight_value("other", np.array(0.5, F32))
    graph.graph.register_initializer(scale)
    rounding.replace_input_with(1, scale)
    assert isinstance(rounding, onnx_ir.Node)
    assert any("its result has another scale" in told for told in complaints(graph, kernels("ort")))


def _quantized(model: Model, folder: Path, **options: Any) -> Model:
    ctx = Context.of(data=samples(model, 6), scratch=folder)
    return make_pass("quantize-static", options)(model, ctx)
