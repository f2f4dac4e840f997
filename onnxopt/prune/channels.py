"""The passes ``prune-channels`` and ``prune-heads``: fewer channels, a smaller dense model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import onnx_ir

from onnxopt.context import Context, Missed, Use, Warned
from onnxopt.errors import NothingToPruneError, UsageError
from onnxopt.evaluate.kept import Kept
from onnxopt.ir.model import Model
from onnxopt.ir.quantized import refuse_quantized
from onnxopt.passes import Pass, option, options
from onnxopt.prune.amounts import Of, Size, find_amounts
from onnxopt.prune.choose import Budget, Together, choose
from onnxopt.prune.damage import weighed
from onnxopt.prune.groups import Group, Groups, find_groups, prepared
from onnxopt.prune.importance import Criterion, Scores, find_importance
from onnxopt.prune.lineage import record_kept
from onnxopt.prune.shrink import shrink
from onnxopt.prune.sizes import find_sizes
from onnxopt.targets.widths import preferred_width

_TOLD = 20
_TOLERANCE = 0.03
"""By how much of the whole the budget may be missed before that is told."""


@options
class PruneGroups(Pass):
    """A pass that removes whole channels or heads."""

    exact: ClassVar[bool] = False
    uses: ClassVar[frozenset[Use]] = frozenset({"data", "seed", "scratch", "target"})
    revision: ClassVar[int] = 9
    libraries: ClassVar[tuple[str, ...]] = ("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript", "scipy", "torch")

    keep: float = option("share that is left, above 0 and below 1", default=0.5, gt=0, lt=1)
    of: Of = option(
        "what that is a share of: multiply-accumulates, parameters, which size follows, or seconds, as each node takes"
        " them on this machine",
        default="macs",
    )
    criterion: Criterion = option(
        "how much a channel matters: size of its weights (l2, l1), distance to the others (median), factor of its"
        " normalisation (scale), what layers make of it on samples (activation, hessian), what they cannot make up for"
        " without it (reconstruction), or what gradients say of it (taylor, in torch); auto: hessian with samples, l2"
        " without",
        default="auto",
    )
    weigh: bool = option(
        "hold groups against each other by what removing channels does to the outputs, where there are samples",
        default=True,
    )
    trials: int = option("samples that is measured on", default=16, ge=1)
    per: Literal["counted", "seconds"] = option(
        "what importance is held against: what is counted, or the seconds that go with a channel on this machine",
        default="counted",
    )
    together: Together = option(
        "model: groups lose what matters least in all of them; layer: each loses the same share", default="model"
    )
    align: int | None = option(
        "widths become multiples of it, where they are wide enough; by default what kernels of the target like",
        default=None,
        ge=1,
    )
    least: float = option(
        "share of each group's channels in the original that stays in any case", default=0.125, gt=0, le=1
    )
    residual: bool = option(
        "also channels that are normalised over, as a transformer's residual stream: the others change a little",
        default=False,
    )

    @abstractmethod
    def considered(self, group: Group) -> bool:
        """Whether a group may lose channels."""

    def requires(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Refuse models that are quantized, whose ranges what is removed has decided, and options at odds."""
        refuse_quantized(graph)
        if self.per == "seconds" and self.together == "layer":
            raise UsageError(
                "per=seconds weighs layers against each other, and together=layer cuts all alike",
                hint="leave one of them out",
            )

    def edit(self, graph: onnx_ir.Model, ctx: Context) -> onnx_ir.Model:
        """Return the smaller model; tell what stays as it is, and why."""
        ready = prepared(graph)
        sizes = find_sizes(ready, ctx.data if ctx.has_data else None)
        groups = find_groups(ready, sizes, statistics=self.residual)
        chosen_from = [group for group in groups.found if self.considered(group)]
        self._tell_left(groups, ctx)
        if not chosen_from:
            raise NothingToPruneError(f"there is nothing to remove: {_nothing(groups)}")
        return self._without(groups, chosen_from, ctx)

    def _without(self, groups: Groups, considered: Sequence[Group], ctx: Context) -> onnx_ir.Model:
        """Return the graph without the channels that matter least."""
        scores = self._scores(groups, considered, ctx)
        align = self.align or preferred_width(ctx.target)
        size = _size(groups, considered, self.of, align, ctx)
        price = size if self.per == "counted" else _size(groups, considered, "seconds", align, ctx)
        budget = Budget(self.keep, align, self.least, self.together)
        chosen = choose(size, considered, scores, budget, price)
        if abs(chosen.share - self.keep) > _TOLERANCE:
            what = "multiply-accumulates" if self.of == "macs" else self.of
            ctx.emit(Warned(f"{chosen.share:.0%} of the {what} are left, not {self.keep:.0%}: {_why(groups)}"))
        kept = groups.kept(chosen.removed)
        record_kept(groups, kept)
        return shrink(groups, kept)

    def _scores(self, groups: Groups, considered: Sequence[Group], ctx: Context) -> list[Scores]:
        """Return the importance of the channels of each group, which is the same for every budget."""
        model, names = Model(groups.graph).digest, [group.name for group in considered]
        seen = ctx.data.fingerprint if ctx.has_data else ""
        weigh = self.weigh and ctx.has_data and self.together == "model"
        kept = Kept.of(ctx.kept, "importance", model, names, seen, self.criterion, weigh, self.trials, ctx.seed)
        known = kept.read()
        if known is None:
            found = find_importance(groups, considered, self.criterion, ctx)
            if weigh:
                found = weighed(groups, considered, found, ctx.data[: self.trials], ctx)
            known = [one.tolist() for one in found]
            kept.write(known)
        return [np.asarray(one) for one in known]

    def _tell_left(self, groups: Groups, ctx: Context) -> None:
        for left in groups.left[:_TOLD]:
            reason = f"{left.operator}, {left.share:.1%} of the multiply-accumulates: {left.reason}"
            ctx.emit(Missed(self.name, left.node, reason, left.node))


@options
class PruneChannels(PruneGroups):
    """Remove channels from every layer they are in, and whole attention heads, until a budget is kept."""

    name: ClassVar[str] = "prune-channels"

    heads: bool = option("also whole heads of attention", default=True)

    def considered(self, group: Group) -> bool:
        """Whether a group may lose channels."""
        return self.heads or not group.heads


@options
class PruneHeads(PruneGroups):
    """Remove whole heads of attention until a budget is kept (Michel et al., arXiv:1905.10650)."""

    name: ClassVar[str] = "prune-heads"

    def considered(self, group: Group) -> bool:
        """Whether a group is of heads."""
        return group.heads


def _size(groups: Groups, considered: Sequence[Group], of: Of, align: int, ctx: Context) -> Size:
    """Return how large a model is by the widths of groups; in seconds a width counts as the block it fills."""
    return Size(groups, considered, find_amounts(groups, of, ctx), align if of == "seconds" else 1)


def _nothing(groups: Groups) -> str:
    if groups.found:
        return "no group is of whole heads of attention"
    reasons = dict.fromkeys(f"{left.node}: {left.reason}" for left in groups.left[:3])
    return "; ".join(reasons) or "the model multiplies nothing"


def _why(groups: Groups) -> str:
    if not groups.macs:
        return "an inference of the first sample multiplies nothing"
    if groups.coverage < 1 - _TOLERANCE:
        left = groups.left[0]
        return f"{1 - groups.coverage:.0%} are in nodes that cannot lose channels, such as {left.node!r}: {left.reason}"
    return "narrow groups are cut in steps; a smaller align or least allows more"
