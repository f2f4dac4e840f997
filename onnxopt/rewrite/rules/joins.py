"""Cutting apart and joining again, and choices written the long way round."""

from __future__ import annotations

from itertools import accumulate
from typing import ClassVar

import numpy as np
import onnx_ir

from onnxopt.rewrite.reading import Array, constant, integers, only_reader, producer, rank, slice_steps, weight
from onnxopt.rewrite.rule import Miss, Outcome, Replacement, Rule, remade, replaced_by, same


class SplitConcat(Rule):
    """A Concat of all parts of a Split, in order and along the same axis, is what was split."""

    name: ClassVar[str] = "split-concat"
    operators: ClassVar[frozenset[str]] = frozenset({"Concat"})

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if nothing is missing or out of order."""
        split = producer(node.inputs[0], "Split")
        if split is None:
            return None
        if list(node.inputs) != list(split.outputs):
            return Miss("it does not join all parts in order", node)
        if _axis(node, None) != _axis(split, 0):
            return Miss("it joins along another axis", node)
        return same(split.inputs[0], node)


class ConcatChain(Rule):
    """A Concat of what another Concat along the same axis made joins it all at once."""

    name: ClassVar[str] = "concat-chain"
    operators: ClassVar[frozenset[str]] = frozenset({"Concat"})

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if nothing reads what the first made but such Concats: it then goes, and is copied no more."""
        for value in node.inputs:
            first = producer(value, "Concat")
            if first is None or value is None or not _joins_along(node, first):
                continue
            if value.is_graph_output() or not all(_joins_along(user, first) for user in value.consumers()):
                return Miss("what is joined first is read elsewhere too", first)
            inputs = [one for given in node.inputs for one in (first.inputs if given is value else [given])]
            return replaced_by("Concat", inputs, {"axis": node.attributes.get_int("axis", 0)})
        return None


class WhereNot(Rule):
    """Where(Not(c), a, b) is Where(c, b, a)."""

    name: ClassVar[str] = "where-not"
    operators: ClassVar[frozenset[str]] = frozenset({"Where"})

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire wherever the condition is a Not."""
        negation = producer(node.inputs[0], "Not")
        if negation is None:
            return None
        return replaced_by("Where", [negation.inputs[0], node.inputs[2], node.inputs[1]])


class DoubleNegation(Rule):
    """Not(Not(x)) and Neg(Neg(x)) are x; Abs(Abs(x)), Abs(Relu(x)) and the like lose the second."""

    name: ClassVar[str] = "double-negation"
    operators: ClassVar[frozenset[str]] = frozenset({"Abs", "Ceil", "Floor", "Neg", "Not", "Round"})

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if the first of the two makes the second change nothing, or undo it."""
        first = producer(node.inputs[0], *_UNDONE.get(node.op_type, ()), *_SETTLED.get(node.op_type, ()))
        if first is None:
            return None
        return same(first.inputs[0] if first.op_type in _UNDONE.get(node.op_type, ()) else first.outputs[0], node)


_UNDONE = {"Neg": ("Neg",), "Not": ("Not",)}
_SETTLED = {
    "Abs": ("Abs", "Relu", "Exp", "Sigmoid", "Sqrt"),
    "Ceil": ("Ceil", "Floor", "Round"),
    "Floor": ("Ceil", "Floor", "Round"),
    "Round": ("Ceil", "Floor", "Round"),
}


class TransposeIntoGemm(Rule):
    """A Transpose of one matrix of a Gemm becomes its flag."""

    name: ClassVar[str] = "transpose-into-gemm"
    operators: ClassVar[frozenset[str]] = frozenset({"Gemm"})

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire for either matrix."""
        for slot, flag in ((0, "transA"), (1, "transB")):
            transpose = producer(node.inputs[slot], "Transpose")
            if transpose is None:
                continue
            if rank(transpose.inputs[0]) != 2 and "perm" not in transpose.attributes:
                return Miss("what is transposed is not known to be a matrix", transpose)
            if "perm" in transpose.attributes and list(transpose.attributes["perm"].as_ints()) != [1, 0]:
                return None
            inputs = [transpose.inputs[0] if i == slot else value for i, value in enumerate(node.inputs)]
            turned = 1 - node.attributes.get_int(flag, 0)
            return remade(node, inputs, {**node.attributes, flag: onnx_ir.AttrInt64(flag, turned)})
        return None


class SliceChain(Rule):
    """A Slice of a Slice along other axes is one Slice."""

    name: ClassVar[str] = "slice-chain"
    operators: ClassVar[frozenset[str]] = frozenset({"Slice"})
    since: ClassVar[int] = 10

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if all is constant, the axes are named and none is cut twice."""
        first = producer(node.inputs[0], "Slice")
        if first is None:
            return None
        cuts = [_cuts(first), _cuts(node)]
        if cuts[0] is None or cuts[1] is None:
            return Miss("where it cuts is not constant", first if cuts[0] is None else node)
        total = rank(node.inputs[0])
        axes = [axis for cut in cuts if cut is not None for axis in cut[2]]
        if total is None and any(axis < 0 for axis in axes):
            return Miss("the number of axes is not known", node)
        if len({axis % (total or 1 << 30) for axis in axes}) < len(axes):
            return Miss("both cut the same axis", node)
        if not only_reader(first.outputs[0], node):
            return Miss("what is cut first is read elsewhere too", first)
        return _joined_slice(first, node, cuts[0], cuts[1])


