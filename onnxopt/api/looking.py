"""Look at models and data, and change neither."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Literal

from onnxopt.api.arguments import Place, any_samples, calibration_of, evaluation_of, ignore, metric_of
from onnxopt.compile.engine import Backend, make_backend
from onnxopt.compile.isolation import IsolatedEngine
from onnxopt.data.files import write_samples
from onnxopt.data.sample import Samples
from onnxopt.data.source import source_at
from onnxopt.data.split import check_samples
from onnxopt.errors import ModelError
from onnxopt.evaluate.drift import compare_outputs
from onnxopt.evaluate.score import Scores
from onnxopt.evaluate.score import evaluate as evaluate_engine
from onnxopt.evaluate.store import OutputStore
from onnxopt.explain.layerwise import compare_layers
from onnxopt.explain.measured import Compared, Profile
from onnxopt.explain.prunable import Prunable, find_prunable
from onnxopt.explain.summary import Summary, summarise
from onnxopt.ir.model import Model
from onnxopt.ir.read import read_model
from onnxopt.ir.signature import Port
from onnxopt.pipeline.events import Listener
from onnxopt.profile.latency import Plan
from onnxopt.profile.launches import LAUNCHES, compare_launches, measure_engine, timed_feeds
from onnxopt.profile.machine import this_machine
from onnxopt.targets.target import target


def inspect(model: Place) -> Summary:
    """Return what a model is made of."""
    return summarise(read_model(model), Path(model))


def inspect_groups(model: Place, *, data: str | None = None, residual: bool = False) -> Prunable:
    """Return what can be pruned from a model, and why the rest cannot.

    Args:
        model: The ``.onnx`` file.
        data: As ``--data``; the first sample gives the sizes of dynamic dimensions.
        residual: Whether channels that are normalised over count.
    """
    read = read_model(model)
    return find_prunable(read, calibration_of(data, read, 0), residual=residual)


def profile_model(
    model: Place,
    *,
    data: str | None = None,
    runtime: str = "ort",
    options: Mapping[str, Any] | None = None,
    threads: int = 1,
    versus: Place | None = None,
    seconds: float = 5.0,
) -> Profile:
    """Measure a model's latency, or its speed-up over another model, measured in turn.

    Args:
        model: The ``.onnx`` file.
        data: What to feed, as ``--data``; made-up inputs if None.
        runtime: Backend.
        options: Of the backend.
        threads: One inference may use.
        versus: Another model with the same inputs.
        seconds: Time to measure, over all launches, warm-up not counted.
    """
    backend = make_backend(runtime, options)
    start = partial(IsolatedEngine, backend, target=target().with_threads(threads))
    feeds = timed_feeds(any_samples(data, read_model(model)))
    told = (str(backend), this_machine(), threads)
    if versus is None:
        return Profile(*told, measure_engine(partial(start, Path(model)), feeds, Plan(max_seconds=seconds)))
    read_model(versus)
    plan = Plan(max_seconds=seconds / LAUNCHES)
    found = compare_launches(partial(start, Path(versus)), partial(start, Path(model)), feeds, plan, LAUNCHES)
    return Profile(*told, found.candidate, found.baseline, found.speedup)


def evaluate_model(
    model: Place,
    *,
    data: str,
    metric: str | None = None,
    goal: Literal["max", "min"] | None = None,
    runtime: str = "ort",
    options: Mapping[str, Any] | None = None,
    threads: int = 1,
    reference: Place | None = None,
) -> Scores:
    """Score a model on all of some samples, and against another model where one is given.

    Args:
        model: The ``.onnx`` file.
        data: As ``--data``; of a folder with ``evaluation``, that part.
        metric: By name, or ``module:function``.
        goal: For a metric of one's own.
        runtime: Backend.
        options: Of the backend.
        threads: One inference may use.
        reference: A model whose outputs drift and drop are measured against.
    """
    backend: Backend = make_backend(runtime, options)
    where = target().with_threads(threads)
    samples = evaluation_of(data, read_model(model))
    chosen = metric_of(metric, goal)
    with ExitStack() as stack:
        store = None
        if reference is not None:
            read_model(reference)
            store = OutputStore(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onnxopt-"))))
            with IsolatedEngine(backend, Path(reference), where) as original:
                evaluate_engine(original, samples, keep=store)
        engine = stack.enter_context(IsolatedEngine(backend, Path(model), where))
        return evaluate_engine(engine, samples, chosen, reference=store)


def compare(
    first: Place,
    second: Place,
    *,
    data: str | None = None,
    runtime: str = "ort",
    layers: bool = False,
    threads: int = 1,
    seconds: float = 5.0,
    listen: Listener | None = None,
) -> Compared:
    """Hold a model's outputs and latency against another's.

    Args:
        first: The reference.
        second: The model in question.
        data: As ``--data``; made-up inputs if None.
        runtime: Backend of both.
        layers: Whether to hold what layers make against each other too, in ONNX Runtime.
        threads: One inference may use.
        seconds: Time to measure.
        listen: Told what happens.

    Raises:
        ModelError: The models do not take and give the same, or have none of the layers in common that were asked for.
    """
    read = read_model(first)
    samples, other = any_samples(data, read), read_model(second)
    _refuse_other_interface(read, other)
    by_layer = compare_layers(read, other, samples, listen or ignore) if layers else ()
    start = partial(IsolatedEngine, make_backend(runtime), target=target().with_threads(threads))
    first_engine, second_engine = partial(start, Path(first)), partial(start, Path(second))
    with first_engine() as a, second_engine() as b:
        drift = compare_outputs((a.run(sample.feeds), b.run(sample.feeds)) for sample in samples)
    plan = Plan(max_seconds=seconds / LAUNCHES)
    found = compare_launches(first_engine, second_engine, timed_feeds(samples), plan, LAUNCHES)
    return Compared(drift, found.speedup, len(samples), samples.synthetic, by_layer)


def _refuse_other_interface(first: Model, second: Model) -> None:
    """Raise ModelError if two models do not take and give the same."""
    for word in ("inputs", "outputs"):
        mine, theirs = ({port.name: port for port in getattr(one.signature, word)} for one in (first, second))
        other = [name for name, port in mine.items() if name not in theirs or not _alike(port, theirs[name])]
        if other or mine.keys() != theirs.keys():
            told = " and ".join(", ".join(map(str, one.values())) for one in (mine, theirs))
            raise ModelError(f"the two models have other {word}: {told}", hint="compare models of one interface")


def _alike(one: Port, other: Port) -> bool:
    """Whether two ports may hold the same array, as far as their shapes are known."""
    return one.shape is None or other.shape is None or len(one.shape) == len(other.shape)


def write_data(source: str, model: Place, out: Place, *, limit: int | None = None) -> int:
    """Write samples of any source in the exchange format; return how many.

    Raises:
        DataError: A sample does not fit the model; nothing is written then.
    """
    read = read_model(model)
    samples = source_at(source).open(read, Path())
    chosen: Samples = samples[:limit] if limit else samples
    check_samples(chosen, read.signature)
    return write_samples(chosen, Path(out))
