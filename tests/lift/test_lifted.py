"""Every operator gradients pass through, against the cases ONNX itself is tested by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from onnxopt.errors import EngineError  # noqa: E402
from onnxopt.lift.lifted import OPERATORS, Lifted  # noqa: E402
from onnxopt.lift.single import SingleNode  # noqa: E402

_LEFT_OUT = {
    "test_batchnorm_epsilon_training_mode": "training",
    "test_batchnorm_example_training_mode": "training",
    "test_resize_downsample_scales_cubic_align_corners": "ONNX Runtime answers otherwise, and models run there",
    "test_resize_downsample_scales_linear_align_corners": "ONNX Runtime answers otherwise, and models run there",
    "test_reduce_max_empty_set": "nothing to choose from",
    "test_reduce_min_empty_set": "nothing to choose from",
}
"""Cases that are about what an inference has not."""

_FLOATS = (np.float32, np.float64)


@cache
def _cases() -> dict[str, list[Any]]:
    """Return ONNX's own cases of one node with floats, by operator."""
    cases = pytest.importorskip("onnx.backend.test.case.node", reason="this onnx ships no cases")
    found: dict[str, list[Any]] = {name: [] for name in OPERATORS}
    for case in cases.collect_testcases(None):
        nodes = case.model.graph.node
        if len(nodes) != 1 or nodes[0].op_type not in OPERATORS or nodes[0].domain not in ("", "ai.onnx"):
            continue
        given = [one for inputs, _ in case.data_sets for one in inputs if isinstance(one, np.ndarray)]
        if any(one.dtype in _FLOATS for one in given) and case.name not in _LEFT_OUT:
            found[nodes[0].op_type].append(case)
    return found


def _lifted(model: onnx.ModelProto, names: list[str], arrays: list[Any]) -> tuple[Lifted, dict[str, Any]]:
    """Return a model whose float inputs learn, and what is left to feed."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    learning = [name for name, array in zip(names, arrays, strict=True) if array.dtype in _FLOATS]
    known = dict(zip(names, arrays, strict=True))
    for value in [value for value in model.graph.input if value.name in learning]:
        model.graph.input.remove(value)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(known[name], name) for name in learning)
    rest = {name: array for name, array in known.items() if name not in learning}
    return Lifted(onnx_ir.from_proto(model), learning), rest


def _runs(operator: str) -> Iterator[tuple[str, list[Any], dict[str, Any]]]:
    for case in _cases()[operator]:
        names = [value.name for value in case.model.graph.input]
        for inputs, outputs in case.data_sets:
            lifted, rest = _lifted(case.model, names, list(inputs))
            with suppress(EngineError):  # some are refused by name; the test asks that others are not
                yield case.name, list(outputs), lifted.run(rest)


@pytest.mark.parametrize("operator", sorted(OPERATORS))
def test_an_operator_computes_what_onnx_says(operator):
    checked = 0
    for name, wanted, made in _runs(operator):
        for expected, found in zip(wanted, made.values(), strict=True):
            np.testing.assert_allclose(found.detach().numpy(), np.array(expected), rtol=1e-3, atol=1e-5, err_msg=name)
            assert found.dtype == torch.from_numpy(np.array(expected)).dtype
        checked += any(found.requires_grad for found in made.values())
    if not checked:
        pytest.skip(f"this onnx has no case of {operator} alone")


@pytest.mark.parametrize("axis", [-1, 1])
def test_layer_normalization_computes_what_onnx_runtime_does(axis):
    shape = (2, 3, 4)
    random = np.random.default_rng(0)
    node = onnx.helper.make_node("LayerNormalization", ["x", "scale", "bias"], ["y"], axis=axis, epsilon=1e-3)
    names, shapes = ["x", "scale", "bias"], [shape, shape[axis:], shape[axis:]]
    arrays = [random.standard_normal(one).astype(np.float32) for one in shapes]
    float32 = onnx.TensorProto.FLOAT
    given = [onnx.helper.make_tensor_value_info(name, float32, one) for name, one in zip(names, shapes, strict=True)]
    graph = onnx.helper.make_graph([node], "net", given, [onnx.helper.make_tensor_value_info("y", float32, shape)])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    lifted, rest = _lifted(model, names, arrays)
    wanted = SingleNode(node, {"": 17}).run(arrays)[0]
    made = lifted.run(rest)["y"]
    assert made.requires_grad
    np.testing.assert_allclose(made.detach().numpy(), wanted, rtol=1e-4, atol=1e-5)