Cuts = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]


def _cuts(node: onnx_ir.Node) -> Cuts | None:
    """Return starts, ends, axes and steps of a Slice, if they are constant and named."""
    if len(node.inputs) < 4:
        return None
    starts, ends, axes = (integers(node, "", slot) for slot in (1, 2, 3))
    if starts is None or ends is None or axes is None:
        return None
    steps = slice_steps(node, len(axes))
    return None if steps is None else (starts, ends, axes, steps)


def _joined_slice(first: onnx_ir.Node, node: onnx_ir.Node, a: Cuts, b: Cuts) -> Replacement:
    values = tuple(
        weight(f"{node.name}_{word}", np.array([*mine, *theirs], np.int64))
        for word, mine, theirs in zip(("starts", "ends", "axes", "steps"), a, b, strict=True)
    )
    return replaced_by("Slice", [first.inputs[0], *values], weights=values)


class PickFromConcat(Rule):
    """A Gather or Slice that takes from one of several joined parts alone takes it from that part."""

    name: ClassVar[str] = "pick-from-concat"
    operators: ClassVar[frozenset[str]] = frozenset({"Gather", "Slice"})
    since: ClassVar[int] = 10

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if what it takes, and the sizes of the parts, are constant."""
        concat = producer(node.inputs[0], "Concat")
        if concat is None:
            return None
        axis = _axis(concat, None)
        sizes = [size for part in concat.inputs if (size := _size(part, axis)) is not None]
        if len(sizes) < len(concat.inputs):
            return Miss("the size of a part is not known", concat)
        taken = _taken(node, axis, sum(sizes), rank(concat.inputs[0]) or 1)
        if taken is None or not taken.size:
            return None
        for part, size, end in zip(concat.inputs, sizes, accumulate(sizes), strict=True):
            if end - size <= taken.min() and taken.max() < end:
                return _picked(node, part, taken - (end - size))
        return None


def _size(value: onnx_ir.Value | None, axis: int | None) -> int | None:
    shape = value.shape if value is not None else None
    size = shape[axis] if shape is not None and axis is not None and axis < len(shape) else None
    return size if isinstance(size, int) else None


def _taken(node: onnx_ir.Node, axis: int | None, total: int, axes: int) -> Array | None:
    """Return the places, of ``total``, a Gather or Slice takes along one of ``axes``, if along this one alone."""
    if node.op_type == "Gather":
        index = constant(node.inputs[1])
        return None if index is None or _axis(node, 0) != axis else np.arange(total)[index]
    cuts = _cuts(node)
    if cuts is None or len(cuts[2]) != 1 or cuts[3] != (1,) or cuts[2][0] % axes != axis:
        return None
    return np.arange(total)[cuts[0][0] : cuts[1][0]]


def _picked(node: onnx_ir.Node, part: onnx_ir.Value | None, places: Array) -> Replacement:
    if node.op_type == "Gather":
        index = weight(f"{node.name}_index", places, constant(node.inputs[1]))
        return remade(node, [part, index], weights=(index,))
    bounds = (("starts", int(places[0])), ("ends", int(places[-1]) + 1))
    starts, ends = (weight(f"{node.name}_{word}", np.array([bound]), np.zeros(0, np.int64)) for word, bound in bounds)
    return remade(node, [part, starts, ends, node.inputs[3]], weights=(starts, ends))


def _joins_along(node: onnx_ir.Node, first: onnx_ir.Node) -> bool:
    """Whether a node joins along the same axis as the Concat before it; both join tensors of as many axes."""
    return producer(node.outputs[0], "Concat") is node and _axis(node, None) == _axis(first, None)


def _axis(node: onnx_ir.Node, default: int | None) -> int | None:
    """Return the axis a node works along; a negative one stays where the number of axes is not known."""
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else default
    return axis if axis is None or axis >= 0 else axis + (rank(node.inputs[0]) or 0)


JOINS: tuple[Rule, ...] = (
    SplitConcat(),
    ConcatChain(),
    SliceChain(),
    PickFromConcat(),
    WhereNot(),
    DoubleNegation(),
    TransposeIntoGemm(),
)
