"""Calibration: what values tensors take on samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir

from onnxopt.context import Context, Warned
from onnxopt.data.sample import Samples
from onnxopt.errors import DataError
from onnxopt.evaluate.collect import collect
from onnxopt.evaluate.kept import Kept
from onnxopt.ir.model import Model
from onnxopt.quantize.histogram import BINS, Histogram


@dataclass(frozen=True)
class Seen:
    """What a calibration has seen so far: samples, and a histogram of each tensor by name."""

    samples: int
    histograms: Mapping[str, Histogram]


def calibrate(graph: onnx_ir.Model, tensors: Sequence[onnx_ir.Value], samples: Samples, ctx: Context) -> Seen:
    """Return what float tensors of a model's main graph take on samples, whose shapes may differ.

    Args:
        graph: Sorted and uniquely named; not changed.
        tensors: To be watched: inputs of the graph, or what its nodes make.
        samples: Read one at a time.
        ctx: Gives ``scratch``; told of progress and of values that had to be left out.

    Raises:
        DataError: There are no samples, or a tensor took no finite value in any of them.
    """
    names = [value.name or "" for value in tensors]
    kept = Kept.of(ctx.kept, "calibration", BINS, Model(graph).digest, samples.fingerprint, names)
    empty = {value: Histogram(arrays=len(samples)) for value in tensors}
    seen = Seen(len(samples), collect(graph, empty, samples, ctx, kept))
    _tell(seen, ctx)
    return seen


def _tell(seen: Seen, ctx: Context) -> None:
    """Tell of what was left out of ranges; refuse tensors of which nothing is left."""
    for name, histogram in seen.histograms.items():
        if histogram.is_empty and histogram.seen:
            raise DataError(
                f"tensor {name!r} took no finite value in any sample",
                hint="look at the samples: a NaN or an infinite input spreads through the model",
            )
        if histogram.invalid:
            ctx.emit(Warned(f"{name!r} was NaN {histogram.invalid} times; its range is that of the other values"))
        if histogram.masked:
            share = histogram.masked / histogram.seen
            ctx.emit(Warned(f"{share:.1%} of {name!r} are masks beyond 1e30; its range is that of the other values"))
