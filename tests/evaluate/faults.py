"""A model in several guises, and the mistakes a rewrite may make in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np
import onnx_ir

from onnxopt.context import Context
from onnxopt.ir.model import Model
from onnxopt.passes import Pass, options
from tests.graphs import from_text

Mistake = Callable[[onnx_ir.Model], None]

_ENDINGS = {
    "plain": "scores = Mul (centred, one)",
    "tiny": "scores = Mul (centred, tiny)",
    "offset": "scores = Add (centred, large)",
    "float16": "scores = Mul (centred, one)",
}


def network(guise: str, dtype: type[np.floating] = np.float32) -> Model:
    """Return ``image [batch, 3, 8, 8] -> Conv -> LeakyRelu -> pool -> Gemm -> Sub -> scores [batch, 4]``.

    Guises: ``plain``; ``tiny``, all scores times 1e-7; ``offset``, plus 200; ``single``, one number for all;
    ``float16``, weights and activations.
    """
    kind = {np.float32: "float", np.float16: "float16"}[np.float16 if guise == "float16" else dtype]
    random = np.random.default_rng(7)
    shape = "" if guise == "single" else "[batch, 4]"
    ending = "scores = ReduceSum <keepdims = 0> (centred)" if guise == "single" else _ENDINGS[guise]
    weights = {
        "w1": random.standard_normal((6, 3, 3, 3)) / 5,
        "b1": random.standard_normal(6),
        "w2": random.standard_normal((96, 4)) / 10,
        "b2": random.standard_normal(4),
        "shift": random.standard_normal(4),
        "one": np.ones(1),
        "tiny": np.full(1, 1e-7),
        "large": np.full(1, 200.0),
    }
    used = {name: array.astype(np.float16 if kind == "float16" else dtype) for name, array in weights.items()}
    return from_text(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        network ({kind}[batch, 3, 8, 8] image) => ({kind}{shape} scores) {{
            mixed = Conv <pads = [1, 1, 1, 1]> (image, w1, b1)
            active = LeakyRelu <alpha = 0.1> (mixed)
            pooled = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (active)
            flat = Reshape (pooled, size)
            dense = Gemm (flat, w2, b2)
            centred = Sub (dense, shift)
            {ending}
        }}""",
        {**used, "size": np.array([-1, 96])},
    )


def wrong_weight(graph: onnx_ir.Model) -> None:
    """Turn the sign of one of 384 weights, the largest."""
    value = graph.graph.initializers["w2"]
    assert value.const_value is not None
    array = value.const_value.numpy().copy()
    array.flat[np.abs(array).argmax()] *= -1
    value.const_value = onnx_ir.tensor(array, name="w2")


def swapped_inputs(graph: onnx_ir.Model) -> None:
    node = made_by(graph, "centred")
    first, second = node.inputs
    node.replace_input_with(0, second)
    node.replace_input_with(1, first)


def dropped_bias(graph: onnx_ir.Model) -> None:
    made_by(graph, "mixed").replace_input_with(2, None)


def changed_attribute(graph: onnx_ir.Model) -> None:
    made_by(graph, "active").attributes["alpha"] = onnx_ir.AttrFloat32("alpha", 0.11)


def fixed_batch(graph: onnx_ir.Model) -> None:
    graph.graph.initializers["size"].const_value = onnx_ir.tensor(np.array([2, 96]), name="size")


MISTAKES: Mapping[str, tuple[Mistake, str]] = {
    "wrong-weight": (wrong_weight, "(Gemm), value 'dense'"),
    "swapped-inputs": (swapped_inputs, "(Sub), value 'centred'"),
    "dropped-bias": (dropped_bias, "(Conv), value 'mixed'"),
    "changed-attribute": (changed_attribute, "(LeakyRelu), value 'active'"),
}
"""Each mistake with the first node and value it shows at."""


def made_by(graph: onnx_ir.Model, name: str) -> onnx_ir.Node:
    """Return the node that makes a value."""
    return next(node for node in graph.graph if node.outputs[0].name == name)


def mistaken(model: Model, mistake: Mistake) -> Model:
    """Return the model after a pass that makes a mistake; every check of a pass has let it through."""

    @options
    class Broken(Pass):
        """Make the mistake."""

        name: ClassVar[str] = "broken"

        def edit(self, graph: onnx_ir.Model, ctx: Context) -> None:
            """Make it."""
            mistake(graph)

    after = Broken()(model, Context.of())
    assert after.digest != model.digest
    return after
