"""Chains of matrix products, one of them bad in eight bits, and times of them that no machine disturbs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from onnxopt.data.sample import InMemory, Sample
from onnxopt.ir.model import Model
from onnxopt.ir.read import read_model
from tests.graphs import from_text

F32 = np.float32
WIDTH = 256


def steady_seconds(model: Path, *_: Any) -> dict[str, float]:
    """Return a millisecond for each product, a third of it in eight bits, whatever the machine does meanwhile."""
    nodes = [node for node in read_model(model).graph.graph if node.op_type == "MatMul"]
    makers = [(node, value.producer()) for node in nodes if (value := node.inputs[0]) is not None]
    return {
        node.name or "": 1e-3 / (3 if maker is not None and "Deq" in maker.op_type else 1) for node, maker in makers
    }


def product_weight(seed: int) -> Any:
    """Return a [WIDTH, WIDTH] weight that keeps the size of what it multiplies."""
    return (np.random.default_rng(seed).standard_normal((WIDTH, WIDTH)) / np.sqrt(WIDTH)).astype(F32)


def products() -> Model:
    """Return two products with a Tanh between."""
    return from_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 256] x) => (float[n, 256] y)'
        "{ a = MatMul (x, w) b = Tanh (a) y = MatMul (b, v) }",
        {"w": product_weight(0), "v": product_weight(1)},
    )


def with_outlier() -> Model:
    """Return three products; before the second, one channel is a thousand times larger, and its weights are tiny."""
    scale = np.ones(WIDTH, F32)
    scale[7] = 1000
    second = product_weight(1) / scale[:, None]
    return from_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 256] x) => (float[n, 256] y)'
        "{ a = MatMul (x, w) b = Tanh (a) c = Mul (b, s) d = MatMul (c, u) e = Tanh (d) y = MatMul (e, v) }",
        {"w": product_weight(0), "s": scale, "u": second, "v": product_weight(2)},
    )


def wide_samples(count: int) -> InMemory:
    """Return samples for either."""
    random = np.random.default_rng(5)
    return InMemory(tuple(Sample(str(i), {"x": random.standard_normal((64, WIDTH)).astype(F32)}) for i in range(count)))
