"""What operators that only lay numbers out anew do to the labels of axes, and which of their constants follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir

from onnxopt.data.sample import Array
from onnxopt.ir.weights import constant_tensor
from onnxopt.prune.layers import inputs_of, only_channels
from onnxopt.prune.units import FIXED, Kept, Labels
from onnxopt.prune.walk import Axis, StuckError, Walk, fixed_or

Dim = int | str | None


def follow_concat(walk: Walk, node: onnx_ir.Node) -> None:
    """Axes lie behind each other; all others move together."""
    values = [value for value in node.inputs if value is not None]
    axis = node.attributes.get_int("axis", 0) % walk.rank(values[0])
    columns = [[walk.along(value, other) for value in values] for other in range(walk.rank(values[0]))]
    axes = [None if other == axis else _together(walk, node, found) for other, found in enumerate(columns)]
    if any(labels is not None for labels in columns[axis]):
        parts = zip(columns[axis], values, strict=True)
        axes[axis] = np.concatenate([fixed_or(labels, walk.size(value, axis)) for labels, value in parts])
    walk.give(node.outputs[0], axes)


def follow_split(walk: Walk, node: onnx_ir.Node) -> None:
    """Each result has a part of an axis."""
    source = inputs_of(node, 1)[0]
    axes = walk.all_axes(source)
    axis = node.attributes.get_int("axis", 0) % len(axes)
    labels = axes[axis]
    if labels is None:
        parts: list[Axis] = [None] * len(node.outputs)
    else:
        sizes = walk.numbers(node, 1)
        if sizes is None:
            each = -(-len(labels) // len(node.outputs))
            sizes = np.diff(np.minimum(np.arange(len(node.outputs) + 1) * each, len(labels)))
        cut = np.split(labels, np.cumsum(sizes)[:-1])
        parts = list(cut)
        walk.repair(node, 1, lambda kept: np.asarray([kept.count(part) for part in cut], np.int64))
    for value, part in zip(node.outputs, parts, strict=True):
        walk.give(value, [part if other == axis else one for other, one in enumerate(axes)])


def follow_slice(walk: Walk, node: onnx_ir.Node) -> None:
    """A part of some axes; where it begins and ends follows from what stays."""
    source = inputs_of(node, 1)[0]
    axes = walk.all_axes(source)
    if all(labels is None for labels in axes):
        walk.give(node.outputs[0], axes)
        return
    given = walk.numbers(node, 3)
    chosen = range(walk.size(inputs_of(node, 2)[1], 0) or 0) if given is None else (given % len(axes)).tolist()
    for place, axis in enumerate(chosen):
        labels = axes[axis]
        if labels is None:
            continue
        starts, ends, steps = (walk.numbers(node, slot) for slot in (1, 2, 4))
        if starts is None or ends is None or (steps is not None and steps[place] != 1):
            raise StuckError("it takes positions with a step")
        first, last, _ = slice(int(starts[place]), int(ends[place])).indices(len(labels))
        axes[axis] = labels[first:last]
        _repair_slice(walk, node, place, labels, first, max(first, last))
    walk.give(node.outputs[0], axes)


def follow_gather(walk: Walk, node: onnx_ir.Node) -> None:
    """Positions by number: rows of an embedding, or chosen channels, whose numbers follow from what stays."""
    source, places = inputs_of(node, 2)
    axes = walk.all_axes(source)
    axis = node.attributes.get_int("axis", 0) % len(axes)
    labels = axes.pop(axis)
    found: list[Axis] = [None] * walk.rank(places)
    if walk.is_stored(source) and not walk.is_stored(places):
        walk.lock(labels, "it is looked up by numbers that are computed", node)
    elif labels is not None:
        numbers = walk.numbers(node, 1)
        assert numbers is not None
        if numbers.ndim > 1:
            raise StuckError("it takes positions by a table")
        chosen = labels[numbers.reshape(-1)]
        if numbers.ndim:
            found = [chosen]
        else:
            walk.lock(chosen, "it takes this one by its number", node)
        _repair_gather(walk, node, labels, numbers)
    walk.give(node.outputs[0], [*axes[:axis], *found, *axes[axis:]])


def follow_transpose(walk: Walk, node: onnx_ir.Node) -> None:
    """Axes change places."""
    source = inputs_of(node, 1)[0]
    axes = walk.all_axes(source)
    order = node.attributes.get_ints("perm", tuple(reversed(range(len(axes)))))
    walk.give(node.outputs[0], [axes[axis] for axis in order])


def follow_squeeze(walk: Walk, node: onnx_ir.Node) -> None:
    """Axes of length one come and go."""
    source = inputs_of(node, 1)[0]
    axes, after = walk.all_axes(source), walk.rank(node.outputs[0])
    given = walk.numbers(node, 1)
    chosen = node.attributes.get_ints("axes", ()) if given is None else given.reshape(-1).tolist()
    if node.op_type == "Unsqueeze":
        added = {int(axis) % after for axis in chosen}
        rest = iter(axes)
        walk.give(node.outputs[0], [None if axis in added else next(rest) for axis in range(after)])
        return
    gone = {int(axis) % len(axes) for axis in chosen} or {a for a in range(len(axes)) if walk.size(source, a) == 1}
    if not chosen and any(labels is not None for labels in axes):  # what is cut to one must not go with them
        walk.repair(node, 1, lambda _: np.asarray(sorted(gone), np.int64))
    walk.give(node.outputs[0], [labels for axis, labels in enumerate(axes) if axis not in gone])


def follow_reshape(walk: Walk, node: onnx_ir.Node) -> None:
    """Axes are merged and split; the shape it is given follows."""
    source, result = inputs_of(node, 1)[0], node.outputs[0]
    before = walk.all_axes(source)
    if all(labels is None for labels in before):
        walk.give(result, [None] * walk.rank(result))
        return
    shape = node.inputs[_SHAPES["Reshape"]] if node.op_type == "Reshape" else None
    target = constant_tensor(shape)
    asked = None if target is None else target.numpy().tolist()
    dims = [_asked(dim, asked, place) for place, dim in enumerate(walk.dims(result))]
    axes = _laid_out(walk, node, before, walk.dims(source), dims)
    walk.give(result, axes)
    if node.op_type == "Reshape":
        _repair_shape(walk, node, 1, axes)


def follow_expand(walk: Walk, node: onnx_ir.Node) -> None:
    """Axes of length one are repeated, others pass; the shape it is given follows."""
    source, result = inputs_of(node, 1)[0], node.outputs[0]
    if walk.elements(source) == 1:
        _fill(walk, node, slot=_SHAPES["Expand"])
        return
    before = [*[None] * (walk.rank(result) - walk.rank(source)), *walk.all_axes(source)]
    walk.give(result, before)
    if any(labels is not None for labels in before):
        asked = inputs_of(node, 2)[1]
        _repair_shape(walk, node, 1, before[len(before) - (walk.size(asked, 0) or 0) :])


def follow_tile(walk: Walk, node: onnx_ir.Node) -> None:
    """Axes are repeated as a whole."""
    axes = walk.all_axes(inputs_of(node, 1)[0])
    if any(labels is not None for labels in axes):
        repeats = walk.numbers(node, 1)
        assert repeats is not None
        axes = [None if a is None else np.tile(a, int(count)) for a, count in zip(axes, repeats, strict=True)]
    walk.give(node.outputs[0], axes)


def follow_pad(walk: Walk, node: onnx_ir.Node) -> None:
    """What is added at the ends of an axis stays."""
    axes = walk.all_axes(inputs_of(node, 1)[0])
    if any(labels is not None for labels in axes):
        pads, chosen = walk.numbers(node, 1), walk.numbers(node, 3)
        assert pads is not None
        places = np.arange(len(axes)) if chosen is None else chosen % len(axes)
        for place, axis in enumerate(places.tolist()):
            first, last = int(pads[place]), int(pads[place + len(places)])
            labels = axes[axis]
            if labels is not None and (first or last):
                if min(first, last) < 0 or node.attributes.get_string("mode", "constant") != "constant":
                    raise StuckError("it pads what moves with its own values")
                axes[axis] = np.pad(labels, (first, last), constant_values=FIXED)
    walk.give(node.outputs[0], axes)


def follow_resize(walk: Walk, node: onnx_ir.Node) -> None:
    """Axes whose length does not change pass."""
    source, result = inputs_of(node, 1)[0], node.outputs[0]
    axes = walk.all_axes(source)
    for axis, labels in enumerate(axes):
        if labels is not None and walk.size(source, axis) != walk.size(result, axis):
            raise StuckError("it stretches what moves")
    walk.give(result, axes)
    sizes = node.inputs[3] if len(node.inputs) > 3 else None
    if sizes is not None and any(labels is not None for labels in axes):
        places = node.attributes.get_ints("axes", tuple(range(len(axes))))
        _repair_shape(walk, node, 3, [axes[axis] for axis in places])


def follow_blocks(walk: Walk, node: onnx_ir.Node) -> None:
    """DepthToSpace and SpaceToDepth: channels that go into one block go together."""
    source = inputs_of(node, 1)[0]
    only_channels(walk, node, source)
    axes = walk.all_axes(source)
    labels, area = axes[1], node.attributes.get_int("blocksize", 1) ** 2
    if labels is None:
        made: Axis = None
    elif node.op_type == "SpaceToDepth":
        made = np.tile(labels, area)
    else:
        turned = node.attributes.get_string("mode", "DCR") == "CRD"
        grid = labels.reshape(-1, area).T if turned else labels.reshape(area, -1)
        walk.units.join(grid, grid[:1])
        made = grid[0]
    walk.give(node.outputs[0], [axes[0], made, *[None] * (len(axes) - 2)])


def follow_fill(walk: Walk, node: onnx_ir.Node) -> None:
    """Tensors of one number take any shape; the one they are given follows."""
    _fill(walk, node, slot=_SHAPES["ConstantOfShape"])


def follow_shape(walk: Walk, node: onnx_ir.Node) -> None:
    """A shape follows by itself where it is used as one; what else is made of the length of an axis keeps the axis."""
    source, result = inputs_of(node, 1)[0], node.outputs[0]
    first = _first_axis(walk, node, source)
    for axis, labels in enumerate(walk.all_axes(source)):
        if labels is not None and not _is_shape_alone(walk, result, axis - first):
            walk.lock(labels, "its length is used as a number", node)
    walk.give(result, [None])


def follow_nothing(walk: Walk, node: onnx_ir.Node) -> None:
    """What it gives moves with nothing."""
    for value in node.outputs:
        walk.give(value, [None] * walk.rank(value))


_SHAPES: Mapping[str, int] = {"Reshape": 1, "Expand": 1, "ConstantOfShape": 0, "Resize": 3}
"""Input of an operator that is a shape."""

_SAME_NUMBERS = ("Squeeze", "Unsqueeze", "Cast", "Identity")
"""What passes the numbers of a shape on in their order."""


def _is_shape_alone(walk: Walk, value: onnx_ir.Value, place: int | None) -> bool:
    """Whether a number of a shape, at any place if None, ends in shapes alone; or is never picked."""
    return not value.is_graph_output() and all(_is_shape_in(walk, use.node, use.idx, place) for use in value.uses())


def _is_shape_in(walk: Walk, node: onnx_ir.Node, slot: int, place: int | None) -> bool:
    if _SHAPES.get(node.op_type) == slot:
        return True
    if node.op_type in ("Gather", "Slice") and slot == 0:
        picked = _picked(walk, node)
        if picked is not None and place is not None and place not in picked:
            return True
        return _is_shape_alone(walk, node.outputs[0], None)
    if node.op_type == "Concat":
        return _is_shape_alone(walk, node.outputs[0], None)
    return node.op_type in _SAME_NUMBERS and _is_shape_alone(walk, node.outputs[0], place)


def _first_axis(walk: Walk, node: onnx_ir.Node, source: onnx_ir.Value) -> int:
    """Return the axis that a Shape begins with."""
    return node.attributes.get_int("start", 0) % max(walk.rank(source), 1)


def _picked(walk: Walk, node: onnx_ir.Node) -> Array | None:
    """Return which numbers of a shape a Gather or Slice takes; None where that is computed."""
    source = inputs_of(node, 1)[0]
    length = walk.size(source, 0)
    try:
        numbers = [walk.numbers(node, slot) for slot in range(1, len(node.inputs))]
    except StuckError:
        return None
    if length is None or numbers[0] is None:
        return None
    if node.op_type == "Gather":
        return np.asarray(numbers[0].reshape(-1) % length)
    if numbers[1] is None or (len(numbers) > 3 and numbers[3] is not None and numbers[3][0] != 1):
        return None
    return np.arange(length)[int(numbers[0][0]) : int(numbers[1][0])]


@dataclass(frozen=True)
class Written:
    """A number of a shape that is a constant: the node and input that hold it, and its place there."""

    node: onnx_ir.Node
    slot: int
    place: int
    number: int


@dataclass(frozen=True)
class Measured:
    """A number of a shape that is the length of an axis of a tensor."""

    value: onnx_ir.Value
    axis: int


def _number_of_shape(walk: Walk, node: onnx_ir.Node, slot: int, place: int) -> Written | Measured:
    """Return where a number of a shape that a node is given comes from.

    Raises:
        StuckError: It is computed.
    """
    value = node.inputs[slot]
    assert value is not None
    if walk.is_stored(value):
        asked = walk.numbers(node, slot)
        assert asked is not None
        return Written(node, slot, place, int(asked.reshape(-1)[place]))
    maker = value.producer()
    if maker is None:
        raise StuckError("the shape it is given is an input")
    if maker.op_type == "Shape":
        source = inputs_of(maker, 1)[0]
        return Measured(source, place + _first_axis(walk, maker, source))
    if maker.op_type in _SAME_NUMBERS:
        return _number_of_shape(walk, maker, 0, place)
    picked = _picked(walk, maker) if maker.op_type in ("Gather", "Slice") else None
    if picked is not None:
        return _number_of_shape(walk, maker, 0, int(picked[place]))
    for other, piece in enumerate(maker.inputs if maker.op_type == "Concat" else ()):
        length = None if piece is None or not walk.dims(piece) else walk.size(piece, 0)
        if length is None:
            break
        if place < length:
            return _number_of_shape(walk, maker, other, place)
        place -= length
    raise StuckError("the shape it is given is computed")


def _fill(walk: Walk, node: onnx_ir.Node, slot: int) -> None:
    """Label a tensor of one number by the shape it is given."""
    result = node.outputs[0]
    axes: list[Axis] = []
    for axis in range(walk.rank(result)):
        size = walk.size(result, axis)
        try:
            number = _number_of_shape(walk, node, slot, axis)
        except StuckError:
            axes.append(None)
            continue
        if isinstance(number, Measured):
            axes.append(walk.along(number.value, number.axis))
        else:
            labels = None if size is None or size == 1 else walk.units.fresh(size)
            axes.append(labels)
            if labels is not None:
                walk.repair(number.node, number.slot, _entry(number.place, labels))
    walk.give(result, axes)


def _together(walk: Walk, node: onnx_ir.Node, found: Sequence[Axis]) -> Axis:
    """Let axes that lie side by side move together."""
    for other in found[1:]:
        if found[0] is not None or other is not None:
            walk.same(found[0], other, node, "what lies beside it")
    return found[0]


def _repair_slice(walk: Walk, node: onnx_ir.Node, place: int, labels: Labels, first: int, last: int) -> None:
    def bound(end: int) -> Callable[[Kept], Any]:
        return lambda kept: (place, kept.count(labels[:end]))

    walk.repair(node, 1, bound(first))
    walk.repair(node, 2, bound(last))


def _repair_gather(walk: Walk, node: onnx_ir.Node, labels: Labels, numbers: Array) -> None:
    places = numbers % len(labels)

    def made(kept: Kept) -> Array:
        stays = kept.along(labels)
        renumbered = np.cumsum(stays) - 1
        chosen = places[stays[places]] if places.ndim else places
        return np.asarray(renumbered[chosen], numbers.dtype)

    walk.repair(node, 1, made)


def _asked(dim: Dim, asked: Sequence[int] | None, place: int) -> Dim:
    """Return a dimension of a result: what is known of it, or what the node asks for."""
    if isinstance(dim, int) or asked is None:
        return dim
    return asked[place] if asked[place] > 0 else dim


def _repair_shape(walk: Walk, node: onnx_ir.Node, slot: int, axes: Sequence[Axis]) -> None:
    """Let the numbers of a shape that a node is given follow what stays.

    Raises:
        StuckError: A number that has to change is computed from something else than a shape.
    """
    for place, labels in enumerate(axes):
        if labels is None:
            continue
        number = _number_of_shape(walk, node, slot, place)
        if isinstance(number, Measured):
            walk.same(labels, walk.along(number.value, number.axis), node, "what it is shaped after")
        elif number.number > 0:
            walk.repair(number.node, number.slot, _entry(number.place, labels))


def _entry(place: int, labels: Labels) -> Callable[[Kept], Any]:
    return lambda kept: (place, kept.count(labels))


def _laid_out(
    walk: Walk, node: onnx_ir.Node, axes: Sequence[Axis], before: Sequence[Dim], after: Sequence[Dim]
) -> list[Axis]:
    """Return the labels of a reshaped tensor: equal axes at the front pass, the rest is matched from the back."""
    found: list[Axis] = [None] * len(after)
    front = 0
    while front < min(len(before), len(after)) and before[front] == after[front] and before[front] is not None:
        found[front] = axes[front]
        front += 1
    last, last_after = len(before), len(after)
    while last > front or last_after > front:
        block = _block(before[front:last], after[front:last_after])
        if block is None:
            rest = [labels for labels in axes[front:last] if labels is not None]
            if rest:
                raise StuckError("what moves is merged with an axis whose length is not known")
            break
        count, count_after = block
        sizes, sizes_after = (
            [int(dim or 1) for dim in before[last - count : last]],
            [int(dim or 1) for dim in after[last_after - count_after : last_after]],
        )
        made = _block_labels(walk, node, axes[last - count : last], sizes, sizes_after)
        found[last_after - count_after : last_after] = made
        last, last_after = last - count, last_after - count_after
    return found


def _block(before: Sequence[Dim], after: Sequence[Dim]) -> tuple[int, int] | None:
    """Return how many axes from the back hold equally many numbers on both sides; None where that is not known."""
    count = count_after = 0
    product = product_after = 1
    while True:
        if product == product_after and (count or count_after):
            return count, count_after
        if product <= product_after and count < len(before):
            count += 1
            dim = before[-count]
            if not isinstance(dim, int):
                return None
            product *= dim
        elif count_after < len(after):
            count_after += 1
            dim = after[-count_after]
            if not isinstance(dim, int):
                return None
            product_after *= dim
        else:
            return None


def _block_labels(
    walk: Walk, node: onnx_ir.Node, axes: Sequence[Axis], before: Sequence[int], after: Sequence[int]
) -> list[Axis]:
    """Return labels of axes that hold the numbers of others in the same order."""
    moving = [axis for axis, labels in enumerate(axes) if labels is not None]
    if not moving:
        return [None] * len(after)
    if len(moving) > 1:
        raise StuckError("axes that move on their own are merged")
    axis = moving[0]
    shape = [size if one == axis else 1 for one, size in enumerate(before)]
    labels = axes[axis]
    assert labels is not None
    grid = np.broadcast_to(labels.reshape(shape), before).reshape(after)
    long = [place for place, size in enumerate(after) if size > 1]
    if not long:
        return [None] * len(after)
    place = long[1] if len(long) == 2 and _is_shuffled(node) else long[0]
    for other in long:
        rows = np.moveaxis(grid, other, 0).reshape(after[other], -1)
        if (rows == rows[:, :1]).all():
            place = other
    rows = np.moveaxis(grid, place, 0).reshape(after[place], -1)
    walk.units.join(rows, rows[:, :1])
    return [rows[:, 0] if one == place else None for one in range(len(after))]


def _is_shuffled(node: onnx_ir.Node) -> bool:
    """Whether what is split is turned and merged again: channels of equal place in each group then go together.

    So shuffles of channels are written (Zhang et al. 2018, ShuffleNet).
    """
    rank = len(node.outputs[0].shape or ())
    turns = [use.node for use in node.outputs[0].uses()]
    if len(turns) != 1 or turns[0].op_type != "Transpose":
        return False
    order = turns[0].attributes.get_ints("perm", ())
    merges = [use.node for use in turns[0].outputs[0].uses()]
    swapped = list(order) == [0, 2, 1, *range(3, rank)]
    merged = len(merges) == 1 and merges[0].op_type == "Reshape"
    shape = merges[0].outputs[0].shape if merged else None
    return swapped and shape is not None and len(shape) == rank - 1
