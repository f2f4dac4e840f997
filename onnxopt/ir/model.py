"""The one value that flows: a graph and where it came from."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import onnx_ir
import onnx_ir.passes.common as onnx_ir_passes

from onnxopt.errors import ModelError
from onnxopt.ir.digest import model_digest
from onnxopt.ir.dtypes import type_name
from onnxopt.ir.signature import Dim, Port, Signature
from onnxopt.ir.traverse import all_graphs, all_nodes, subgraphs


@dataclass(frozen=True, slots=True)
class Step:
    """One entry of a model's lineage.

    Attributes:
        name: The pass that ran, or ``read`` for the file the model came from.
        options: The pass's options, or the file's path.
        digest: The model's digest after the step.
    """

    name: str
    options: Mapping[str, Any]
    digest: str


@dataclass(frozen=True, eq=False)
class Model:
    """An ONNX model. Nothing but a pass makes a new one from it, and nothing writes into this one.

    Attributes:
        graph: The model, sorted and with unique names (see ``normalise``).
        lineage: What was done to it, first to last.
    """

    graph: onnx_ir.Model
    lineage: tuple[Step, ...] = field(default=())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content."""
        return model_digest(self.graph)

    @cached_property
    def signature(self) -> Signature:
        """Names, dtypes and shapes of what goes in and comes out."""
        return graph_signature(self.graph.graph)

    @cached_property
    def nodes(self) -> int:
        """Number of nodes, those in branches and functions too."""
        return sum(1 for _ in all_nodes(self.graph))

    @cached_property
    def operators(self) -> dict[str, int]:
        """Number of nodes of each operator type, the most frequent first; other domains as ``domain::type``."""
        counts = Counter(
            node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"
            for node in all_nodes(self.graph)
        )
        return dict(counts.most_common())

    def __repr__(self) -> str:
        return f"Model({self.graph.graph.name!r}, {self.nodes} nodes, {self.digest[:12]})"


def graph_signature(graph: onnx_ir.Graph) -> Signature:
    """Return a graph's interface; an input that has a default (an initializer of its name) is not part of it."""
    inputs = [value for value in graph.inputs if not value.is_initializer()]
    return Signature(_ports(inputs), _ports(graph.outputs))


def normalise(graph: onnx_ir.Model, where: str | None = None) -> None:
    """Sort the nodes (stable) and give every node and value a unique name, in place.

    Args:
        graph: The model.
        where: Its file, for errors.

    Raises:
        ModelError: If the nodes form a cycle.
    """
    try:
        graph.graph.sort()
        for function in graph.functions.values():
            function.sort()
    except ValueError as error:
        raise ModelError("the graph has a cycle", where=where, hint="export the model again") from error
    onnx_ir_passes.NameFixPass()(graph)
    for root in (graph.graph, *(function.graph for function in graph.functions.values())):
        _rename_inner(root, frozenset())


def _rename_inner(graph: onnx_ir.Graph, outer: frozenset[str | None]) -> None:
    """Rename values of branches and loops that have the name of one outside, even of one that comes later.

    Names must be unique over a graph and what is in it (ONNX IR, Names within a graph); onnx-ir sees to those before.
    """
    own = [*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)]
    taken = {*outer, *(value.name for value in own)}
    for value in own if outer else ():
        if value.name in outer:
            value.name = _free(value.name or "value", taken)
            taken.add(value.name)
    for node in graph:
        for inner in subgraphs(node):
            _rename_inner(inner, frozenset(taken))


def _free(name: str, taken: Collection[str | None]) -> str:
    return next(found for count in itertools.count(1) if (found := f"{name}_inner_{count}") not in taken)


def private_copy(graph: onnx_ir.Model) -> onnx_ir.Model:
    """Return a copy that shares tensors only; onnx-ir's ``clone`` shares the types of values too, and they change."""
    clone = graph.clone()
    for one in all_graphs(clone):
        for value in (*one.inputs, *one.initializers.values(), *(value for node in one for value in node.outputs)):
            value.type = _own(value.type)
    return clone


def _own(kind: onnx_ir.TypeProtocol | None) -> onnx_ir.TypeProtocol | None:
    """Return a copy of a type; the usual one without ``deepcopy``, which takes as long as all the rest of a clone."""
    if type(kind) is onnx_ir.TensorType:
        return onnx_ir.TensorType(kind.dtype, denotation=kind.denotation)
    return deepcopy(kind)


def _ports(values: Iterable[onnx_ir.Value]) -> tuple[Port, ...]:
    return tuple(Port(value.name or "", type_name(value), _dims(value.shape)) for value in values)


def _dims(shape: onnx_ir.Shape | None) -> tuple[Dim, ...] | None:
    if shape is None:
        return None
    return tuple(_dim(dim) for dim in shape)


def _dim(dim: int | onnx_ir.SymbolicDim) -> Dim:
    """Return a dimension; exporters write an unknown one as -1 or "?" too."""
    if isinstance(dim, int):
        return dim if dim >= 0 else None
    return None if dim.value in (None, "", "?") else dim.value
