"""Small passes that remove what a graph does not need."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir
import onnx_ir.passes.common as onnx_ir_passes

from onnxopt.context import Context
from onnxopt.ir.traverse import all_graphs
from onnxopt.passes import Pass, options


@options
class FreezeWeights(Pass):
    """Stop listing weights as graph inputs, where runtimes must expect them to be overridden and fuse nothing."""

    name: ClassVar[str] = "freeze-weights"

    def edit(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Drop every graph input that has a default."""
        freeze_weights(graph)


@options
class LiftConstants(Pass):
    """Turn Constant nodes into initializers, those in branches too."""

    name: ClassVar[str] = "lift-constants"

    def edit(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Move each Constant node's tensor to the initializers of its graph."""
        lift_constants(graph)


@options
class RemoveUnused(Pass):
    """Remove nodes, initializers, functions and opset imports that no output needs; inputs always stay."""

    name: ClassVar[str] = "remove-unused"

    def edit(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Remove them."""
        remove_unused(graph)


@options
class RemoveIdentities(Pass):
    """Remove Identity nodes, except where an output is an input's copy."""

    name: ClassVar[str] = "remove-identities"

    def edit(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Let readers of an Identity's output read its input."""
        remove_identities(graph)


@options
class MergeDuplicates(Pass):
    """Keep one of several nodes that compute the same, and one of several equal weights."""

    name: ClassVar[str] = "merge-duplicates"

    def edit(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Merge weights first: nodes are the same only if they read the same values."""
        merge_equal_weights(graph)
        merge_equal_nodes(graph)


def freeze_weights(graph: onnx_ir.Model) -> None:
    """Drop graph inputs that have a default, in place; IR version 4 is the first that allows it (ONNX IR spec)."""
    if any(value.is_initializer() for value in graph.graph.inputs):
        onnx_ir_passes.RemoveInitializersFromInputsPass()(graph)
        graph.ir_version = max(graph.ir_version or 0, 4)


def lift_constants(graph: onnx_ir.Model) -> None:
    """Turn Constant nodes of every graph into initializers, in place."""
    onnx_ir_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph)


def remove_identities(graph: onnx_ir.Model) -> None:
    """Remove Identity nodes, in place."""
    onnx_ir_passes.IdentityEliminationPass()(graph)


def merge_equal_weights(graph: onnx_ir.Model) -> None:
    """Keep one of several equal weights, in place."""
    onnx_ir_passes.DeduplicateHashedInitializersPass()(graph)


def merge_equal_nodes(graph: onnx_ir.Model) -> None:
    """Keep one of several nodes that compute the same, in place."""
    onnx_ir_passes.CommonSubexpressionEliminationPass()(graph)


def remove_unused(graph: onnx_ir.Model) -> None:
    """Remove whatever no output needs, in place; inputs stay, for they are the interface."""
    inputs = list(graph.graph.inputs)
    onnx_ir_passes.RemoveUnusedNodesPass()(graph)
    onnx_ir_passes.RemoveUnusedFunctionsPass()(graph)  # type: ignore[no-untyped-call]
    onnx_ir_passes.RemoveUnusedOpsetsPass()(graph)
    if list(graph.graph.inputs) != inputs:
        graph.graph.inputs[:] = inputs
    for one in all_graphs(graph):
        for name in [name for name, value in one.initializers.items() if _unused(value)]:
            del one.initializers[name]


def _unused(value: onnx_ir.Value) -> bool:
    return not value.uses() and not value.is_graph_output() and not value.is_graph_input()
