"""Small passes that remove what a graph does not need."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir

from onnxopt.context import Context
from onnxopt.ir.cleanup import (
    freeze_weights,
    lift_constants,
    merge_equal_nodes,
    merge_equal_weights,
    remove_identities,
    remove_unused,
)
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
