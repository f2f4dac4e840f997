"""A model that runs in torch as far as gradients pass, and in ONNX Runtime for the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir
import torch

from onnxopt.data.sample import Array
from onnxopt.lift.elementwise import ELEMENTWISE
from onnxopt.lift.layers import LAYERS
from onnxopt.lift.operator import Operator, Table, Tensor, cannot
from onnxopt.lift.recurrent import RECURRENT
from onnxopt.lift.resizing import RESIZING
from onnxopt.lift.shaping import SHAPING
from onnxopt.lift.single import SingleNode

OPERATORS: Table = {**ELEMENTWISE, **LAYERS, **RECURRENT, **RESIZING, **SHAPING}
"""Those that gradients pass through."""


class Lifted:
    """A graph whose weights are tensors of torch."""

    def __init__(self, graph: onnx_ir.Model, learning: Sequence[str]) -> None:
        """Make tensors of the weights.

        Args:
            graph: As ``prune.groups.prepared`` makes it: sorted, every weight an initializer.
            learning: Names of the initializers whose gradients are asked for.
        """
        self._graph = graph
        self._opsets = dict(graph.graph.opset_imports)
        self._singles: dict[onnx_ir.Node, SingleNode] = {}
        self.weights = {value.name or "": _weight(value) for value in graph.graph.initializers.values()}
        for name in learning:
            self.weights[name].requires_grad_()

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Tensor]:
        """Return the outputs by name; those that depend on learning weights carry gradients.

        Raises:
            EngineError: Gradients do not pass through a node.
        """
        known: dict[str, Tensor] = {**self.weights}
        known.update((name, torch.from_numpy(np.array(array))) for name, array in feeds.items())
        self._follow(self._graph.graph, known)
        return {value.name or "": known[value.name or ""] for value in self._graph.graph.outputs}

    def _follow(self, graph: onnx_ir.Graph, known: dict[str, Tensor]) -> None:
        for node in graph:
            inputs = [None if value is None or not value.name else known[value.name] for value in node.inputs]
            made = self._branch(node, inputs[0], known) if node.op_type == "If" else self._made(node, inputs)
            known.update((value.name or "", one) for value, one in zip(node.outputs, made, strict=False))

    def _branch(self, node: onnx_ir.Node, condition: Tensor, known: dict[str, Tensor]) -> list[Tensor]:
        branch = node.attributes["then_branch" if bool(condition) else "else_branch"].as_graph()
        inner = dict(known)
        inner.update((value.name or "", _weight(value)) for value in branch.initializers.values())
        self._follow(branch, inner)
        return [inner[value.name or ""] for value in branch.outputs]

    def _made(self, node: onnx_ir.Node, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return what a node makes: in torch where gradients pass."""
        if any(attribute.type in _GRAPHS for attribute in node.attributes.values()):
            raise cannot(node, "it has graphs of its own")
        learning = any(one is not None and one.requires_grad for one in inputs)
        standard = node.domain in ("", "ai.onnx") and node.op_type in OPERATORS
        if learning and standard and not _leaves_floats(node):
            made = OPERATORS[node.op_type](Operator(node, self._opsets[""]), *inputs)
            return list(made) if isinstance(made, list | tuple) else [made]
        if node not in self._singles:
            self._singles[node] = SingleNode(onnx_ir.to_proto(node), self._opsets)
        found = self._singles[node].run([None if one is None else one.detach().numpy() for one in inputs])
        made = [torch.from_numpy(np.array(one)) for one in found]
        if learning and any(one.is_floating_point() for one in made):
            raise cannot(node)
        outputs = iter(made)
        return [next(outputs) if value.name else None for value in node.outputs]


_GRAPHS = (onnx_ir.AttributeType.GRAPH, onnx_ir.AttributeType.GRAPHS)


def _leaves_floats(node: onnx_ir.Node) -> bool:
    """Whether a Cast makes what no gradient passes through."""
    return node.op_type == "Cast" and not onnx_ir.DataType(node.attributes["to"].as_int()).is_floating_point()


def _weight(value: onnx_ir.Value) -> Tensor:
    assert value.const_value is not None
    return torch.from_numpy(np.array(value.const_value.numpy()))
