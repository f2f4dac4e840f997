"""A rule's test: the graph before, the graph after, and the numeric error."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir

from onnxopt.ir.model import Model, normalise, private_copy
from onnxopt.ir.shapes import infer_shapes
from onnxopt.rewrite.apply import Log, apply_rules
from onnxopt.rewrite.rule import Rule
from tests.graphs import answers, from_text, node_lines

F32 = np.float32


def random(*shape: int, seed: int = 0, dtype: type = F32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def model(signature: str, body: str, weights: Mapping[str, np.ndarray] | None = None, opset: int = 17) -> Model:
    return from_text(f'<ir_version: 8, opset_import: ["" : {opset}]> g {signature} {{ {body} }}', weights or {})


def rewritten(before: Model, *rules: Rule) -> tuple[Model, Log]:
    graph = private_copy(before.graph)
    infer_shapes(graph)
    log = apply_rules(graph, rules)
    normalise(graph)
    return Model(graph), log


def fires(rule: Rule, before: Model, after: list[str], tolerance: float = 0.0, **sizes: int) -> Model:
    """Assert that a rule turns one graph into another that computes the same, and return it."""
    changed = preserves(rule, before, tolerance, **sizes)
    assert node_lines(changed) == after
    return changed


def preserves(rule: Rule, before: Model, tolerance: float = 0.0, **sizes: int) -> Model:
    """Assert that a rule, and no other, fires and what comes out computes the same; return it."""
    changed, log = rewritten(before, rule)
    assert {fired.rule for fired in log.fired} == {rule.name}
    feeds = _feeds(before, sizes)
    want, have = answers(before, feeds), answers(changed, feeds)
    assert want.keys() == have.keys()
    for name, array in want.items():
        assert array.dtype == have[name].dtype
        np.testing.assert_allclose(
            have[name], array, rtol=tolerance, atol=tolerance * float(np.abs(array).max(initial=0))
        )
    assert changed.signature == before.signature
    return changed


def misses(rule: Rule, before: Model, reason: str | None) -> None:
    """Assert that a rule does not fire, and the reason it gives; None if it has nothing to say."""
    changed, log = rewritten(before, rule)
    assert node_lines(changed) == node_lines(before)
    assert [missed.reason for missed in log.missed.values()] == ([] if reason is None else [reason])


def _feeds(one: Model, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    feeds = {}
    for index, port in enumerate(one.signature.inputs):
        shape = [dim if isinstance(dim, int) else sizes.get(str(dim), 3) for dim in port.shape or ()]
        array = np.random.default_rng(index).standard_normal(shape)
        fit = array * 10 if "int" in port.dtype else array > 0 if port.dtype == "bool" else array
        feeds[port.name] = np.asarray(fit, port.dtype)
    return feeds


def kinds(graph: onnx_ir.Graph) -> list[str]:
    return [node.op_type for node in graph]
