"""The verbs as Python functions; the command line only parses, calls one of these, and prints."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

from onnxopt.compile.engine import Backend, make_backend
from onnxopt.compile.isolation import IsolatedEngine
from onnxopt.compile.isolation import Limits as ChildLimits
from onnxopt.data.files import write_samples
from onnxopt.data.sample import Samples
from onnxopt.data.source import source_at
from onnxopt.data.split import check_samples, open_split, synthetic_split
from onnxopt.errors import UsageError, did_you_mean
from onnxopt.evaluate.budget import Budget
from onnxopt.evaluate.drift import compare_outputs
from onnxopt.evaluate.metrics import Metric, make_metric
from onnxopt.evaluate.score import Scores
from onnxopt.evaluate.score import evaluate as evaluate_engine
from onnxopt.evaluate.store import OutputStore
from onnxopt.explain.measured import Compared, Profile
from onnxopt.explain.summary import Summary, summarise
from onnxopt.ir.model import Model
from onnxopt.ir.read import read_model
from onnxopt.ir.write import check_folder, refuse_overwriting, write_model
from onnxopt.options import build
from onnxopt.passes import Pass, make_pass
from onnxopt.pipeline.artefact import write_artefact
from onnxopt.pipeline.cache import Cache
from onnxopt.pipeline.effort import EFFORTS
from onnxopt.pipeline.events import Listener
from onnxopt.pipeline.making import Maker, ModelFile
from onnxopt.pipeline.optimize import Result, run_recipe
from onnxopt.pipeline.steps import CachedSteps
from onnxopt.profile.latency import Plan
from onnxopt.profile.launches import LAUNCHES, compare_launches, measure_engine, timed_feeds
from onnxopt.profile.machine import this_machine
from onnxopt.recipe.recipe import DataSpec, Limits, Recipe, SearchSpec, read_recipe
from onnxopt.report.html import html_page
from onnxopt.targets.target import target

Place = Path | str


def optimize(
    model: Place,
    *,
    data: str | None = None,
    metric: str | None = None,
    goal: Literal["max", "min"] | None = None,
    max_drop: float = 0.01,
    min_sqnr: float = 20.0,
    max_latency: float | None = None,
    max_size: int | None = None,
    objective: Literal["latency", "size", "memory"] = "latency",
    runtime: Literal["any", "ort", "openvino"] = "any",
    threads: int = 1,
    out: Place | None = None,
    cache: Place | None = None,
    seed: int = 0,
    limits: ChildLimits | None = None,
    effort: str = "normal",
    listen: Listener | None = None,
    command: str = "onnxopt.optimize",
) -> Result:
    """Return the fastest artefact proved to keep the budget; the input itself where nothing is.

    Args:
        model: The ``.onnx`` file.
        data: As ``--data``: a folder, a file, a YAML description, or ``module:function``. None: made-up inputs.
        metric: By name, or ``module:function``. None: fidelity to the input decides, or top1 if labels say so.
        goal: For a metric of one's own; the built-in ones know theirs.
        max_drop: Relative loss allowed, as a share.
        min_sqnr: dB at every float output, where there is no metric.
        max_latency: Seconds at the median; missing it is told in ``record.shortfall``.
        max_size: Bytes, likewise.
        objective: What to make small.
        runtime: Which runtimes to try.
        threads: One inference may use.
        out: Folder for model, engine, record, lock and report. None: nothing is written.
        cache: Folder of results; the user's cache folder if None.
        seed: Of every random choice.
        limits: Of each child process.
        effort: Spent on measuring: quick, normal or thorough.
        listen: Told what happens.
        command: Told in the record.

    Raises:
        OnnxoptError: The model or the data cannot be used.
    """
    recipe = Recipe(
        model=Path(model),
        data=DataSpec(path=data),
        metric=_metric(metric, goal),
        budget=Budget(max_drop=max_drop, min_sqnr=min_sqnr),
        limits=Limits(max_latency, max_size),
        target=target().with_threads(threads),
        seed=seed,
        search=build(SearchSpec, {"objective": objective, "runtime": runtime}, where="optimize"),
    )
    return _run(recipe, out, cache, limits, effort, listen, command)


def run(
    recipe: Place,
    *,
    out: Place | None = None,
    cache: Place | None = None,
    limits: ChildLimits | None = None,
    effort: str = "normal",
    listen: Listener | None = None,
    command: str = "onnxopt.run",
) -> Result:
    """Do what a recipe file says; see ``optimize`` for the other arguments.

    Raises:
        OnnxoptError: The recipe, the model or the data cannot be used, or a pass fails.
    """
    return _run(read_recipe(Path(recipe)), out, cache, limits, effort, listen, command)


def apply_pass(
    model: Place,
    name: str,
    options: Mapping[str, Any],
    out: Place,
    *,
    data: str | None = None,
    cache: Place | None = None,
    verify: bool = True,
    seed: int = 0,
    listen: Listener | None = None,
) -> ModelFile:
    """Apply one pass to a model file, verify it if it must not change the answer, and write the result.

    Args:
        model: The ``.onnx`` file.
        name: Of the pass.
        options: Its fields.
        out: The file to write.
        data: Calibration samples, as ``--data``.
        cache: Folder of results.
        verify: Whether to hold the pass to its promise.
        seed: Of every random choice.
        listen: Told what happens.

    Raises:
        OnnxoptError: The model, the options or the data cannot be used, or the answer changed.
    """
    change = make_pass(name, options, where=f"options of {name}")
    return _apply(Path(model), (change,), Path(out), data, cache, verify, seed, listen)


def bucket_shapes(
    model: Place,
    dims: Mapping[str, Sequence[int]],
    out: Place,
    *,
    data: str | None = None,
    cache: Place | None = None,
    verify: bool = True,
    seed: int = 0,
    listen: Listener | None = None,
) -> tuple[ModelFile, ...]:
    """Write a model for each combination of sizes, its shapes fixed, rewritten and verified, as NAME-DIM8-….onnx.

    Args:
        model: The ``.onnx`` file.
        dims: Sizes by the dimension's name, or by INPUT.AXIS where it has none.
        out: The folder to write to.
        data: Calibration samples, as ``--data``; those of other sizes verify nothing.
        cache: Folder of results.
        verify: Whether to hold each model to the one it was made from.
        seed: Of every random choice.
        listen: Told what happens.

    Raises:
        UsageError: There are no sizes, or too many combinations.
        OnnxoptError: The model cannot take a size, or the answer changed; models written before stay.
    """
    combinations = [dict(zip(dims, sizes, strict=True)) for sizes in product(*dims.values())]
    if not dims or not 1 <= len(combinations) <= _MOST_BUCKETS:
        raise UsageError(
            f"the sizes make {len(combinations) if dims else 0} models",
            hint=f"name sizes for 1 to {_MOST_BUCKETS} models",
        )
    made = []
    for sizes in combinations:
        name = "-".join((Path(model).stem, *(f"{_in_file_name(dim)}{size}" for dim, size in sizes.items())))
        passes = (make_pass("fix-shapes", {"dims": sizes}), make_pass("rewrite"))
        made.append(_apply(Path(model), passes, Path(out) / f"{name}.onnx", data, cache, verify, seed, listen))
    return tuple(made)


_MOST_BUCKETS = 64


def inspect(model: Place) -> Summary:
    """Return what a model is made of."""
    return summarise(read_model(model), Path(model))


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
    feeds = timed_feeds(_any_samples(data, read_model(model)))
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
    samples = _evaluation(data, read_model(model))
    chosen = _metric(metric, goal)
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
    threads: int = 1,
    seconds: float = 5.0,
) -> Compared:
    """Hold a model's outputs and latency against another's.

    Args:
        first: The reference.
        second: The model in question.
        data: As ``--data``; made-up inputs if None.
        runtime: Backend of both.
        threads: One inference may use.
        seconds: Time to measure.
    """
    samples = _any_samples(data, read_model(first))
    start = partial(IsolatedEngine, make_backend(runtime), target=target().with_threads(threads))
    first_engine, second_engine = partial(start, Path(first)), partial(start, Path(second))
    with first_engine() as a, second_engine() as b:
        drift = compare_outputs((a.run(sample.feeds), b.run(sample.feeds)) for sample in samples)
    plan = Plan(max_seconds=seconds / LAUNCHES)
    found = compare_launches(first_engine, second_engine, timed_feeds(samples), plan, LAUNCHES)
    return Compared(drift, found.speedup, len(samples), samples.synthetic)


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


def default_cache() -> Path:
    """Return the user's cache folder."""
    return Path.home() / ".cache" / "onnxopt"


