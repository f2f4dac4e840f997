"""What can be pruned from a model: ``onnxopt inspect --groups``, and before and after of ``onnxopt prune``."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxopt.data.sample import Samples
from onnxopt.evaluate.score import Scores
from onnxopt.explain.measured import Compared
from onnxopt.ir.model import Model
from onnxopt.prune.groups import Left, find_groups, prepared
from onnxopt.prune.sizes import find_sizes

_LEVEL = 6


@dataclass(frozen=True)
class GroupTold:
    """Channels that each go from every weight they are in.

    Attributes:
        name: The first weight they are in.
        width: How many.
        each: Positions one takes.
        heads: Whether they are whole heads of attention.
        weights: The axes they are along, as NAME[AXIS].
    """

    name: str
    width: int
    each: int
    heads: bool
    weights: tuple[str, ...]


@dataclass(frozen=True)
class Prunable:
    """What can be pruned from a model.

    Attributes:
        groups: In the order of the graph.
        coverage: Share of the multiply-accumulates in nodes that can lose channels.
        macs: Multiply-accumulates of one inference.
        parameters: Numbers in weights.
        zeros: Share of them that is zero.
        left: Nodes that multiply and cannot lose channels, the costliest first.
    """

    groups: tuple[GroupTold, ...]
    coverage: float
    macs: float
    parameters: int
    zeros: float
    left: tuple[Left, ...]


@dataclass(frozen=True)
class Pruned:
    """A model before and after it was pruned.

    Attributes:
        before: The input.
        after: What was written.
        size_before: Bytes of the file.
        size_after: Likewise.
        compressed_before: Bytes of the file as zlib compresses it: what zeros make smaller.
        compressed_after: Likewise.
        compared: Outputs and latency against the input's.
        scores: By the metric, where one was asked for.
    """

    before: Prunable
    after: Prunable
    size_before: int
    size_after: int
    compressed_before: int
    compressed_after: int
    compared: Compared
    scores: Scores | None = None


def compressed_size(files: Iterable[Path]) -> int:
    """Return the bytes of files as zlib compresses each, read a part at a time."""
    total = 0
    for path in files:
        packer = zlib.compressobj(_LEVEL)
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                total += len(packer.compress(part))
        total += len(packer.flush())
    return total


def find_prunable(model: Model, samples: Samples | None = None, *, residual: bool = False) -> Prunable:
    """Return what can be pruned.

    Args:
        model: The model.
        samples: The first gives the sizes of dynamic dimensions; made up if None.
        residual: Whether channels that are normalised over count.
    """
    graph = prepared(model.graph)
    found = find_groups(graph, find_sizes(graph, samples), statistics=residual)
    told = (
        GroupTold(group.name, group.width, group.each, group.heads, tuple(map(str, group.slots)))
        for group in found.found
    )
    arrays = [value.const_value.numpy() for value in graph.graph.initializers.values() if value.const_value is not None]
    parameters = sum(array.size for array in arrays)
    zeros = (parameters - sum(np.count_nonzero(array) for array in arrays)) / max(parameters, 1)
    return Prunable(tuple(told), found.coverage, found.macs, parameters, float(zeros), found.left)
