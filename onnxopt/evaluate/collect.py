"""What tensors of a model are on samples: a statistic of each, in memory that does not grow with their number.

The model runs in a child, which keeps the statistics (``collector``). What it has seen is kept by content every few
seconds, so that work that was cut short goes on, and work that was finished is not done again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import onnx_ir

from onnxopt.compile.engine import Array
from onnxopt.compile.isolation import Child, Limits
from onnxopt.context import Context, Progress
from onnxopt.data.sample import Samples
from onnxopt.errors import DataError, EngineError
from onnxopt.evaluate.kept import NOWHERE, Kept
from onnxopt.evaluate.statistic import Statistic
from onnxopt.ir.cleanup import remove_unused
from onnxopt.ir.model import Model, private_copy
from onnxopt.ir.write import write_model

_SECONDS_BETWEEN = 5.0
_LIMITS = Limits(seconds=1800)

S = TypeVar("S", bound=Statistic)


def collect(
    graph: onnx_ir.Model,
    wanted: Mapping[onnx_ir.Value, S],
    samples: Samples,
    ctx: Context,
    kept: Kept = NOWHERE,
    what: str = "calibrating",
) -> dict[str, S]:
    """Return statistics of tensors of a model's main graph, by name, over samples whose shapes may differ.

    Args:
        graph: Sorted and uniquely named; not changed.
        wanted: Tensors, each with a statistic that has seen nothing: inputs of the graph, or what its nodes make.
        samples: Read one at a time.
        ctx: Gives ``scratch``; told of progress.
        kept: Where what has been seen is kept, and found again.
        what: Is going on, in a word.

    Raises:
        DataError: There are no samples.
    """
    if not len(samples):
        raise DataError("there are no samples to calibrate on", hint="give at least one, better a hundred")
    state = kept.read() or {"samples": 0, "statistics": {}}
    fresh = {value.name or "": statistic for value, statistic in wanted.items()}
    known = {name: fresh[name].of(one) for name, one in state["statistics"].items()}
    if state["samples"] == len(samples):
        return known
    model = write_watched(graph, list(wanted), ctx.scratch)
    return _collected(model, {**fresh, **known}, samples[state["samples"] :], state["samples"], kept, ctx, what)


def write_watched(graph: onnx_ir.Model, tensors: Sequence[onnx_ir.Value], folder: Path) -> Path:
    """Write a model with tensors, found by name, as its outputs, and no others; return the file."""
    watched = private_copy(graph)
    made = {value.name: value for node in watched.graph for value in node.outputs}
    asked = [made[value.name] for value in tensors if value.name in made]
    watched.graph.outputs[:] = asked or watched.graph.outputs[:]
    remove_unused(watched)
    path = folder / "watched.onnx"
    write_model(Model(watched), path)
    return path


def _collected(
    model: Path, statistics: Mapping[str, S], samples: Samples, before: int, kept: Kept, ctx: Context, what: str
) -> dict[str, S]:
    """Return statistics that saw some samples before, after the samples still to come."""
    total = before + len(samples)
    with Child(_LIMITS) as child:
        child.make("onnxopt.evaluate.collector:Collector", str(model), dict(statistics))
        written, done = time.monotonic(), before
        for batch in read_ahead(samples, child.attribute("at_a_time")):
            try:
                child.call("add", batch)
            except EngineError as error:
                error.where = error.where or f"samples {done + 1} to {done + len(batch)} of {total}"
                error.hint = error.hint or "hold them against the model's inputs: onnxopt data SAMPLES --model MODEL"
                raise
            done += len(batch)
            ctx.emit(Progress(what, done, total))
            if kept.path and time.monotonic() - written > _SECONDS_BETWEEN:
                kept.write({"samples": done, "statistics": child.call("state")})
                written = time.monotonic()
        found: dict[str, S] = child.call("statistics")
    if kept.path:
        kept.write({"samples": total, "statistics": {name: one.state() for name, one in found.items()}})
    return found


def read_ahead(samples: Samples, count: int = 1) -> Iterator[list[dict[str, Array]]]:
    """Yield the feeds of samples, so many at a time, each batch read while the one before is worked on."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(_read, samples, 0, count)
        for index in range(0, len(samples), count):
            here = coming.result()
            coming = reader.submit(_read, samples, index + count, count)
            yield here


def _read(samples: Samples, first: int, count: int) -> list[dict[str, Array]]:
    return [dict(samples.read(index).feeds) for index in range(first, min(first + count, len(samples)))]
