"""Operators that move numbers about, and change none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from onnxopt.data.sample import Array
from onnxopt.lift.operator import Operator, Table, Tensor


def _concat(operator: Operator, *inputs: Tensor) -> Tensor:
    return torch.cat(inputs, operator.get_int("axis", 0))


def _split(operator: Operator, x: Tensor, split: Tensor = None) -> Sequence[Tensor]:
    axis, sizes = operator.get_int("axis", 0), operator.listed("split", split)
    if sizes is None:
        count = len(operator.node.outputs)
        each = -(-x.shape[axis] // count)
        sizes = [each] * (count - 1) + [x.shape[axis] - each * (count - 1)]
    return list(torch.split(x, sizes, axis))


def _slice(
    operator: Operator, x: Tensor, starts: Tensor = None, ends: Tensor = None, axes: Tensor = None, steps: Tensor = None
) -> Tensor:
    first, last = operator.listed("starts", starts) or [], operator.listed("ends", ends) or []
    along = operator.listed("axes", axes) or list(range(len(first)))
    by = operator.listed("steps", steps) or [1] * len(first)
    for start, end, axis, step in zip(first, last, along, by, strict=True):
        x = x.index_select(axis, _at(range(x.shape[axis])[start:end:step]))
    return x


def _gather(operator: Operator, x: Tensor, indices: Tensor) -> Tensor:
    axis = operator.get_int("axis", 0) % x.ndim
    places = indices.long() % x.shape[axis]
    return x.index_select(axis, places.reshape(-1)).reshape(*x.shape[:axis], *places.shape, *x.shape[axis + 1 :])


def _gather_elements(operator: Operator, x: Tensor, indices: Tensor) -> Tensor:
    axis = operator.get_int("axis", 0)
    return torch.gather(x, axis, indices.long() % x.shape[axis])


def _reshape(operator: Operator, x: Tensor, shape: Tensor = None) -> Tensor:
    asked, plain = operator.listed("shape", shape) or [], bool(operator.get_int("allowzero", 0))
    return x.reshape([size if size or plain else x.shape[place] for place, size in enumerate(asked)])


def _flatten(operator: Operator, x: Tensor) -> Tensor:
    axis = operator.get_int("axis", 1)
    axis = axis if axis >= 0 else axis + x.ndim
    return x.reshape(int(np.prod(x.shape[:axis])), -1)


def _transpose(operator: Operator, x: Tensor) -> Tensor:
    return x.permute(operator.get_ints("perm") or list(reversed(range(x.ndim))))


def _squeeze(operator: Operator, x: Tensor, axes: Tensor = None) -> Tensor:
    asked = operator.listed("axes", axes)
    return x.squeeze() if asked is None else x.squeeze(asked)


def _unsqueeze(operator: Operator, x: Tensor, axes: Tensor = None) -> Tensor:
    asked = operator.listed("axes", axes) or []
    rank = x.ndim + len(asked)
    for axis in sorted(axis % rank for axis in asked):
        x = x.unsqueeze(axis)
    return x


def _expand(_: Operator, x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, tuple(shape.tolist())))


def _tile(_: Operator, x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(repeats.tolist())


def _pad(operator: Operator, x: Tensor, pads: Tensor = None, value: Tensor = None, axes: Tensor = None) -> Tensor:
    flat = operator.listed("pads", pads) or []
    along = operator.listed("axes", axes) or list(range(x.ndim))
    mode = operator.get_string("mode", "constant")
    around = [(0, 0)] * x.ndim
    for place, axis in enumerate(along):
        around[axis] = (flat[place], flat[place + len(along)])
    if mode == "constant":
        filled = operator.get_float("value", 0.0) if value is None else float(value.detach())
        return functional.pad(x, [number for pad in reversed(around) for number in pad], value=filled)
    for axis, pad in enumerate(around):
        whole = np.pad(np.arange(x.shape[axis]), [max(number, 0) for number in pad], mode)  # type: ignore[call-overload]
        inner = whole[max(-pad[0], 0) : len(whole) - max(-pad[1], 0)]
        x = x.index_select(axis, _at(inner))
    return x


def _depth_to_space(operator: Operator, x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    size = operator.get_int("blocksize", 1)
    if operator.get_string("mode", "DCR") == "DCR":
        parts = x.reshape(batch, size, size, -1, height, width).permute(0, 3, 4, 1, 5, 2)
    else:
        parts = x.reshape(batch, -1, size, size, height, width).permute(0, 1, 4, 2, 5, 3)
    return parts.reshape(batch, channels // size**2, height * size, width * size)


def _space_to_depth(operator: Operator, x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    size = operator.get_int("blocksize", 1)
    order = (0, 3, 5, 1, 2, 4) if operator.get_string("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    parts = x.reshape(batch, channels, height // size, size, width // size, size).permute(order)
    return parts.reshape(batch, channels * size**2, height // size, width // size)


def _at(places: Sequence[int] | Array) -> Tensor:
    return torch.tensor(list(places), dtype=torch.long)


SHAPING: Table = {
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
