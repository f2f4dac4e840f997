"""Convolutions beside each other whose results are added, made one (Ding et al. 2021, RepVGG)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir

from onnxopt.rewrite.reading import Array, constant, only_reader, producer, weight
from onnxopt.rewrite.rule import Miss, Outcome, Rule, remade


@dataclass(frozen=True)
class _Branch:
    """A convolution, or the value itself, as a convolution of the same result.

    Attributes:
        kernel: [out, in / groups, …].
        bias: [out].
        pads: Begins, then ends, for each spatial axis.
        settings: Groups, strides and dilations.
    """

    kernel: Array
    bias: Array
    pads: tuple[int, ...]
    settings: tuple[object, ...]


class ParallelConvs(Rule):
    """A sum of two convolutions of one value, or of a convolution and its own input, is one convolution."""

    name: ClassVar[str] = "parallel-convs"
    operators: ClassVar[frozenset[str]] = frozenset({"Add"})

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if strides and groups agree and the smaller kernel lies in the middle of the larger."""
        convs = [producer(value, "Conv") for value in node.inputs]
        main = convs[0] or convs[1]
        if main is None:
            return None
        other = convs[1] if convs[0] is not None else None
        beside = node.inputs[1] if main is convs[0] else node.inputs[0]
        source = main.inputs[0]
        if (other.inputs[0] if other is not None else beside) is not source:
            return None
        if not all(only_reader(conv.outputs[0], node) for conv in convs if conv is not None):
            return Miss("one of the convolutions is read elsewhere too", main)
        first = _branch(main)
        second = _branch(other) if other is not None else _identity(first)
        if first is None or second is None:
            return Miss(
                "weights are not constant, or pads are not written out", main if first is None else other or main
            )
        joined = _joined(first, second) or _joined(second, first)
        if joined is None:
            return Miss("strides, groups or the middles of the kernels differ", node)
        return _as_conv(main, source, joined)


def _branch(node: onnx_ir.Node) -> _Branch | None:
    kernel = constant(node.inputs[1])
    given = node.inputs[2] if len(node.inputs) > 2 else None
    bias = constant(given)
    if kernel is None or (given is not None and bias is None) or kernel.dtype.kind != "f":
        return None
    if node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return None
    axes = kernel.ndim - 2
    ones = [1] * axes
    settings = (
        node.attributes.get_int("group", 1),
        tuple(node.attributes.get_ints("strides", ones)),
        tuple(node.attributes.get_ints("dilations", ones)),
    )
    pads = tuple(node.attributes.get_ints("pads", [0] * (2 * axes)))
    return _Branch(kernel, np.zeros(kernel.shape[0]) if bias is None else bias, pads, settings)


def _identity(like: _Branch | None) -> _Branch | None:
    """Return the convolution that changes nothing, of as many channels and groups as another."""
    if like is None:
        return None
    out, inside = like.kernel.shape[:2]
    groups, strides, _ = like.settings
    if out != inside * int(str(groups)) or strides != (1,) * (like.kernel.ndim - 2):
        return None
    kernel = np.zeros((out, inside, *(1 for _ in like.kernel.shape[2:])), like.kernel.dtype)
    kernel[np.arange(out), np.arange(out) % inside] = 1
    return _Branch(kernel, np.zeros(out), (0,) * len(like.pads), like.settings)


def _joined(large: _Branch, small: _Branch) -> _Branch | None:
    """Return both as one, the smaller kernel laid into the larger where their pads say."""
    axes = large.kernel.ndim - 2
    if large.settings != small.settings or large.kernel.shape[:2] != small.kernel.shape[:2]:
        return None
    dilations = large.settings[2]
    begins = [a - b for a, b in zip(large.pads[:axes], small.pads[:axes], strict=True)]
    ends = [a - b for a, b in zip(large.pads[axes:], small.pads[axes:], strict=True)]
    sizes = zip(large.kernel.shape[2:], small.kernel.shape[2:], begins, ends, strict=True)
    if min([*begins, *ends]) < 0 or any(big != little + a + b for big, little, a, b in sizes):
        return None
    if dilations != (1,) * axes:
        return None
    around = [(0, 0), (0, 0), *zip(begins, ends, strict=True)]
    kernel = large.kernel.astype(np.float64) + np.pad(small.kernel.astype(np.float64), around)
    bias = large.bias.astype(np.float64) + small.bias
    return _Branch(kernel, bias, large.pads, large.settings)


def _as_conv(node: onnx_ir.Node, source: onnx_ir.Value | None, branch: _Branch) -> Outcome:
    like = constant(node.inputs[1])
    if like is None:
        return None
    name = node.inputs[1].name if node.inputs[1] is not None else node.name
    weights = (weight(f"{name}_joined", branch.kernel, like), weight(f"{name}_bias", branch.bias, like))
    shape = onnx_ir.AttrInt64s("kernel_shape", list(branch.kernel.shape[2:]))
    pads = onnx_ir.AttrInt64s("pads", list(branch.pads))
    return remade(node, [source, *weights], {**node.attributes, "kernel_shape": shape, "pads": pads}, weights)


PARALLEL: tuple[Rule, ...] = (ParallelConvs(),)
