"""What fused attention does to the labels of axes: heads go whole, and those of keys with all that share them.

What is within a head stays as it is, so that the default scale, which is made of the size of a head, does too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir

from onnxopt.prune.layers import inputs_of
from onnxopt.prune.units import Labels
from onnxopt.prune.walk import Axis, StuckError, Walk, fixed_or

_CONTRIB = "com.microsoft"

_STACKED = 4
"""Axes of tensors whose heads have one: [batch, heads, tokens, size]; others are [batch, tokens, heads · size]."""


@dataclass(frozen=True)
class _Layout:
    """Where an operator that reads queries, keys and values has what.

    Attributes:
        queries: Attribute with the number of heads of queries.
        keys: Attribute with that of keys and values.
        mask: Input that is added to the scores.
        past: Inputs that are keys and values of earlier tokens.
    """

    queries: str
    keys: str
    mask: int
    past: tuple[int, int]


_LAYOUTS: Mapping[str, _Layout] = {
    "Attention": _Layout("q_num_heads", "kv_num_heads", 3, (4, 5)),
    "MultiHeadAttention": _Layout("num_heads", "num_heads", 5, (6, 7)),
    "GroupQueryAttention": _Layout("num_heads", "kv_num_heads", 10, (3, 4)),
}


@dataclass(frozen=True)
class _Heads:
    """Units of heads.

    Attributes:
        queries: [heads], of queries, and of the result.
        keys: [heads], of keys and values; None where they have one, which all queries share and which stays.
    """

    queries: Labels
    keys: Axis


def follow_attention(walk: Walk, node: onnx_ir.Node) -> None:
    """Attention of ONNX, which reads queries, keys and values, and of com.microsoft, which makes them as well."""
    if node.domain == _CONTRIB:
        _follow_projecting(walk, node)
    else:
        _follow_three(walk, node)


def follow_multi_head(walk: Walk, node: onnx_ir.Node) -> None:
    """MultiHeadAttention: one bias for queries, keys and values."""
    heads = _follow_three(walk, node)
    bias = _given(node, 3)
    if bias is not None:
        wide = _length(walk, inputs_of(node, 1)[0], 2)
        widths = (wide, wide, _length(walk, bias, 0) - 2 * wide)
        walk.same(_side_by_side(heads, widths), walk.along(bias, 0), node, "what it is added to")


def follow_group_query(walk: Walk, node: onnx_ir.Node) -> None:
    """GroupQueryAttention: queries, keys and values may lie side by side in one tensor."""
    if _given(node, 12) is not None or _given(node, 13) is not None:
        raise StuckError("a quantized cache is not followed")
    heads = _follow_three(walk, node) if _given(node, 1) is not None else _follow_joined(walk, node)
    sinks = _given(node, 11)
    if sinks is not None:
        walk.same(heads.queries, walk.along(sinks, 0), node, "a head")


def follow_rotary(walk: Walk, node: onnx_ir.Node) -> None:
    """RotaryEmbedding turns what is within heads, each like the others."""
    source, result = inputs_of(node, 1)[0], node.outputs[0]
    if walk.rank(source) == _STACKED:
        heads = walk.along(source, 1)
        walk.give(result, [None, heads, None, None])
    else:
        size = _turned_size(walk, node, source)
        heads = _whole(walk, walk.along(source, 2), size)
        walk.give(result, [None, None, None if heads is None else np.repeat(heads, size)])
    if node.attributes.get_int("num_heads", 0):
        _repair_count(walk, node, "num_heads", heads)


def _follow_three(walk: Walk, node: onnx_ir.Node) -> _Heads:
    """Follow queries, keys and values that are inputs of their own."""
    layout = _LAYOUTS[node.op_type]
    query, key, value = inputs_of(node, 3)
    names = (layout.queries, layout.keys)
    counts = [_count(walk, node, name, source) for name, source in zip(names, (query, key), strict=True)]
    heads = _heads(walk, *counts)
    for source, labels in ((query, heads.queries), (key, heads.keys), (value, heads.keys)):
        _meet(walk, node, source, labels)
    _follow_rest(walk, node, layout, heads)
    result = node.outputs[0]
    if walk.rank(result) == _STACKED:
        walk.give(result, [None, heads.queries, None, None])
    else:
        walk.give(result, [None, None, _spread(heads.queries, _length(walk, result, 2))])
    tokens = walk.size(key, -2) or 1
    _cost(walk, node, layout, walk.elements(query) + walk.elements(result), tokens, heads)
    return heads


def _follow_joined(walk: Walk, node: onnx_ir.Node) -> _Heads:
    """Follow queries, keys and values that are side by side in the first input."""
    layout = _LAYOUTS[node.op_type]
    source, result = inputs_of(node, 1)[0], node.outputs[0]
    asking, shared = (_count(walk, node, name, source) for name in (layout.queries, layout.keys))
    heads = _heads(walk, asking, shared)
    size = _length(walk, source, 2) // (asking + 2 * shared)
    joined = _side_by_side(heads, (asking * size, shared * size, shared * size))
    walk.same(joined, walk.along(source, 2), node, "what it reads")
    _follow_rest(walk, node, layout, heads)
    walk.give(result, [None, None, _spread(heads.queries, asking * size)])
    _cost(walk, node, layout, 2 * walk.elements(result), walk.size(source, 1) or 1, heads)
    return heads


def _follow_projecting(walk: Walk, node: onnx_ir.Node) -> None:
    """Follow com.microsoft's Attention, whose weight makes queries, keys and values side by side."""
    source, weight = inputs_of(node, 2)
    count = node.attributes.get_int("num_heads", 0)
    heads = _heads(walk, count, count)
    columns, inner = _length(walk, weight, 1), walk.along(source, 2)
    widths = list(node.attributes.get_ints("qkv_hidden_sizes", [columns // 3] * 3))
    parts = [_spread(heads.queries, width) for width in widths]
    walk.same(inner, walk.along(weight, 0), node, "what it reads")
    for value, axis in ((weight, 1), (_given(node, 2), 0)):
        if value is not None:
            walk.same(np.concatenate(parts), walk.along(value, axis), node, "its weight")
    _mask(walk, node, 5, heads)
    _cache(walk, node, _given(node, 4), 2, heads.keys)
    walk.give(node.outputs[0], [None, None, parts[2]])
    for value in node.outputs[1:]:
        walk.give(value, [None, None, heads.keys, None, None])
    _repair_count(walk, node, "num_heads", heads.queries)
    if "qkv_hidden_sizes" in node.attributes:
        walk.repair(node, "qkv_hidden_sizes", lambda kept: [kept.count(part) for part in parts])
    past, rows = _given(node, 4), walk.elements(source) / (walk.size(source, 2) or 1)
    tokens = (walk.size(source, 1) or 1) + ((walk.size(past, 3) or 0) if past is not None else 0)
    walk.count(node, rows * tokens * (widths[0] + widths[2]), heads.queries)
    walk.count(node, rows * walk.elements(weight), inner, walk.along(weight, 1))


def _follow_rest(walk: Walk, node: onnx_ir.Node, layout: _Layout, heads: _Heads) -> None:
    """Follow the mask, the caches of keys and values, scores that are an output, and the numbers of heads."""
    _mask(walk, node, layout.mask, heads)
    for slot in layout.past:
        _cache(walk, node, _given(node, slot), 1, heads.keys)
    for value, labels in zip(node.outputs[1:], (heads.keys, heads.keys, heads.queries), strict=False):
        walk.give(value, [None, labels, None, None])
    _repair_count(walk, node, layout.queries, heads.queries)
    if layout.keys != layout.queries:
        _repair_count(walk, node, layout.keys, heads.keys)


def _heads(walk: Walk, queries: int, keys: int) -> _Heads:
    """Return fresh units for heads; those of queries are the units of the keys they share.

    Raises:
        StuckError: There are none to choose from.
    """
    if min(keys, queries) < 1 or queries % keys:
        raise StuckError("how many heads it has is not known")
    if queries == 1:
        raise StuckError("it has one head")
    shared = walk.units.fresh(keys) if keys > 1 else None
    asking = walk.units.fresh(queries) if shared is None else np.repeat(shared, queries // keys)
    walk.stacked.append(asking)
    return _Heads(asking, shared)


def _count(walk: Walk, node: onnx_ir.Node, name: str, source: onnx_ir.Value) -> int:
    """Return how many heads a tensor has: an attribute tells, or an axis."""
    return _length(walk, source, 1) if walk.rank(source) == _STACKED else node.attributes.get_int(name, 0)


def _meet(walk: Walk, node: onnx_ir.Node, source: onnx_ir.Value, heads: Axis) -> None:
    """Let queries, keys or values, in three axes or in four, go with their heads."""
    axis = 1 if walk.rank(source) == _STACKED else 2
    labels = walk.along(source, axis)
    if heads is None:
        walk.lock(labels, "all queries share its one head of keys and values", node)
        return
    spread = _spread(heads, _length(walk, source, axis))
    walk.same(spread, labels, node, "what it reads")


def _mask(walk: Walk, node: onnx_ir.Node, slot: int, heads: _Heads) -> None:
    """Let a mask of its own for each head go with the heads."""
    mask = _given(node, slot)
    each = 1 if mask is None or walk.rank(mask) < 3 else _length(walk, mask, -3)
    if mask is not None and each > 1:
        if each != len(heads.queries):
            raise StuckError("its mask is not one of heads")
        walk.same(heads.queries, walk.along(mask, -3), node, f"its mask {mask.name!r}")


def _cache(walk: Walk, node: onnx_ir.Node, value: onnx_ir.Value | None, axis: int, heads: Axis) -> None:
    if value is not None:
        walk.same(heads, walk.along(value, axis), node, f"its cache {value.name!r}")


def _cost(walk: Walk, node: onnx_ir.Node, layout: _Layout, numbers: float, tokens: int, heads: _Heads) -> None:
    """Count both products: each number of queries, and of the result, once for each token there are keys of."""
    past = _given(node, layout.past[0])
    earlier = (walk.size(past, 2) or 0) if past is not None else 0
    walk.count(node, numbers * (tokens + earlier), heads.queries)


def _repair_count(walk: Walk, node: onnx_ir.Node, name: str, heads: Axis) -> None:
    if heads is not None and name in node.attributes:
        walk.repair(node, name, lambda kept: kept.count(heads))


def _whole(walk: Walk, labels: Axis, size: int) -> Axis:
    """Return a unit for each head of an axis whose positions go by heads of a size."""
    if labels is None:
        return None
    if len(labels) % size:
        raise StuckError("its heads do not fit what it reads")
    grid = labels.reshape(-1, size)
    walk.units.join(grid, grid[:, :1])
    return grid[:, 0]


def _turned_size(walk: Walk, node: onnx_ir.Node, source: onnx_ir.Value) -> int:
    """Return the size of heads that lie along one axis; without their number it is twice the angles there are."""
    count = node.attributes.get_int("num_heads", 0)
    if count:
        return _length(walk, source, 2) // count
    angles = _given(node, 2)
    if angles is None:
        raise StuckError("how many heads it has is not known")
    return 2 * _length(walk, angles, -1)


def _side_by_side(heads: _Heads, widths: Sequence[int]) -> Labels:
    """Return labels of queries, keys and values of these widths, one behind the other."""
    parts = zip((heads.queries, heads.keys, heads.keys), widths, strict=True)
    return np.concatenate([fixed_or(None, width) if one is None else _spread(one, width) for one, width in parts])


def _spread(heads: Labels, width: int) -> Labels:
    """Return labels of an axis along which heads lie one behind the other.

    Raises:
        StuckError: It does not divide into them.
    """
    if width % len(heads):
        raise StuckError("its heads do not fit what it reads")
    return np.repeat(heads, width // len(heads))


def _length(walk: Walk, value: onnx_ir.Value, axis: int) -> int:
    """Return the length of an axis.

    Raises:
        StuckError: It is not known.
    """
    size = walk.size(value, axis)
    if size is None:
        raise StuckError(f"the shape of {value.name!r} is not known")
    return size


def _given(node: onnx_ir.Node, slot: int) -> onnx_ir.Value | None:
    return node.inputs[slot] if slot < len(node.inputs) else None
