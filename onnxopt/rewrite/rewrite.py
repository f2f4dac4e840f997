"""The pass ``rewrite``: rules to a fixpoint, each application held to computing the same."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import ClassVar, Literal

import onnx_ir
import onnx_ir.passes.common as onnx_ir_passes

from onnxopt.context import Context, Use
from onnxopt.errors import PassError, did_you_mean
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
from onnxopt.rewrite.apply import Log
from onnxopt.rewrite.checked import CheckedRewriter, GraphStep
from onnxopt.rewrite.rule import Rule
from onnxopt.rewrite.rules import FAMILIES, rules_by_name


@options
class Rewrite(Pass):
    """Make the graph smaller by rules, until none fires; an application that changes the answer is found and undone."""

    name: ClassVar[str] = "rewrite"
    uses: ClassVar[frozenset[Use]] = frozenset({"data", "scratch"})
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "onnx-ir", "onnxscript", "onnxruntime")

    level: Literal["portable"] = option("portable: standard operators only", default="portable")
    only: tuple[str, ...] = option("rules or families to apply; all if none are given", default=())
    skip: tuple[str, ...] = option("rules or families to leave out", default=())
    growth: int = option("bytes one folded tensor may add to the file", default=65536, ge=0)
    rounds: int = option("repeat until nothing changes, at most so often", default=6, ge=1)

    def requires(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Refuse names that are no rule and no family."""
        known = {*FAMILIES, *rules_by_name()}
        for name in (*self.only, *self.skip):
            if name not in known:
                raise PassError(f"there is no rule or family {name!r}", hint=did_you_mean(name, known))

    def edit(self, graph: onnx_ir.Model, ctx: Context) -> onnx_ir.Model:
        """Return the smallest model the rules lead to."""
        return rewritten(Model(graph), self, ctx)[0].graph

    def rules(self) -> list[Rule]:
        """Return the rules asked for, in order."""
        return [
            rule
            for family, rules in FAMILIES.items()
            for rule in rules
            if (not self.only or {family, rule.name} & set(self.only)) and not {family, rule.name} & set(self.skip)
        ]


def rewritten(model: Model, how: Rewrite, ctx: Context) -> tuple[Model, Log]:
    """Return the rewritten model, and what fired and what nearly did."""
    steps = _housekeeping(how.growth)
    with closing(CheckedRewriter(model.graph, ctx)) as rewriter:
        for _ in range(how.rounds):
            after = rewriter.apply_rules(rewriter.apply(model, steps), how.rules())
            if after.digest == model.digest:
                break
            model = after
        return rewriter.apply(model, steps), rewriter.log


def _housekeeping(growth: int) -> list[GraphStep]:
    """Return what needs no rule: it looks at the whole graph."""
    return [
        GraphStep("freeze weights", freeze_weights),
        GraphStep("inline functions", _inline),
        GraphStep("fold constants", partial(fold, growth=growth)),
        GraphStep("remove identities", remove_identities),
        GraphStep("lift constants", lift_constants),
        GraphStep("merge equal weights", merge_equal_weights),
        GraphStep("merge equal nodes", merge_equal_nodes),
        GraphStep("remove unused", remove_unused),
    ]


def _inline(graph: onnx_ir.Model) -> None:
    onnx_ir_passes.InlinePass()(graph)
