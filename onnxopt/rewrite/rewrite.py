"""The pass ``rewrite``: rules to a fixpoint, each application held to computing the same."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import onnx_ir
import onnx_ir.passes.common as onnx_ir_passes

from onnxopt.context import Context, Use
from onnxopt.errors import UsageError, did_you_mean
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
from onnxopt.ir.shapes import forget_other_shapes
from onnxopt.ir.traverse import all_graphs
from onnxopt.passes import Pass, option, options
from onnxopt.rewrite.checked import Check, CheckedRewriter, GraphStep
from onnxopt.rewrite.rule import Rule
from onnxopt.rewrite.rules import FAMILIES, ON_REQUEST, rules_by_name
from onnxopt.rewrite.simplifiers import FUSERS, Simplifier, is_installed, run_fuser, run_simplifier


@options
class Rewrite(Pass):
    """Make the graph smaller by rules, until none fires; an application that changes the answer is found and undone."""

    name: ClassVar[str] = "rewrite"
    uses: ClassVar[frozenset[Use]] = frozenset({"data", "scratch"})
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "onnx-ir", "onnxscript", "onnxslim", "onnxsim", "onnxruntime")

    level: Literal["portable", "runtime"] = option(
        "portable: standard operators only; runtime: ONNX Runtime's own too, such as its fused attention",
        default="portable",
    )
    only: tuple[str, ...] = option("rules or families to apply; all if none are given", default=())
    skip: tuple[str, ...] = option("rules or families to leave out", default=())
    also: tuple[str, ...] = option("families to apply that are left out unless they are named", default=())
    growth: int = option("bytes one folded tensor may add to the file", default=65536, ge=0)
    tools: tuple[Simplifier, ...] = option(
        "other simplifiers to try afterwards; a result is taken if it has fewer nodes and computes the same", default=()
    )
    rounds: int = option("repeat until nothing changes, at most so often", default=6, ge=1)
    check: Check = option(
        "compare answers after each round: always; if-possible, going on where they show nothing; or never",
        default="always",
    )

    @classmethod
    def rules(cls) -> Mapping[str, str]:
        """Return what each rule does."""
        return {name: inspect.getdoc(rule) or "" for name, rule in rules_by_name().items()}

    def requires(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Refuse names that are no rule and no family."""
        known = {*FAMILIES, *rules_by_name()}
        for name in (*self.only, *self.skip, *self.also):
            if name not in known:
                raise UsageError(f"there is no rule or family {name!r}", hint=did_you_mean(name, known))

    def edit(self, graph: onnx_ir.Model, ctx: Context) -> onnx_ir.Model:
        """Return the smallest model the rules lead to, and tell where they fired and where they nearly did."""
        with closing(CheckedRewriter(graph, ctx, self.check)) as rewriter:
            smallest = self._smallest(Model(graph), rewriter, ctx).graph
        rewriter.log.tell(ctx.emit)
        return smallest if smallest is graph else forget_other_shapes(smallest, _with_shapes(graph))

    def _smallest(self, model: Model, rewriter: CheckedRewriter, ctx: Context) -> Model:
        model = self._to_fixpoint(model, rewriter)
        for step in self._others(ctx.scratch):
            tried = rewriter.apply(model, [step])
            if tried.digest != model.digest:
                model = min(model, self._to_fixpoint(tried, rewriter), key=lambda m: m.nodes)
        return model

    def _to_fixpoint(self, model: Model, rewriter: CheckedRewriter) -> Model:
        rules = self._chosen()
        for count in range(self.rounds):
            steps = (*_computing_steps(self.growth, infer=count == 0), *_TIDYING_STEPS)
            after = rewriter.apply(model, steps, rules, _TIDYING_STEPS)
            if after.digest == model.digest:
                break
            model = after
        return model

    def _others(self, folder: Path) -> Iterator[GraphStep]:
        """Yield what other projects may do better."""
        for tool in filter(is_installed, self.tools):
            yield GraphStep(tool, partial(run_simplifier, tool, folder=folder))
        for kind in FUSERS if self.level == "runtime" else ():
            yield GraphStep(f"onnxruntime.transformers {kind}", partial(run_fuser, kind, folder=folder))

    def _chosen(self) -> list[Rule]:
        """Return the rules asked for, in order."""
        only = set(self.only) or (set(FAMILIES) - ON_REQUEST | set(self.also))
        return [
            rule
            for family, rules in FAMILIES.items()
            for rule in rules
            if {family, rule.name} & only and not {family, rule.name} & set(self.skip)
        ]


def _with_shapes(graph: onnx_ir.Model) -> frozenset[str | None]:
    """Return the names of values whose shapes a model tells."""
    values = (value for one in all_graphs(graph) for node in one for value in node.outputs)
    return frozenset(value.name for value in values if value.shape is not None)


def _inline(graph: onnx_ir.Model) -> None:
    onnx_ir_passes.InlinePass()(graph)


def _computing_steps(growth: int, *, infer: bool) -> tuple[GraphStep, ...]:
    """Return what needs no rule, because it looks at the whole graph, and makes work for rules."""
    return (
        GraphStep("freeze weights", freeze_weights),
        GraphStep("inline functions", _inline),
        GraphStep("fold constants", partial(fold, growth=growth, infer=infer)),
    )


_TIDYING_STEPS = (
    GraphStep("remove identities", remove_identities),
    GraphStep("lift constants", lift_constants),
    GraphStep("merge equal weights", merge_equal_weights),
    GraphStep("merge equal nodes", merge_equal_nodes),
    GraphStep("remove unused", remove_unused),
)
"""What needs no rule either, and what rules leave to be tidied up."""