def _run(
    recipe: Recipe,
    out: Place | None,
    cache: Place | None,
    limits: ChildLimits | None,
    effort: str,
    listen: Listener | None,
    command: str,
) -> Result:
    if effort not in EFFORTS:
        raise UsageError(f"there is no effort {effort!r}", hint=did_you_mean(effort, EFFORTS))
    spent = EFFORTS[effort]
    if out is not None:
        _check_out(Path(out), recipe)
    result = run_recipe(recipe, _cache(cache), listen or _ignore, limits=limits, effort=spent, command=command)
    if out is not None:
        write_artefact(result, recipe, Path(out), report=html_page(result.record))
    return result


def _check_out(out: Path, recipe: Recipe) -> None:
    """Raise if results cannot be written there, before hours of work."""
    check_folder(out)
    if isinstance(recipe.model, Path) and recipe.model.resolve().parent == out.resolve():
        raise UsageError(f"{out} is the folder of the input, which would be overwritten", hint="choose another --out")


def _apply(
    model: Path,
    changes: Sequence[Pass],
    out: Path,
    data: str | None,
    cache: Place | None,
    verify: bool,
    seed: int,
    listen: Listener | None,
) -> ModelFile:
    """Apply passes one after the other, each verified if it must not change the answer, and write the result."""
    read = read_model(model)
    refuse_overwriting(model, read.graph, _onnx_file(out))
    samples = _calibration(data, read, seed)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onnxopt-")))
        steps = CachedSteps(_cache(cache), listen or _ignore, f"{changes[0].name} {model.resolve()}")
        maker = Maker(steps, target(), samples, scratch, seed=seed, verify=verify)
        stack.callback(maker.close)
        made = maker.add(model, read)
        for change in changes:
            made = maker.apply(change, made)
        write_model(maker.load(made), out)
        return replace(made, path=out)


