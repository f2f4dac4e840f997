"""Operators with weights, and those that move a window over a tensor or take numbers together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil

import torch
from torch.nn import functional

from onnxopt.lift.operator import Operator, Table, Tensor

_CONVOLVE = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_SPREAD = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}
_LARGEST = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}


def _conv(operator: Operator, x: Tensor, weight: Tensor, bias: Tensor = None) -> Tensor:
    rank = weight.ndim - 2
    strides, dilations = _moves(operator, rank)
    wide = _padded(x, _pads(operator, x.shape[2:], weight.shape[2:]))
    return _CONVOLVE[rank](wide, weight, bias, strides, 0, dilations, operator.get_int("group", 1))


def _conv_transpose(operator: Operator, x: Tensor, weight: Tensor, bias: Tensor = None) -> Tensor:
    """Spread each number, and cut off what ``pads`` name; or as much as the size that is asked for needs."""
    rank = weight.ndim - 2
    strides, dilations = _moves(operator, rank)
    whole = _SPREAD[rank](x, weight, None, strides, 0, 0, operator.get_int("group", 1), dilations)
    more = operator.get_ints("output_padding", [0] * rank) or []
    auto = operator.get_string("auto_pad", "NOTSET")
    asked = operator.get_ints("output_shape")
    if asked is None and auto.startswith("SAME"):
        asked = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
    flat = operator.get_ints("pads", [0] * 2 * rank) or []
    cut = list(zip(flat[:rank], flat[rank:], strict=True))
    if asked is not None:
        total = [size + one - want for size, one, want in zip(whole.shape[2:], more, asked[-rank:], strict=True)]
        less = [(one // 2, one - one // 2) for one in total]
        cut = less if auto == "SAME_UPPER" else [(after, before) for before, after in less]
    made = _padded(whole, [(-before, one - after) for (before, after), one in zip(cut, more, strict=True)])
    return made if bias is None else made + bias.reshape(-1, *[1] * rank)


def _gemm(operator: Operator, a: Tensor, b: Tensor, c: Tensor = None) -> Tensor:
    a = a.T if operator.get_int("transA", 0) else a
    b = b.T if operator.get_int("transB", 0) else b
    made = operator.get_float("alpha", 1.0) * (a @ b)
    return made if c is None else made + operator.get_float("beta", 1.0) * c


def _matmul(_: Operator, a: Tensor, b: Tensor) -> Tensor:
    return torch.matmul(a, b)


def _einsum(operator: Operator, *inputs: Tensor) -> Tensor:
    return torch.einsum(operator.get_string("equation", "").replace(" ", ""), *inputs)


def _batch_norm(operator: Operator, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    operator.refuse(unless=not operator.get_int("training_mode", 0), why="it is in training mode")
    factor = scale * torch.rsqrt(variance + operator.get_float("epsilon", 1e-5))
    along = (-1, *[1] * (x.ndim - 2))
    return x * factor.reshape(along) + (bias - mean * factor).reshape(along)


def _instance_norm(operator: Operator, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return functional.group_norm(x, x.shape[1], scale, bias, operator.get_float("epsilon", 1e-5))


def _group_norm(operator: Operator, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Normalise; before ONNX 21 a factor is of a group, not of a channel."""
    groups = operator.get_int("num_groups", 1)
    if operator.version < 21:
        scale, bias = (one.repeat_interleave(x.shape[1] // groups) for one in (scale, bias))
    return functional.group_norm(x, groups, scale, bias, operator.get_float("epsilon", 1e-5))


def _layer_norm(operator: Operator, x: Tensor, scale: Tensor, bias: Tensor = None) -> Tensor:
    operator.refuse(unless=len(operator.node.outputs) == 1, why="its mean and deviation are asked for")
    shape = x.shape[operator.get_int("axis", -1) % x.ndim :]
    made = functional.layer_norm(x, shape, eps=operator.get_float("epsilon", 1e-5)) * scale
    return made if bias is None else made + bias


def _rms_norm(operator: Operator, x: Tensor, scale: Tensor) -> Tensor:
    axes = list(range(operator.get_int("axis", -1) % x.ndim, x.ndim))
    return x * torch.rsqrt(x.square().mean(axes, keepdim=True) + operator.get_float("epsilon", 1e-5)) * scale


def _lrn(operator: Operator, x: Tensor) -> Tensor:
    """Divide by what channels around have, as many before as behind; one more behind where the size is even."""
    size = operator.get_int("size", 1)
    squares = functional.pad(x.square().movedim(1, -1), ((size - 1) // 2, size // 2)).unfold(-1, size, 1).sum(-1)
    factor = operator.get_float("bias", 1.0) + operator.get_float("alpha", 1e-4) / size * squares.movedim(-1, 1)
    return x / factor ** operator.get_float("beta", 0.75)


def _max_pool(operator: Operator, x: Tensor) -> Tensor:
    operator.refuse(unless=len(operator.node.outputs) == 1, why="the places of the largest are asked for")
    kernel = operator.get_ints("kernel_shape") or []
    strides, dilations = _moves(operator, len(kernel))
    pads, more = _pads(operator, x.shape[2:], kernel), _beyond(operator, x.shape[2:], kernel)
    wide = _padded(x, [(before, after + one) for (before, after), one in zip(pads, more, strict=True)], -torch.inf)
    return _LARGEST[len(kernel)](wide, kernel, strides, 0, dilations)


def _average_pool(operator: Operator, x: Tensor) -> Tensor:
    """Divide the sum in each window by how many of its numbers count."""
    kernel = operator.get_ints("kernel_shape") or []
    pads, more = _pads(operator, x.shape[2:], kernel), _beyond(operator, x.shape[2:], kernel)
    behind = [(0, one) for one in more]
    counted = _padded(torch.ones_like(x[:1, :1]), pads, float(operator.get_int("count_include_pad", 0)))
    sums = _sums(operator, _padded(_padded(x, pads), behind), kernel)
    return sums / _sums(operator, _padded(counted, behind), kernel)


def _sums(operator: Operator, x: Tensor, kernel: Sequence[int]) -> Tensor:
    strides, dilations = _moves(operator, len(kernel))
    ones = torch.ones(1, 1, *kernel, dtype=x.dtype)
    apart = x.reshape(-1, 1, *x.shape[2:])
    made = _CONVOLVE[len(kernel)](apart, ones, None, strides, 0, dilations)
    return made.reshape(*x.shape[:2], *made.shape[2:])


def _global(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda _, x: function(x, list(range(2, x.ndim)), keepdim=True)


def _reduced(function: Callable[[Tensor, Sequence[int], bool], Tensor]) -> Callable[..., Tensor]:
    def made(operator: Operator, x: Tensor, axes: Tensor = None) -> Tensor:
        asked = operator.listed("axes", axes)
        if not asked and operator.get_int("noop_with_empty_axes", 0):
            return x
        return function(x, asked or list(range(x.ndim)), bool(operator.get_int("keepdims", 1)))

    return made


def _moves(operator: Operator, rank: int) -> tuple[list[int], list[int]]:
    """Return strides and dilations."""
    ones = [1] * rank
    return operator.get_ints("strides", ones) or ones, operator.get_ints("dilations", ones) or ones


def _pads(operator: Operator, sizes: Sequence[int], kernel: Sequence[int]) -> list[tuple[int, int]]:
    """Return what stands before and behind each spatial axis."""
    rank, auto = len(kernel), operator.get_string("auto_pad", "NOTSET")
    if not auto.startswith("SAME"):
        flat = (operator.get_ints("pads") if auto == "NOTSET" else None) or [0] * 2 * rank
        return list(zip(flat[:rank], flat[rank:], strict=True))
    strides, dilations = _moves(operator, rank)
    found = []
    for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + (width - 1) * dilation + 1 - size)
        less, rest = total // 2, total - total // 2
        found.append((less, rest) if auto == "SAME_UPPER" else (rest, less))
    return found


def _beyond(operator: Operator, sizes: Sequence[int], kernel: Sequence[int]) -> list[int]:
    """Return by how much windows reach behind each axis: with ``ceil_mode``, if they begin before its end."""
    if not operator.get_int("ceil_mode", 0):
        return [0] * len(kernel)
    strides, dilations = _moves(operator, len(kernel))
    found = []
    for size, (before, after), width, stride, dilation in zip(
        sizes, _pads(operator, sizes, kernel), kernel, strides, dilations, strict=True
    ):
        reach = (width - 1) * dilation + 1
        steps = ceil((size + before + after - reach) / stride)
        steps -= steps * stride >= size + before
        found.append(max(0, steps * stride + reach - size - before - after))
    return found


def _padded(x: Tensor, pads: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    flat = [number for pad in reversed(pads) for number in pad]
    return functional.pad(x, flat, value=value) if any(flat) else x


LAYERS: Table = {
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "GlobalAveragePool": _global(torch.mean),
    "GlobalMaxPool": _global(torch.amax),
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LRN": _lrn,
    "LayerNormalization": _layer_norm,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "RMSNormalization": _rms_norm,
    "ReduceL1": _reduced(lambda x, axes, keep: x.abs().sum(axes, keepdim=keep)),
    "ReduceL2": _reduced(lambda x, axes, keep: torch.linalg.vector_norm(x, dim=axes, keepdim=keep)),
    "ReduceLogSum": _reduced(lambda x, axes, keep: x.sum(axes, keepdim=keep).log()),
    "ReduceLogSumExp": _reduced(lambda x, axes, keep: x.logsumexp(axes, keepdim=keep)),
    "ReduceMax": _reduced(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
    "ReduceMean": _reduced(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "ReduceMin": _reduced(lambda x, axes, keep: x.amin(axes, keepdim=keep)),
    "ReduceSum": _reduced(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
    "ReduceSumSquare": _reduced(lambda x, axes, keep: x.square().sum(axes, keepdim=keep)),
}
