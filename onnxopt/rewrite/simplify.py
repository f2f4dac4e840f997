"""The pass ``simplify``: everything that makes a graph smaller without changing what it computes."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import ClassVar, Literal

import onnx_ir
import onnx_ir.passes.common as onnx_ir_passes
import onnxscript.rewriter

from onnxopt.context import Context, Use
from onnxopt.ir.cleanup import (
    freeze_weights,
    lift_constants,
    merge_equal_nodes,
    merge_equal_weights,
    remove_identities,
    remove_unused,
)
from onnxopt.ir.fold import fold
from onnxopt.ir.model import Model
from onnxopt.passes import Pass, option, options
from onnxopt.rewrite.checked import CheckedRewriter, GraphStep
from onnxopt.rewrite.simplifiers import is_installed, run_simplifier


@options
class Simplify(Pass):
    """Fold constants, remove dead and duplicate nodes, fuse what onnxscript's rules fuse; each step verified."""

    name: ClassVar[str] = "simplify"
    uses: ClassVar[frozenset[Use]] = frozenset({"data", "scratch"})
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "onnx-ir", "onnxscript", "onnxslim", "onnxsim", "onnxruntime")

    growth: int = option("bytes one folded tensor may add to the file", default=65536, ge=0)
    tools: tuple[Literal["onnxslim", "onnxsim"], ...] = option(
        "other simplifiers to try afterwards; a result is taken if it has fewer nodes and computes the same",
        default=("onnxslim",),
    )
    rounds: int = option("repeat until nothing changes, at most so often", default=4, ge=1)

    def edit(self, graph: onnx_ir.Model, ctx: Context) -> onnx_ir.Model:
        """Return the smallest model found that computes the same."""
        with closing(CheckedRewriter(graph, ctx)) as rewriter:
            return self._smallest(Model(graph), rewriter, ctx).graph

    def _smallest(self, model: Model, rewriter: CheckedRewriter, ctx: Context) -> Model:
        model = self._to_fixpoint(model, rewriter)
        for tool in self.tools:
            if is_installed(tool):
                step = GraphStep(tool, partial(run_simplifier, tool, folder=ctx.scratch))
                tried = self._to_fixpoint(rewriter.apply(model, [step]), rewriter)
                model = min(model, tried, key=lambda m: m.nodes)
        return model

    def _to_fixpoint(self, model: Model, rewriter: CheckedRewriter) -> Model:
        for _ in range(self.rounds):
            after = rewriter.apply(model, self._steps())
            if after.digest == model.digest:
                break
            model = after
        return model

    def _steps(self) -> list[GraphStep]:
        return [
            GraphStep("freeze weights", freeze_weights),
            GraphStep("inline functions", _inline),
            GraphStep("fold constants", lambda graph: fold(graph, self.growth)),
            GraphStep("fuse by rules", onnxscript.rewriter.rewrite),
            GraphStep("remove identities", remove_identities),
            GraphStep("lift constants", lift_constants),
            GraphStep("merge equal weights", merge_equal_weights),
            GraphStep("merge equal nodes", merge_equal_nodes),
            GraphStep("remove unused", remove_unused),
        ]


def _inline(graph: onnx_ir.Model) -> None:
    onnx_ir_passes.InlinePass()(graph)
