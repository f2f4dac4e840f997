"""The pass ``prune-layers``: whole residual blocks go, and a deep model becomes a shallower one."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import onnx_ir

from onnxopt.context import Context, Missed, Use, Warned
from onnxopt.data.sample import Samples
from onnxopt.errors import NothingToPruneError, PassError, UsageError, did_you_mean
from onnxopt.ir.quantized import refuse_quantized
from onnxopt.ir.traverse import subgraphs
from onnxopt.passes import Pass, option, options
from onnxopt.prune.blocks import Block, NoBlock, Remaining, drop_blocks, find_blocks
from onnxopt.prune.dropping import DropTrials, block_influences
from onnxopt.prune.groups import prepared
from onnxopt.prune.lineage import record_dropped
from onnxopt.prune.operators import follow_graph
from onnxopt.prune.sizes import Sizes, find_sizes
from onnxopt.prune.walk import Walk

_TOLD = 20
_TOLERANCE = 0.03
"""By how much of the whole the budget may be missed before that is told."""

_SLACK = 0.01
"""By how much of the whole a unit that loses little may save too much."""

Price = Callable[[Sequence[int], int, float], float]
"""What a unit costs: given those dropped before it, its place, and the share it saves."""


@dataclass(frozen=True)
class Units:
    """What can be dropped from a graph, and what that saves.

    Attributes:
        found: Blocks that go together, each as long, in the order of the graph.
        remaining: Tells what is left.
    """

    found: Sequence[tuple[Block, ...]]
    remaining: Remaining

    @cached_property
    def names(self) -> list[str]:
        """The tensor each ends in."""
        return [unit[-1].end for unit in self.found]

    @cached_property
    def blocks(self) -> list[Block]:
        """All blocks, in the order of the graph."""
        return [block for unit in self.found for block in unit]

    def of(self, dropped: Collection[int]) -> list[Block]:
        """Return the blocks of some units, in the order of the graph."""
        return [block for place in sorted(dropped) for block in self.found[place]]

    def places(self, dropped: Collection[int]) -> list[int]:
        """Return the places, among all blocks, of those of some units."""
        each = len(self.found[0])
        return [each * place + block for place in sorted(dropped) for block in range(each)]

    def share(self, dropped: Collection[int]) -> float:
        """Return the share that is left without some units."""
        return self.remaining.share(self.of(dropped))


@options
class PruneLayers(Pass):
    """Drop the residual blocks that matter least until a budget is kept, as DistilBERT starts (arXiv:1910.01108).

    A block is what lies between a tensor x and x + f(x), with the normalisation or Relu behind it where x comes out of
    one too: half a layer of a transformer, a block of a ResNet or a MobileNet. Whatever read its end reads x.
    """

    name: ClassVar[str] = "prune-layers"
    exact: ClassVar[bool] = False
    uses: ClassVar[frozenset[Use]] = frozenset({"data", "scratch", "seed"})
    libraries: ClassVar[tuple[str, ...]] = ("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript")

    keep: float = option("share that is left, above 0 and below 1", default=0.75, gt=0, lt=1)
    of: Literal["macs", "parameters"] = option(
        "what that is a share of: multiply-accumulates, which latency follows, or parameters, which size does",
        default="macs",
    )
    criterion: Literal["outputs", "similarity", "alternate", "last", "random"] = option(
        "what goes first: what moves the outputs least, or what it starts from and ends in are most similar (both need"
        " data); every second from the end; the last; any",
        default="outputs",
    )
    rescore: bool = option(
        "see anew what moves the outputs after each that is dropped: slower, and better", default=True
    )
    together: int = option("so many blocks in a row go together: 2 are a layer of a transformer", default=1, ge=1)
    drop: tuple[str, ...] = option("names of the tensors that end blocks: these are dropped and no others", default=())
    outputs: tuple[str, ...] = option("outputs of the model that count; all if none are given", default=())
    samples: int = option("judge on at most so many samples", default=8, ge=1)

    def requires(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Refuse models that are quantized, and criteria without what they judge by."""
        refuse_quantized(graph)
        if self.criterion in ("outputs", "similarity") and not self.drop and not ctx.has_data:
            raise PassError(
                f"criterion {self.criterion!r} judges blocks on data, and none was given",
                hint="add --data PATH; or choose criterion=alternate or last, or name the blocks to drop",
            )

    def edit(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Drop what matters least; tell what stays, and why."""
        ready = prepared(graph)
        sizes = find_sizes(ready, ctx.data if ctx.has_data else None)
        units, left = _units(ready, sizes, self.of, self.together)
        for one in left[:_TOLD]:
            ctx.emit(Missed(self.name, one.node, one.reason, one.node))
        if not units.found:
            raise _nothing(ready, left, self.together)
        chosen = self._named(units) if self.drop else self._chosen(ready, units, ctx)
        ends = [block.end for block in units.of(chosen)]
        drop_blocks(graph, units.of(chosen))
        if ends:
            record_dropped(graph, ends)

    def _named(self, units: Units) -> list[int]:
        """Return the units of the names that were given."""
        places = {name: place for place, name in enumerate(units.names)}
        for name in self.drop:
            if name not in places:
                raise UsageError(f"no block ends in {name!r}", hint=did_you_mean(name, places))
        return sorted({places[name] for name in self.drop})

    def _chosen(self, ready: onnx_ir.Model, units: Units, ctx: Context) -> list[int]:
        """Return the units that matter least, to the budget."""
        with ExitStack() as stack:
            trials = None
            if self.criterion == "outputs":
                trials = stack.enter_context(
                    closing(DropTrials(ready, units.blocks, self._data(ctx), self.outputs, ctx))
                )
            price = self._price(ready, units, trials, ctx)
            chosen = choose_units(units, price, self.keep)
            self._tell(units, chosen, trials, ctx)
        return chosen

    def _data(self, ctx: Context) -> Samples:
        samples: Samples = ctx.data[: self.samples]
        return samples

    def _price(self, ready: onnx_ir.Model, units: Units, trials: DropTrials | None, ctx: Context) -> Price:
        if trials is not None:
            return _by_outputs(units, trials, rescore=self.rescore)
        if self.criterion == "similarity":
            return _by_influence(units, block_influences(ready, units.blocks, self._data(ctx), ctx))
        return _by_order(_order(self.criterion, len(units.found), ctx.seed))

    def _tell(self, units: Units, chosen: Sequence[int], trials: DropTrials | None, ctx: Context) -> None:
        """Tell what stays, how far the budget is missed, and where the outputs are nothing like they were."""
        stays = [place for place in range(len(units.found)) if place not in chosen]
        for place in stays[:_TOLD]:
            alone = f"without it {units.share([place]):.0%} of the {self._counted} are left"
            if trials is not None:
                alone = f"{alone}, and the outputs' error is {trials.damage(units.places([place])):.2g} of them"
            ctx.emit(Missed(self.name, units.names[place], alone, units.names[place]))
        share = units.share(chosen)
        if abs(share - self.keep) > _TOLERANCE:
            why = "blocks go as a whole" if share < self.keep or len(chosen) < len(units.found) else "no block is left"
            ctx.emit(Warned(f"{share:.0%} of the {self._counted} are left, not {self.keep:.0%}: {why}"))
        if trials is not None and chosen and (error := trials.damage(units.places(chosen))) > 1:
            ctx.emit(
                Warned(
                    f"without these {len(units.of(chosen))} blocks the error of the outputs is {error:.2g} of what they"
                    " are: the model has to be trained, or more of it kept"
                )
            )

    @property
    def _counted(self) -> str:
        return "multiply-accumulates" if self.of == "macs" else self.of


def choose_units(units: Units, price: Price, keep: float) -> list[int]:
    """Return the places of the units to drop to come as near to a share as whole units allow, in the order chosen."""
    chosen: list[int] = []
    while units.share(chosen) > keep:
        step = _next_unit(units, chosen, price, keep)
        if step is None:
            break
        chosen.append(step)
    return chosen


def _next_unit(units: Units, chosen: list[int], price: Price, keep: float) -> int | None:
    """Return the cheapest unit that does not save too much; where all do, the one that ends nearest, or none."""
    now = units.share(chosen)
    left = [place for place in range(len(units.found)) if place not in chosen]
    shares = {place: share for place in left if (share := units.share([*chosen, place])) < now}
    fine = [place for place, share in shares.items() if share >= keep - _SLACK]
    if fine:
        return min(fine, key=lambda place: (price(chosen, place, now - shares[place]), -place))
    nearest = min(shares, key=lambda place: abs(shares[place] - keep), default=None)
    return nearest if nearest is not None and abs(shares[nearest] - keep) < abs(now - keep) else None


def _by_outputs(units: Units, trials: DropTrials, *, rescore: bool) -> Price:
    def price(dropped: Sequence[int], place: int, saved: float) -> float:
        before = units.places(dropped) if rescore else []
        return (trials.damage([*before, *units.places([place])]) - trials.damage(before)) / saved

    return price


def _by_influence(units: Units, influences: Sequence[float]) -> Price:
    def price(_: Sequence[int], place: int, saved: float) -> float:
        return sum(influences[block] for block in units.places([place])) / saved

    return price


def _by_order(order: Sequence[int]) -> Price:
    rank = {place: index for index, place in enumerate(order)}
    return lambda _, place, __: rank[place]


def _order(criterion: str, count: int, seed: int) -> list[int]:
    """Return the places of units, the first to go first."""
    if criterion == "random":
        return [int(place) for place in np.random.default_rng(seed).permutation(count)]
    backwards = list(range(count))[::-1]
    return [*backwards[::2], *backwards[1::2]] if criterion == "alternate" else backwards


def _units(graph: onnx_ir.Model, sizes: Sizes, of: str, together: int) -> tuple[Units, list[NoBlock]]:
    """Return what can be dropped and saves something, and additions that end no block."""
    blocks, left = find_blocks(graph, sizes)
    macs = Remaining(graph, _macs(graph, sizes))
    worth = [block for block in blocks if macs.share([block]) < 1]
    remaining = macs if of == "macs" else Remaining(graph, _parameters(graph))
    return Units(tuple(_in_rows(worth, together)), remaining), left


def _macs(graph: onnx_ir.Model, sizes: Sizes) -> dict[onnx_ir.Node | onnx_ir.Value, float]:
    walk = Walk(sizes, statistics=True)
    follow_graph(graph.graph, walk)
    return {cost.node: cost.macs for cost in walk.costs}


def _parameters(graph: onnx_ir.Model) -> dict[onnx_ir.Node | onnx_ir.Value, float]:
    weights = graph.graph.initializers.values()
    return {value: float(math.prod(value.shape.numpy())) for value in weights if value.shape is not None}


def _in_rows(blocks: Sequence[Block], together: int) -> Iterator[tuple[Block, ...]]:
    """Yield blocks that follow each other, so many at a time; what is left over of a row goes nowhere."""
    row: list[Block] = []
    for block in blocks:
        if row and row[-1].end != block.start:
            row = []
        row.append(block)
        if len(row) == together:
            yield tuple(row)
            row = []


def _nothing(graph: onnx_ir.Model, left: Sequence[NoBlock], together: int) -> NothingToPruneError:
    reasons = "; ".join(dict.fromkeys(f"{one.node}: {one.reason}" for one in left[:3]))
    inner = [node.op_type for node in graph.graph if any(True for _ in subgraphs(node))]
    what = "there is no residual block that multiplies anything"
    if together > 1:
        what = f"there are no {together} residual blocks in a row that multiply anything"
    hint = f"what is inside of {inner[0]} is not looked at" if inner else "prune-channels needs no blocks"
    return NothingToPruneError(f"{what}{f' ({reasons})' if reasons else ''}", hint=hint)
