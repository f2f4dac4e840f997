"""Residual blocks of a graph: what is added to a tensor it was computed from, and can be left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir

from onnxopt.ir.cleanup import remove_unused
from onnxopt.ir.traverse import subgraphs
from onnxopt.ir.weights import constant_tensor
from onnxopt.prune.normalised import Normalised
from onnxopt.prune.sizes import Sizes


@dataclass(frozen=True)
class Block:
    """What lies between a tensor ``x`` and ``x + f(x)``, or what one normalises or cuts off to.

    Attributes:
        start: Name of ``x``.
        end: Name of what ``x`` takes the place of when the block is dropped; the name of the block.
        add: Name of the node that adds.
    """

    start: str
    end: str
    add: str


@dataclass(frozen=True)
class NoBlock:
    """A node that adds two tensors and ends no block, and why."""

    node: str
    reason: str


def find_blocks(graph: onnx_ir.Model, sizes: Sizes) -> tuple[list[Block], list[NoBlock]]:
    """Return the blocks of a main graph, in its order, and additions that end none.

    Args:
        graph: Sorted and uniquely named, its shapes inferred.
        sizes: Shapes of its values in one inference.
    """
    before, normalised = _Before(graph.graph), Normalised(graph.graph, sizes)
    found: list[Block] = []
    left: list[NoBlock] = []
    for node, one, other in _additions(graph.graph):
        start = one if before.holds(one, other) else other if before.holds(other, one) else None
        reason = _why_not(one, other, sizes)
        if start is not None and reason is None:
            end = _end(node.outputs[0], start, normalised)
            found.append(Block(start.name or "", end.name or "", node.name or ""))
        elif start is not None or reason is None:  # what is neither, as a mask that is added, comes nowhere near one
            why = reason or "neither of what it adds is computed from the other"
            left.append(NoBlock(node.name or "", why))
    return found, left


def drop_blocks(graph: onnx_ir.Model, blocks: Sequence[Block]) -> None:
    """Let what blocks start from stand for what they end in, in place; what is then unused goes.

    Args:
        graph: It has values of those names.
        blocks: In the order of the graph.
    """
    values = named_values(graph.graph)
    for block in blocks:
        start, end = values[block.start], values[block.end]
        values[block.end] = start
        if end.is_graph_output():
            _copy_to_output(graph.graph, start, end)
        end.replace_all_uses_with(start)
    remove_unused(graph)


def follow_starts(blocks: Sequence[Block]) -> dict[str, str]:
    """Return what stands for the end of each dropped block, by name; blocks in the order of the graph."""
    stands: dict[str, str] = {}
    for block in blocks:
        stands[block.end] = stands.get(block.start, block.start)
    return stands


def reads(node: onnx_ir.Node) -> Iterator[onnx_ir.Value]:
    """Yield what a node reads, in its branches too."""
    yield from (value for value in node.inputs if value is not None)
    for graph in subgraphs(node):
        yield from graph.outputs
        for inner in graph:
            yield from reads(inner)


class _Before:
    """Which of the tensors that are added others are computed from."""

    def __init__(self, graph: onnx_ir.Graph) -> None:
        asked = dict.fromkeys(value for _, *pair in _additions(graph) for value in pair)
        self._bits = {value: 1 << place for place, value in enumerate(asked)}
        self._held = {value: self._bits.get(value, 0) for value in graph.inputs}
        for node in graph:
            seen = 0
            for value in reads(node):
                seen |= self._held.get(value, 0)
            for value in node.outputs:
                self._held[value] = seen | self._bits.get(value, 0)

    def holds(self, one: onnx_ir.Value, other: onnx_ir.Value) -> bool:
        """Whether ``other`` is computed from ``one``."""
        return bool(self._held.get(other, 0) & self._bits[one])


def _additions(graph: onnx_ir.Graph) -> Iterator[tuple[onnx_ir.Node, onnx_ir.Value, onnx_ir.Value]]:
    """Yield the nodes that add two different tensors, none of them stored."""
    for node in graph:
        if node.op_type in ("Add", "Sum") and node.domain in ("", "ai.onnx") and len(node.inputs) == 2:
            one, other = node.inputs
            if one is not None and other is not None and one is not other and not (_stored(one) or _stored(other)):
                yield node, one, other


def _stored(value: onnx_ir.Value) -> bool:
    return constant_tensor(value, overridable=True) is not None


def _why_not(one: onnx_ir.Value, other: onnx_ir.Value, sizes: Sizes) -> str | None:
    """Return why what is added cannot stand for the sum, or None."""
    here, there = sizes.get(one.name or ""), sizes.get(other.name or "")
    if here is None or there is None:
        return "the shape of what it adds is not known"
    if here != there:
        return f"it adds {list(there)} to {list(here)}: one is broadcast"
    if one.shape is None or other.shape is None:
        return None
    if any(_may_differ(pair) for pair in zip(one.shape, other.shape, strict=True)):
        return f"it adds {other.shape} to {one.shape}: where a size is larger than in the samples one may be broadcast"
    return None


def _may_differ(pair: tuple[int | onnx_ir.SymbolicDim, int | onnx_ir.SymbolicDim]) -> bool:
    """Whether one dimension is 1 and the other only happens to be."""
    return 1 in pair and pair[0] != pair[1]


def _end(added: onnx_ir.Value, start: onnx_ir.Value, normalised: Normalised) -> onnx_ir.Value:
    """Return where a block ends: behind the normalisation or Relu that also made what it starts from.

    The start is then as the readers of the end want it. A stream that is normalised only on its way into branches
    (pre-norm), and once at the end of the model, is not: there the block ends with the addition.
    """
    after = normalised.after(added)
    if after is not None and normalised.made(start):
        return after
    readers = [use.node for use in added.uses()]
    made = start.producer()
    alone = len(readers) == 1 and not added.is_graph_output()
    if alone and made is not None and readers[0].op_type == made.op_type == "Relu":
        return readers[0].outputs[0]
    return added


def named_values(graph: onnx_ir.Graph) -> dict[str, onnx_ir.Value]:
    """Return the inputs of a graph and what its nodes make, by name."""
    made = (value for node in graph for value in node.outputs)
    return {value.name or "": value for value in (*graph.inputs, *made)}


def _copy_to_output(graph: onnx_ir.Graph, start: onnx_ir.Value, end: onnx_ir.Value) -> None:
    """Let an output of the graph be a copy of what stands for it, under its own name."""
    node = onnx_ir.Node("", "Identity", [start], name=f"{end.name}_kept")
    copy = node.outputs[0]
    copy.type, copy.shape = end.type, end.shape
    copy.name, end.name = end.name, f"{end.name}_dropped"
    graph.append(node)
    graph.outputs[:] = [copy if value is end else value for value in graph.outputs]


class Remaining:
    """What is left of a graph where blocks are dropped."""

    def __init__(self, graph: onnx_ir.Model, amounts: Mapping[onnx_ir.Node | onnx_ir.Value, float]) -> None:
        """Take in a graph.

        Args:
            graph: As for ``find_blocks``.
            amounts: What nodes or stored weights count.
        """
        self._values = named_values(graph.graph)
        self._outputs = list(graph.graph.outputs)
        self._reads = {node: tuple(dict.fromkeys(reads(node))) for node in graph.graph}
        self._amounts = amounts
        self._total = self._amount(())

    def share(self, blocks: Sequence[Block]) -> float:
        """Return the share of the whole that is left without these blocks, which are in the order of the graph."""
        return self._amount(blocks) / max(self._total, 1e-12)

    def _amount(self, blocks: Sequence[Block]) -> float:
        stands = {self._values[end]: self._values[start] for end, start in follow_starts(blocks).items()}
        seen: set[onnx_ir.Node | onnx_ir.Value] = set()
        ahead = list(self._outputs)
        while ahead:
            value = ahead.pop()
            value = stands.get(value, value)
            if value in seen:
                continue
            node = value.producer()
            seen.add(value)
            if node is not None and node not in seen:
                seen.add(node)
                ahead.extend(self._reads.get(node, ()))
        return sum(amount for thing, amount in self._amounts.items() if thing in seen)
