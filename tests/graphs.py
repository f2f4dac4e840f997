"""Small models that tests are made of, built in code or from ONNX's text form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir
import onnxruntime

from onnxopt.data.sample import InMemory, Sample
from onnxopt.ir.model import Model, normalise
from onnxopt.ir.write import write_model

Array = np.ndarray[Any, Any]


def from_text(text: str, weights: Mapping[str, Array] | None = None) -> Model:
    """Return a model in ONNX's text form, with the given arrays as initializers."""
    proto = onnx.parser.parse_model(text)
    for name, array in (weights or {}).items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    graph = onnx_ir.from_proto(proto)
    normalise(graph)
    return Model(graph)


def mlp(seed: int = 0, width: int = 16, classes: int = 4) -> Model:
    """Return ``x [batch, 8] -> Gemm -> Relu -> Gemm -> Softmax -> y [batch, classes]``."""
    random = np.random.default_rng(seed)
    return from_text(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        mlp (float[batch, 8] x) => (float[batch, {classes}] y) {{
            hidden = Gemm (x, w1, b1)
            active = Relu (hidden)
            logits = Gemm (active, w2, b2)
            y = Softmax <axis = -1> (logits)
        }}""",
        {
            "w1": random.standard_normal((8, width)).astype(np.float32),
            "b1": random.standard_normal(width).astype(np.float32),
            "w2": random.standard_normal((width, classes)).astype(np.float32),
            "b2": random.standard_normal(classes).astype(np.float32),
        },
    )


def cnn(seed: int = 0) -> Model:
    """Return ``image [batch, 3, 8, 8] -> Conv -> BatchNorm -> Relu -> Conv -> pool -> scores [batch, 5]``."""
    random = np.random.default_rng(seed)
    return from_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        cnn (float[batch, 3, 8, 8] image) => (float[batch, 5] scores) {
            c1 = Conv <pads = [1, 1, 1, 1]> (image, w1)
            n1 = BatchNormalization <epsilon = 1.0e-5> (c1, scale, shift, mean, var)
            r1 = Relu (n1)
            c2 = Conv <strides = [2, 2]> (r1, w2, b2)
            p = GlobalAveragePool (c2)
            scores = Flatten (p)
        }""",
        {
            "w1": random.standard_normal((6, 3, 3, 3)).astype(np.float32),
            "scale": random.uniform(0.5, 1.5, 6).astype(np.float32),
            "shift": random.standard_normal(6).astype(np.float32),
            "mean": random.standard_normal(6).astype(np.float32),
            "var": random.uniform(0.5, 1.5, 6).astype(np.float32),
            "w2": random.standard_normal((5, 6, 3, 3)).astype(np.float32),
            "b2": random.standard_normal(5).astype(np.float32),
        },
    )


def attention_block(seed: int = 0) -> Model:
    """Return ``x [batch, 6, 16] -> 2-head self-attention, added to x -> LayerNormalization -> y [batch, 6, 16]``."""
    random = np.random.default_rng(seed)
    heads = [
        f"{h}0 = MatMul (x, w{h}) {h}1 = Add (b{h}, {h}0) {h}2 = Reshape ({h}1, split)"
        f" {h} = Transpose <perm = {p}> ({h}2)"
        for h, p in (("q", "[0, 2, 1, 3]"), ("k", "[0, 2, 3, 1]"), ("v", "[0, 2, 1, 3]"))
    ]
    weights = {f"w{h}": random.standard_normal((16, 16)).astype(np.float32) / 4 for h in "qkvo"}
    weights |= {f"b{h}": random.standard_normal(16).astype(np.float32) for h in "qkvo"}
    return from_text(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        block (float[batch, 6, 16] x) => (float[batch, 6, 16] y) {{
            {" ".join(heads)}
            s = MatMul (q, k) d = Div (s, root) p = Softmax <axis = -1> (d) c = MatMul (p, v)
            t = Transpose <perm = [0, 2, 1, 3]> (c) r = Reshape (t, join)
            o0 = MatMul (r, wo) o = Add (bo, o0) a = Add (o, x)
            y = LayerNormalization <axis = -1> (a, g, h)
        }}""",
        weights
        | {
            "split": np.array([0, 0, 2, 8]),
            "join": np.array([0, 0, 16]),
            "root": np.array(np.sqrt(8), np.float32),
            "g": random.uniform(0.5, 1.5, 16).astype(np.float32),
            "h": random.standard_normal(16).astype(np.float32),
        },
    )


def saved(model: Model, path: Path) -> Path:
    """Write a model and return its path."""
    return write_model(model, path)[0]


def samples(model: Model, count: int = 12, *, batch: int = 2, labels: bool = False, seed: int = 0) -> InMemory:
    """Return random samples for a model of float inputs; labels are the classes the model itself finds likeliest."""
    random = np.random.default_rng(seed)
    made = []
    for index in range(count):
        feeds = {
            port.name: random.standard_normal([d if isinstance(d, int) else batch for d in port.shape or ()]).astype(
                np.float32
            )
            for port in model.signature.inputs
        }
        label = next(iter(answers(model, feeds).values())).argmax(-1) if labels else None
        made.append(Sample(f"sample {index}", feeds, label))
    return InMemory(tuple(made))


def node_lines(model: Model) -> list[str]:
    """Return the nodes of the main graph as ``outputs = Operator (inputs)``."""
    return [f"{_names(node.outputs)} = {node.op_type} ({_names(node.inputs)})" for node in model.graph.graph]


def answers(model: Model, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Return what onnxruntime computes without optimising the graph."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        onnx_ir.to_proto(model.graph).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def _names(values: Iterable[onnx_ir.Value | None]) -> str:
    return ", ".join(value.name or "" if value else "" for value in values)
