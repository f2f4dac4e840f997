"""Which nodes sixteen bits cannot hold the numbers of, as seen on samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir

from onnxopt.context import Context
from onnxopt.data.sample import Samples
from onnxopt.evaluate.collect import collect
from onnxopt.ir.weights import constant_tensor
from onnxopt.quantize.histogram import MASK, Histogram

MARGIN = 2.0
"""Inputs that were not among the samples may take a tensor so much further."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What numbers a type has: the largest finite one, the smallest with all its bits, and the smallest but zero."""

    largest: float
    normal: float
    smallest: float


REACH: Mapping[onnx_ir.DataType, Reach] = {
    onnx_ir.DataType.FLOAT16: Reach((2 - 2.0**-10) * 2.0**15, 2.0**-14, 2.0**-24),
    onnx_ir.DataType.BFLOAT16: Reach((2 - 2.0**-7) * 2.0**127, 2.0**-126, 2.0**-133),
}
"""IEEE 754 binary16, and float32 without its lower half."""


def find_extremes(
    graph: onnx_ir.Model, nodes: Sequence[onnx_ir.Node], target: onnx_ir.DataType, samples: Samples, ctx: Context
) -> dict[onnx_ir.Node, str]:
    """Return the nodes that read or make numbers the target cannot hold, each with the tensor and what was seen.

    Args:
        graph: Sorted and uniquely named; not changed.
        nodes: Of its main graph.
        target: The sixteen-bit type.
        samples: To run the model on.
        ctx: Gives ``scratch``.

    Raises:
        DataError: There are no samples.
    """
    watched = dict.fromkeys(value for node in nodes for value in float_tensors(node) if constant_tensor(value) is None)
    seen = collect(graph, {value: Histogram() for value in watched}, samples, ctx)
    told = {name: _complaint(name, one, target) for name, one in seen.items()}
    return _first_reasons(nodes, {name: text for name, text in told.items() if text is not None})


def float_tensors(node: onnx_ir.Node) -> list[onnx_ir.Value]:
    """Return the float32 tensors a node reads and makes."""
    values = (value for value in (*node.inputs, *node.outputs) if value is not None)
    return [value for value in values if value.dtype == onnx_ir.DataType.FLOAT]


def _first_reasons(nodes: Sequence[onnx_ir.Node], told: Mapping[str, str]) -> dict[onnx_ir.Node, str]:
    found = {}
    for node in nodes:
        names = [value.name or "" for value in float_tensors(node)]
        reason = next((told[name] for name in names if name in told), None)
        if reason is not None:
            found[node] = reason
    return found


def _complaint(name: str, seen: Histogram, target: onnx_ir.DataType) -> str | None:
    """Return what of a tensor a type cannot hold."""
    reach, word = REACH[target], target.name.lower()
    if seen.masked:
        return f"tensor {name!r} took masks beyond {MASK:g}, which are infinite in {word}"
    if seen.is_empty:
        return None
    extreme = seen.high if seen.high >= -seen.low else seen.low
    if abs(extreme) * MARGIN > reach.largest:
        return f"tensor {name!r} reached {extreme:.4g}, and {word} ends at {reach.largest:.4g}"
    if _is_mostly_below(seen, reach.normal):
        return f"tensor {name!r} reached {extreme:.2g} and is mostly below {reach.normal:.2g}, where {word} loses bits"
    return None


def _is_mostly_below(seen: Histogram, least: float) -> bool:
    """Whether most values lie closer to zero than ``least``; those in the bins at zero are not counted.

    Zeros lie there, which lose nothing. Where a bin is wider than ``least``, larger values outweigh what is lost.
    """
    largest = max(seen.high, -seen.low)
    if largest < least:
        return largest > 0
    distance = np.abs(seen.centers) + seen.width / 2
    told = distance > seen.width * 1.5
    return bool(2 * seen.counts[told & (distance <= least)].sum() > seen.counts[told].sum() > 0)