def _in_file_name(dim: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in dim)


def _onnx_file(out: Place) -> Path:
    if Path(out).suffix != ".onnx":
        raise UsageError(f"{out} is no name for an ONNX model", hint="end it in .onnx")
    check_folder(Path(out).parent)
    return Path(out)


def _metric(name: str | None, goal: Literal["max", "min"] | None) -> Metric | None:
    if name is None and goal is not None:
        raise UsageError("a goal without a metric", hint="--metric module:function")
    return make_metric(name, goal=goal) if name else None


def _cache(folder: Place | None) -> Cache:
    return Cache(Path(folder) if folder is not None else default_cache())


def _ignore(event: object) -> None:
    """Listen to nothing."""


def _calibration(data: str | None, model: Model, seed: int) -> Samples | None:
    """Return what a single pass may be tuned by: the calibration part, or all of it where it is not split."""
    if data is None:
        return None
    folder = Path(data)
    if (folder / "calibration").is_dir():
        return open_split(data, model, seed=seed).calibration
    samples = source_at(data).open(model, Path())
    check_samples(samples, model.signature)
    return samples


def _evaluation(data: str, model: Model) -> Samples:
    folder = Path(data)
    part = folder / "evaluation"
    samples = source_at(str(part) if part.is_dir() else data).open(model, Path())
    check_samples(samples, model.signature)
    return samples


def _any_samples(data: str | None, model: Model) -> Samples:
    return synthetic_split(model).evaluation if data is None else _evaluation(data, model)
