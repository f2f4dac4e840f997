"""Scaled dot-product attention that exporters took apart, recognised again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir

from onnxopt.rewrite.reading import permuted, producer, rank, read_once, with_number
from onnxopt.rewrite.rule import Miss, Outcome, Replacement, Rule
from onnxopt.rewrite.sizes import dimensions

_AXES = 4
"""Of queries, keys and values: [batch, heads, tokens, size]."""

_SWAPPED = (0, 1, 3, 2)


class Attention(Rule):
    """softmax(scale · Q Kᵀ + mask) V is Attention (Vaswani et al. 2017)."""

    name: ClassVar[str] = "attention"
    operators: ClassVar[frozenset[str]] = frozenset({"MatMul"})
    since: ClassVar[int] = 23

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire for tensors of four axes, whether queries, keys or scores are scaled, if nothing between is read."""
        softmax = producer(node.inputs[0], "Softmax")
        values = node.inputs[1]
        scores = _scores(softmax) if softmax is not None else None
        if softmax is None or scores is None:
            return None
        if softmax.attributes.get_int("axis", -1) not in (-1, _AXES - 1):
            return Miss("its Softmax is not over the last axis", softmax)
        if {rank(scores.queries), rank(scores.keys.inputs[0]), rank(values)} != {_AXES}:
            return Miss("queries, keys and values are not known to have four axes", node)
        if scores.mask is not None and not _row_for_each(scores.mask, scores.queries):
            return Miss("the mask is not known to have a row for each query, which ONNX Runtime asks for", softmax)
        elsewhere = next((one for one in (softmax, *scores.steps) if not read_once(one)), None)
        if elsewhere is not None:
            return Miss("what is computed on the way is read elsewhere too", elsewhere)
        return _replaced(scores, values)


@dataclass(frozen=True)
class _Scores:
    """What is given to a Softmax.

    Attributes:
        queries: Before they are scaled.
        keys: The Transpose that turns them.
        scale: Of all numbers multiplied by.
        mask: What is added, if anything is.
        steps: Nodes on the way that go.
    """

    queries: onnx_ir.Value
    keys: onnx_ir.Node
    scale: float
    mask: onnx_ir.Value | None
    steps: tuple[onnx_ir.Node, ...]


def _scores(softmax: onnx_ir.Node) -> _Scores | None:
    """Return the masked scores a Softmax is given, if they are some."""
    added = producer(softmax.inputs[0], "Add")
    if added is None:
        return _product(softmax.inputs[0], None, ())
    masked = (_product(added.inputs[slot], added.inputs[1 - slot], (added,)) for slot in (0, 1))
    return next((found for found in masked if found is not None), None)


def _product(
    value: onnx_ir.Value | None, mask: onnx_ir.Value | None, steps: tuple[onnx_ir.Node, ...]
) -> _Scores | None:
    """Return the scores that a value is, if it is a scaled product of queries and turned keys."""
    value, scale, between = _unscaled(value)
    product = producer(value, "MatMul")
    if product is None:
        return None
    queries, own, before = _unscaled(product.inputs[0])
    keys, other, behind = _unscaled(product.inputs[1])
    turned = producer(keys, "Transpose")
    if queries is None or turned is None or turned.attributes.get_ints("perm") is None:
        return None
    return _Scores(queries, turned, scale * own * other, mask, (*steps, *between, product, *before, *behind))


def _unscaled(value: onnx_ir.Value | None) -> tuple[onnx_ir.Value | None, float, tuple[onnx_ir.Node, ...]]:
    """Return what a value is a multiple of, the number it is multiplied by, and the node that does it."""
    scaling = producer(value, "Mul", "Div")
    found = with_number(scaling)
    if scaling is None or found is None:
        return value, 1.0, ()
    return found[0], found[1] if scaling.op_type == "Mul" else 1 / found[1], (scaling,)


def _row_for_each(mask: onnx_ir.Value, queries: onnx_ir.Value) -> bool:
    have, asked = dimensions(mask), dimensions(queries)
    return have is not None and asked is not None and 2 <= len(have) <= _AXES and have[-2] == asked[-2]


def _replaced(scores: _Scores, values: onnx_ir.Value | None) -> Replacement:
    tape = onnx_ir.tape.Tape()
    keys: onnx_ir.Value | None = scores.keys.inputs[0]
    order = permuted(tuple(scores.keys.attributes["perm"].as_ints()), _SWAPPED)
    if order != tuple(range(_AXES)):
        keys = tape.op("Transpose", [keys], {"perm": order})
    inputs = [scores.queries, keys, values, *([] if scores.mask is None else [scores.mask])]
    made = tape.op("Attention", inputs, {"scale": scores.scale})
    return Replacement((made,), tuple(tape.nodes))


ATTENTION: tuple[Rule, ...] = (Attention(),)
