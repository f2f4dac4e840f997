"""What layers multiply on samples: Gram matrices, in as many runs over the samples as memory asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir

from onnxopt.context import Context
from onnxopt.data.sample import Samples
from onnxopt.evaluate.batches import fitting
from onnxopt.evaluate.collect import collect
from onnxopt.evaluate.gram import Gram
from onnxopt.ir.windows import Window

_MOST_BYTES = 1 << 29
"""Of Gram matrices held at a time; tensors beyond that wait for another run over the samples."""

MOST_INPUTS = 4608
"""Of an output; memory grows with the square and work with the cube."""


@dataclass(frozen=True)
class Read:
    """A tensor as a layer looks at it.

    Attributes:
        value: The tensor.
        window: Of a convolution; None for rows along the last axis.
        inputs: Of an output.
    """

    value: onnx_ir.Value
    window: Window | None
    inputs: int


def find_inputs(
    graph: onnx_ir.Model, reads: Sequence[Read], samples: Samples, ctx: Context
) -> Iterator[Mapping[Read, Gram]]:
    """Yield what is seen of tensors, some at a time; those with a row to look at, and few enough inputs.

    Args:
        graph: Sorted and uniquely named; must not be changed before the last are seen.
        reads: Each once.
        samples: Read once for each batch.
        ctx: Gives ``scratch``; told of progress.
    """
    for batch in _batches([one for one in reads if _can_be_seen(one)]):
        wanted = {one.value: Gram(one.window) for one in batch}
        found = collect(graph, wanted, samples, ctx, what="looking at inputs")
        yield {one: found[one.value.name or ""] for one in batch if found[one.value.name or ""].rows}


def _can_be_seen(one: Read) -> bool:
    made = one.value.producer() is not None or one.value.is_graph_input()
    return made and one.inputs <= MOST_INPUTS


def _batches(reads: Sequence[Read]) -> Iterator[list[Read]]:
    """Yield what fits in memory together, no tensor in two ways at a time."""
    ways: Counter[onnx_ir.Value] = Counter()
    rounds: dict[int, list[Read]] = {}
    for one in reads:
        rounds.setdefault(ways[one.value], []).append(one)
        ways[one.value] += 1
    for some in rounds.values():
        yield from fitting(some, lambda one: 8 * one.inputs**2, _MOST_BYTES)
