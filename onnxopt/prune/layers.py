"""What operators that compute do to the labels of axes: layers, normalisations, elementwise functions, reductions."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir

from onnxopt.prune.units import Kept, Labels
from onnxopt.prune.walk import Axis, StuckError, Walk, parts_of


def follow_conv(walk: Walk, node: onnx_ir.Node) -> None:
    """Channels in and out; those of equal place in each group of a grouped convolution go together."""
    source, kernel = inputs_of(node, 2)
    only_channels(walk, node, source)
    groups = node.attributes.get_int("group", 1)
    inside, outside = walk.along(source, 1), walk.along(kernel, 0)
    if groups == 1:
        walk.same(inside, walk.along(kernel, 1), node, "what it reads")
    elif walk.size(kernel, 1) == 1:
        _depthwise(walk, node, inside, outside, groups)
    else:
        each = walk.size(kernel, 1)
        if each is None:
            raise StuckError("the shape of its weights is not known")
        walk.same(parts_of(inside, (groups, each)), walk.along(kernel, 1), node, "what it reads")
        outside = _alike(walk, outside, groups)
    _bias(walk, node, outside)
    result = node.outputs[0]
    walk.give(result, [walk.along(source, 0), outside, *[None] * (walk.rank(source) - 2)])
    macs = walk.elements(result) * walk.elements(kernel) / (walk.size(kernel, 0) or 1)
    walk.count(node, macs, outside, walk.along(kernel, 1))


def follow_conv_transpose(walk: Walk, node: onnx_ir.Node) -> None:
    """Channels in and out of a transposed convolution."""
    source, kernel = inputs_of(node, 2)
    only_channels(walk, node, source)
    groups = node.attributes.get_int("group", 1)
    inside, outside = walk.along(kernel, 0), walk.along(kernel, 1)
    walk.same(walk.along(source, 1), inside, node, "what it reads")
    if groups > 1:
        if walk.size(kernel, 1) != 1 or walk.size(kernel, 0) != groups:
            raise StuckError("grouped transposed convolutions are not followed")
        outside = inside
        _repair_groups(walk, node, inside)
    _bias(walk, node, outside)
    walk.give(node.outputs[0], [walk.along(source, 0), outside, *[None] * (walk.rank(source) - 2)])
    macs = walk.elements(source) * walk.elements(kernel) / (walk.size(kernel, 0) or 1)
    walk.count(node, macs, inside, outside if groups == 1 else None)


def follow_gemm(walk: Walk, node: onnx_ir.Node) -> None:
    """What is multiplied, rows and columns."""
    left, right = inputs_of(node, 2)
    turned, weight_turned = (node.attributes.get_int(name, 0) for name in ("transA", "transB"))
    rows, inner = walk.along(left, turned), walk.along(left, 1 - turned)
    columns = walk.along(right, 0 if weight_turned else 1)
    walk.same(inner, walk.along(right, 1 if weight_turned else 0), node, "what it reads")
    result = node.outputs[0]
    walk.give(result, [rows, columns])
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        _broadcast(walk, node, [bias], result)
    walk.count(node, walk.elements(result) * (walk.size(left, 1 - turned) or 1), columns, inner)


def follow_matmul(walk: Walk, node: onnx_ir.Node) -> None:
    """What is multiplied, rows and columns, and the axes both are stacked along."""
    left, right = inputs_of(node, 2)
    if min(walk.rank(left), walk.rank(right)) < 2:
        raise StuckError("products of vectors are not followed")
    result = node.outputs[0]
    inner = walk.along(left, -1)
    walk.same(inner, walk.along(right, -2), node, "what it reads")
    stacked = [_meeting(walk, node, [left, right], axis) for axis in range(-walk.rank(result), -2)]
    walk.stacked += [labels for labels in stacked if labels is not None]
    rows, columns = walk.along(left, -2), walk.along(right, -1)
    walk.give(result, [*stacked, rows, columns])
    walk.count(node, walk.elements(result) * (walk.size(left, -1) or 1), *stacked, rows, columns, inner)


def follow_recurrent(walk: Walk, node: onnx_ir.Node) -> None:
    """What goes in, and the hidden units of LSTM, GRU and RNN, of both directions together."""
    source, weights, recurrent = inputs_of(node, 3)
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[node.op_type]
    if node.attributes.get_int("layout", 0):
        raise StuckError("layout 1 is not followed")
    hidden = walk.along(recurrent, 2)
    if hidden is None:
        raise StuckError("its weights are computed")
    walk.same(walk.along(source, 2), walk.along(weights, 2), node, "what it reads")
    stacked = np.tile(hidden, gates)
    for value in (weights, recurrent):
        walk.same(stacked, walk.along(value, 1), node, "a weight")
    optional = dict(enumerate(node.inputs))
    for slot, labels in ((3, np.tile(hidden, 2 * gates)), (7, np.tile(hidden, 3))):
        given = optional.get(slot)
        if given is not None:
            walk.same(labels, walk.along(given, 1), node, "a weight")
    for slot in (5, 6):
        given = optional.get(slot)
        if given is not None:
            walk.same(hidden, walk.along(given, 2), node, "the initial state")
    for value in (value for value in node.outputs if value.shape is not None):
        walk.give(value, [*[None] * (walk.rank(value) - 1), hidden])
    walk.repair(node, "hidden_size", lambda kept: kept.count(hidden))
    steps = walk.elements(source) / (walk.size(source, 2) or 1)
    walk.count(node, steps * walk.elements(weights), walk.along(weights, 2), hidden)
    walk.count(node, steps * walk.elements(recurrent), hidden, hidden)


def follow_channel_norm(walk: Walk, node: onnx_ir.Node) -> None:
    """BatchNormalization and InstanceNormalization: a factor and a summand for each channel."""
    source = inputs_of(node, 1)[0]
    channels = walk.along(source, 1)
    for value in node.inputs[1:]:
        if value is not None:
            walk.same(channels, walk.along(value, 0), node, "what it normalises")
    walk.give(node.outputs[0], walk.all_axes(source))


def follow_group_norm(walk: Walk, node: onnx_ir.Node) -> None:
    """Channels that are normalised together go together."""
    source = inputs_of(node, 1)[0]
    groups = node.attributes.get_int("num_groups", 1)
    channels = walk.along(source, 1)
    if channels is not None:
        grid = channels.reshape(groups, -1)
        walk.units.join(grid, grid[:, :1])
        walk.repair(node, "num_groups", lambda kept: int(kept.along(grid[:, 0]).sum()))
        for value in node.inputs[1:3]:
            if value is not None:
                labels = channels if walk.size(value, 0) == len(channels) else grid[:, 0]
                walk.same(labels, walk.along(value, 0), node, "what it normalises")
    walk.give(node.outputs[0], walk.all_axes(source))


def follow_layer_norm(walk: Walk, node: onnx_ir.Node) -> None:
    """What is normalised over moves only where statistics may change."""
    source = inputs_of(node, 1)[0]
    axis = node.attributes.get_int("axis", -1) % walk.rank(source)
    axes = walk.all_axes(source)
    for labels in axes[axis:]:
        walk.normalised(labels, node)
    walk.give(node.outputs[0], axes)
    for value in node.inputs[1:3]:
        if value is not None:
            _broadcast(walk, node, [value], node.outputs[0])


def follow_skip_norm(walk: Walk, node: onnx_ir.Node) -> None:
    """A sum that is normalised over its last axis; everything is broadcast to it, and it may be an output too."""
    follow_elementwise(walk, node)
    axes = walk.all_axes(node.outputs[0])
    walk.normalised(axes[-1], node)
    for value in node.outputs[3:]:
        walk.give(value, axes)


def follow_embed_norm(walk: Walk, node: onnx_ir.Node) -> None:
    """Rows of tables of words, positions and segments, whose sum is normalised and may be an output too."""
    wide = _meeting(walk, node, [value for value in node.inputs[2:7] if value is not None], -1)
    walk.normalised(wide, node)
    summed: list[Axis] = [None, None, wide]
    masked: list[Axis] = [None]
    for value, axes in zip(node.outputs, (summed, masked, summed), strict=False):
        walk.give(value, axes)


def follow_elementwise(walk: Walk, node: onnx_ir.Node) -> None:
    """Axes that meet move together; those of length one are repeated."""
    inputs = [value for value in node.inputs if value is not None]
    result = node.outputs[0]
    walk.give(result, [_meeting(walk, node, inputs, axis) for axis in range(-walk.rank(result), 0)])


def follow_along(walk: Walk, node: onnx_ir.Node) -> None:
    """Softmax and others that mix what lies along an axis, which therefore stays."""
    source = inputs_of(node, 1)[0]
    axes = walk.all_axes(source)
    asked = walk.numbers(node, 1) if node.op_type == "CumSum" else None
    default = 0 if node.op_type in ("ArgMax", "ArgMin") else -1
    axis = (node.attributes.get_int("axis", default) if asked is None else int(asked.reshape(-1)[0])) % len(axes)
    walk.lock(axes[axis], f"{node.op_type} computes over it", node)
    keeps = walk.rank(node.outputs[0]) == len(axes)
    if not keeps:
        del axes[axis]
    elif node.op_type in ("ArgMax", "ArgMin", "TopK"):
        axes[axis] = None
    for value in node.outputs:
        walk.give(value, axes)


def follow_reduce(walk: Walk, node: onnx_ir.Node) -> None:
    """What is summed, or whose largest is taken, stays; other axes pass."""
    source = inputs_of(node, 1)[0]
    axes = walk.all_axes(source)
    given = walk.numbers(node, 1)
    chosen = node.attributes.get_ints("axes", ()) if given is None else tuple(given.reshape(-1).tolist())
    if not chosen and node.attributes.get_int("noop_with_empty_axes", 0) == 1:
        walk.give(node.outputs[0], axes)
        return
    reduced = {int(axis) % len(axes) for axis in chosen or range(len(axes))}
    for axis in reduced:
        walk.lock(axes[axis], f"{node.op_type} computes over it", node)
    kept_dims = node.attributes.get_int("keepdims", 1)
    passed = [None if axis in reduced else labels for axis, labels in enumerate(axes)]
    walk.give(node.outputs[0], passed if kept_dims else [one for axis, one in enumerate(axes) if axis not in reduced])


def follow_pool(walk: Walk, node: onnx_ir.Node) -> None:
    """Channels pass."""
    source = inputs_of(node, 1)[0]
    only_channels(walk, node, source)
    for value in node.outputs:
        walk.give(value, [walk.along(source, 0), walk.along(source, 1), *[None] * (walk.rank(source) - 2)])


def follow_same(walk: Walk, node: onnx_ir.Node) -> None:
    """All axes of the first input pass; others are single numbers."""
    walk.give(node.outputs[0], walk.all_axes(inputs_of(node, 1)[0]))


def follow_rounding(walk: Walk, node: onnx_ir.Node) -> None:
    """QuantizeLinear and DequantizeLinear: a scale for each position of an axis, or one for all."""
    source, scale = inputs_of(node, 2)
    if walk.rank(scale) > 1:
        raise StuckError("scales of blocks are not followed")
    axes = walk.all_axes(source)
    if walk.rank(scale) == 1 and walk.size(scale, 0) != 1:
        for value in node.inputs[1:3]:
            if value is not None:
                walk.same(axes[node.attributes.get_int("axis", 1)], walk.along(value, 0), node, "what it rounds")
    walk.give(node.outputs[0], axes)


def follow_einsum(walk: Walk, node: onnx_ir.Node) -> None:
    """Axes of one letter move together."""
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    terms, _, result = equation.partition("->")
    if "." in equation or not result:
        raise StuckError(f"the equation {equation!r} is not followed")
    letters: dict[str, Axis] = {}
    length: dict[str, int] = {}
    for term, value in zip(terms.split(","), node.inputs, strict=True):
        if value is None or len(term) != walk.rank(value):
            raise StuckError("its inputs do not fit its equation")
        for axis, letter in enumerate(term):
            labels = walk.along(value, axis)
            if letter in letters:
                walk.same(letters[letter], labels, node, "what it meets")
            letters.setdefault(letter, labels)
            length[letter] = walk.size(value, axis) or 1
    walk.give(node.outputs[0], [letters[letter] for letter in result])
    summed = math.prod(length[letter] for letter in letters if letter not in result)
    walk.count(node, walk.elements(node.outputs[0]) * summed, *letters.values())


def inputs_of(node: onnx_ir.Node, count: int) -> list[onnx_ir.Value]:
    """Return the first inputs.

    Raises:
        StuckError: One is left out.
    """
    found = [value for value in node.inputs[:count] if value is not None]
    if len(found) < count:
        raise StuckError("an input is missing")
    return found


def only_channels(walk: Walk, node: onnx_ir.Node, source: onnx_ir.Value) -> None:
    """Keep the axes a window moves along."""
    for labels in walk.all_axes(source)[2:]:
        walk.lock(labels, f"{node.op_type} moves a window along it", node)


def _depthwise(walk: Walk, node: onnx_ir.Node, inside: Axis, outside: Axis, groups: int) -> None:
    """Let each channel go with what is made of it alone."""
    grid = parts_of(outside, (groups, -1))
    walk.same(parts_of(inside, (groups, 1)), grid, node, "what it reads")
    if inside is not None:
        _repair_groups(walk, node, inside)


def _repair_groups(walk: Walk, node: onnx_ir.Node, channels: Axis) -> None:
    def groups(kept: Kept) -> int:
        assert channels is not None
        return kept.count(channels)

    if channels is not None:
        walk.repair(node, "group", groups)


def _alike(walk: Walk, labels: Axis, groups: int) -> Axis:
    """Let channels of equal place in each group move together."""
    if labels is not None:
        grid = labels.reshape(groups, -1)
        walk.units.join(grid, grid[:1])
    return labels


def _bias(walk: Walk, node: onnx_ir.Node, channels: Axis) -> None:
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        walk.same(channels, walk.along(bias, 0), node, "what it makes")


def _broadcast(walk: Walk, node: onnx_ir.Node, values: list[onnx_ir.Value], result: onnx_ir.Value) -> None:
    """Let the axes of values go with those of a labelled result they are broadcast to."""
    for value in values:
        for axis in range(-walk.rank(value), 0):
            if walk.size(value, axis) != 1:
                walk.same(walk.along(result, axis), walk.along(value, axis), node, "what it is added to")


def _meeting(walk: Walk, node: onnx_ir.Node, inputs: list[onnx_ir.Value], axis: int) -> Axis:
    """Return what an axis of a result that inputs are broadcast to is labelled with."""
    met = [value for value in inputs if walk.rank(value) >= -axis and walk.size(value, axis) != 1]
    found: list[Axis] = [walk.along(value, axis) for value in met]
    moving: list[Labels] = [labels for labels in found if labels is not None]
    if not moving:
        return None
    for labels in moving[1:]:
        walk.units.join(moving[0], labels)
    if len(moving) == len(found):
        return moving[0]
    still = next(value for value, labels in zip(met, found, strict=True) if labels is None)
    walk.lock(moving[0], f"it meets {still.name!r}, which does not move", node)
    return None
