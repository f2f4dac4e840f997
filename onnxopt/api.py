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
from onnxopt.context import Context
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
from onnxopt.explain.layers import LayersExplained, explain_quantized
from onnxopt.explain.layers import explain_layers as explain_layers_of
from onnxopt.explain.measured import Compared, Profile
from onnxopt.explain.prunable import Prunable, Pruned, compressed_size, find_prunable
from onnxopt.explain.summary import Summary, summarise
from onnxopt.ir.model import Model
from onnxopt.ir.quantized import is_quantized
from onnxopt.ir.read import read_model
from onnxopt.ir.write import check_folder, model_files, refuse_overwriting, write_model, write_texts
from onnxopt.options import build
from onnxopt.passes import Pass, make_pass
from onnxopt.pipeline.artefact import write_artefact
from onnxopt.pipeline.cache import Cache
from onnxopt.pipeline.candidates import SCHEMES, scheme_steps
from onnxopt.pipeline.effort import EFFORTS, Effort
from onnxopt.pipeline.elsewhere import quantize_elsewhere
from onnxopt.pipeline.events import Listener
from onnxopt.pipeline.making import Maker, ModelFile, read_proved
from onnxopt.pipeline.optimize import Result, run_recipe
from onnxopt.pipeline.pruning import PruneGoal, prune_to, recoveries
from onnxopt.pipeline.record import plain, strict_json
from onnxopt.pipeline.session import open_session
from onnxopt.pipeline.steps import CachedSteps
from onnxopt.pipeline.sweeping import Sweep, check_shares, file_name, sweep
from onnxopt.profile.latency import Plan
from onnxopt.profile.launches import LAUNCHES, compare_launches, measure_engine, timed_feeds
from onnxopt.profile.machine import this_machine
from onnxopt.quantize.mixed import QuantizeMixed
from onnxopt.recipe.recipe import DataSpec, Limits, Recipe, SearchSpec, read_recipe
from onnxopt.report.explained_page import explained_page
from onnxopt.report.html import html_page
from onnxopt.report.swept import swept_page
from onnxopt.targets.target import LOCAL, Target, target
from onnxopt.targets.ways import check_runtime, schemes_of

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
    original: Place | None = None,
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
        original: The file before it was changed, for a pass that holds the model against it.
        listen: Told what happens.

    Raises:
        OnnxoptError: The model, the options or the data cannot be used, or the answer changed.
    """
    change = make_pass(name, options, where=f"options of {name}")
    return _apply(Path(model), (change,), Path(out), data, cache, verify, seed, listen, original)


def quantize_model(
    model: Place,
    out: Place,
    *,
    data: str | None = None,
    scheme: str = "auto",
    target: str = LOCAL,
    runtime: Literal["ort", "openvino", "tensorrt"] | None = None,
    metric: str | None = None,
    goal: Literal["max", "min"] | None = None,
    max_drop: float = 0.01,
    min_sqnr: float = 20.0,
    threads: int = 1,
    cache: Place | None = None,
    seed: int = 0,
    limits: ChildLimits | None = None,
    effort: str = "normal",
    listen: Listener | None = None,
    command: str = "onnxopt.quantize_model",
) -> Result:
    """Write the fastest quantized model that keeps the budget in a runtime; the input where none is proved to.

    Args:
        model: The ``.onnx`` file.
        out: The ``.onnx`` file to write; not written where ``record.shortfall`` tells of a budget that was missed.
        data: As ``--data``.
        scheme: ``auto`` searches; one of ``SCHEMES`` is applied, measured and judged.
        target: Where it will run. Of another than this machine the accuracy is judged here and the speed not measured;
            options of the scheme follow from what the target is, and ``record.target`` tells them.
        runtime: It is made for, and measured in; the first of the target's if None.
        metric: By name, or ``module:function``; None: fidelity decides, or top1 if labels say so.
        goal: For a metric of one's own.
        max_drop: Relative loss allowed, as a share.
        min_sqnr: dB at every float output, where there is no metric; and what ``mixed`` keeps.
        threads: One inference may use.
        cache: Folder of results; the user's cache folder if None.
        seed: Of every random choice.
        limits: Of each child process.
        effort: Spent on measuring: quick, normal or thorough.
        listen: Told what happens.
        command: Told in the record.

    Raises:
        UsageError: There is no such scheme or target, or the target cannot run the scheme in the runtime.
        OnnxoptError: The model or the data cannot be used, or the scheme cannot be applied.
    """
    if scheme not in ("auto", *SCHEMES):
        raise UsageError(f"there is no scheme {scheme!r}", hint=did_you_mean(scheme, ["auto", *SCHEMES]))
    where = _where(target, threads)
    used = runtime or where.runtimes[0]
    check_runtime(where, used)
    if scheme == "auto" and not where.is_local:
        raise UsageError(
            f"scheme 'auto' picks what is fastest, and speed on {target!r} cannot be measured on this machine",
            hint=f"choose a scheme: {', '.join(schemes_of(where, used))}; or run onnxopt on the target itself",
        )
    refuse_overwriting(Path(model), read_model(model).graph, _onnx_file(out))
    recipe = Recipe(
        model=Path(model),
        data=DataSpec(path=data),
        metric=_metric(metric, goal),
        budget=Budget(max_drop=max_drop, min_sqnr=min_sqnr),
        target=where,
        backend=make_backend(_JUDGED_IN.get(used, used)),
        seed=seed,
    )
    if not where.is_local:
        result = quantize_elsewhere(
            recipe,
            scheme,
            used,
            _cache(cache),
            listen or _ignore,
            limits=limits,
            effort=_effort(effort),
            command=command,
        )
        return _written(result, out)
    if scheme == "auto":
        asked = replace(recipe, search=build(SearchSpec, {"runtime": used}, where="quantize"))
    else:
        steps = scheme_steps(scheme, min_sqnr=min_sqnr, runtime=used)
        asked = replace(recipe, passes=tuple(make_pass(name, options) for name, options in steps))
    return _written(_run(asked, None, cache, limits, effort, listen, command), out)


_JUDGED_IN = {"tensorrt": "ort"}
"""Runtimes that cannot be had here, and which stands in for each where accuracy is judged."""


def _where(name: str, threads: int) -> Target:
    return target(name).with_threads(threads)


def _written(result: Result, out: Place) -> Result:
    """Write the model of a run that keeps its budget."""
    if not result.record.shortfall:
        write_model(read_proved(result.chosen.file), out)
    return result


def explain_layers(
    model: Place,
    *,
    data: str | None = None,
    worst: int = 5,
    options: Mapping[str, Any] | None = None,
    threads: int = 1,
    report: Place | None = None,
    cache: Place | None = None,
    seed: int = 0,
    listen: Listener | None = None,
) -> LayersExplained:
    """Return what 8 bits do to each layer of a model, rewritten first: time saved, noise at the outputs, and causes.

    Of a model that is quantized already, QDQ, it tells what x86 CPUs without VNNI compute otherwise, which it tells of
    the model with all layers rounded too.

    Args:
        model: The ``.onnx`` file.
        data: As ``--data``; made-up inputs if None.
        worst: How many layers to look into.
        options: Of ``quantize-mixed``.
        threads: One inference may use.
        report: The ``.html`` file to write what was found to; none if None.
        cache: Folder of results; the user's cache folder if None.
        seed: Of every random choice.
        listen: Told what happens.

    Raises:
        OnnxoptError: The model or the data cannot be used, or there is nothing to quantize.
    """
    page = _html_file(report) if report is not None else None
    change = make_pass("quantize-mixed", options or {}, where="options of quantize-mixed")
    assert isinstance(change, QuantizeMixed)
    read, tell = read_model(model), listen or _ignore
    samples = _calibration(data, read, seed) or synthetic_split(read).calibration
    quantized = is_quantized(read.graph)
    if not quantized:
        change.requires(read.graph, Context.of(data=samples))
    with tempfile.TemporaryDirectory(prefix="onnxopt-") as scratch:
        ctx = Context.of(
            target=target().with_threads(threads),
            data=samples,
            seed=seed,
            scratch=Path(scratch),
            emit=tell,
            kept=CachedSteps(_cache(cache), tell, f"explain {model}").kept,
        )
        if quantized:
            found = explain_quantized(read, ctx)
        else:
            rewritten = make_pass("rewrite", {"check": "if-possible"})(read, ctx)
            found = explain_layers_of(rewritten, change, worst, ctx)
    if page is not None:
        page.write_text(explained_page(found, str(model), str(this_machine())))
    return found


def prune_model(
    model: Place,
    out: Place,
    goal: PruneGoal,
    *,
    method: str = "channels",
    options: Mapping[str, Any] | None = None,
    data: str | None = None,
    metric: str | None = None,
    recover: Sequence[str] | None = None,
    threads: int = 1,
    cache: Place | None = None,
    seed: int = 0,
    seconds: float = 5.0,
    listen: Listener | None = None,
) -> Pruned:
    """Prune a model to a goal, write it, and hold it against the input.

    Args:
        model: The ``.onnx`` file.
        out: The ``.onnx`` file to write.
        goal: What is to be left.
        method: One of ``METHODS``.
        options: Of its pass.
        data: As ``--data``; made-up inputs if None.
        metric: What both are scored by, by name, or ``module:function``; None: drift alone tells.
        recover: Passes that win accuracy back, of ``RECOVERIES``; None: the first where there are samples.
        threads: One inference may use.
        cache: Folder of results; the user's cache folder if None.
        seed: Of every random choice.
        seconds: Time to measure the speed-up.
        listen: Told what happens.

    Raises:
        BudgetError: A size or a latency cannot be reached; nothing is written then.
        OnnxoptError: The model or the data cannot be used, or there is nothing to remove.
    """
    tell = listen or _ignore
    if _metric(metric, None) is not None and data is None:
        raise UsageError("a metric needs samples with labels", hint="give --data as well")
    read = read_model(model)
    refuse_overwriting(Path(model), read.graph, _onnx_file(out))
    samples = _calibration(data, read, seed)
    machine = target().with_threads(threads)
    start = partial(IsolatedEngine, make_backend("ort"), target=machine)
    feeds = timed_feeds(_any_samples(data, read))

    def latency(file: ModelFile) -> float:
        return measure_engine(partial(start, file.path), feeds, Plan(max_seconds=1.0)).p50

    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onnxopt-")))
        maker = Maker(CachedSteps(_cache(cache), tell, f"prune {model}"), machine, samples, scratch, seed=seed)
        stack.callback(maker.close)
        before = maker.add(Path(model), read)
        after_it = recoveries(method, recover, data=samples is not None)
        made = prune_to(goal, method, options or {}, maker, before, recover=after_it, seconds=latency, tell=tell)
        after = maker.load(made)
        written = write_model(after, out)
    return Pruned(
        before=find_prunable(read, samples),
        after=find_prunable(after, samples),
        size_before=before.size_bytes,
        size_after=made.size_bytes,
        compressed_before=compressed_size(model_files(read.graph, Path(model))),
        compressed_after=compressed_size(written),
        compared=compare(model, out, data=data, threads=threads, seconds=seconds),
        scores=evaluate_model(out, data=data, metric=metric, reference=model, threads=threads)
        if data is not None and metric
        else None,
    )


def sweep_model(
    model: Place,
    out: Place,
    shares: Sequence[float],
    *,
    method: str = "channels",
    options: Mapping[str, Any] | None = None,
    data: str | None = None,
    metric: str | None = None,
    recover: Sequence[str] | None = None,
    threads: int = 1,
    cache: Place | None = None,
    seed: int = 0,
    seconds: float = 5.0,
    listen: Listener | None = None,
) -> Sweep:
    """Prune a model to several shares, write all of them, a page and ``sweep.json``; an interrupted run goes on.

    Args:
        model: The ``.onnx`` file.
        out: The folder to write to.
        shares: Of the multiply-accumulates, each above 0 and below 1.
        method: One of ``METHODS`` that takes a share.
        options: Of its pass.
        data: As ``--data``; split if it is not, so that nothing is tuned by what it is scored on.
        metric: What all are scored by, by name, or ``module:function``; None: drift, or top1 if labels say so.
        recover: Passes that win accuracy back, of ``RECOVERIES``; None: the first where there are samples.
        threads: One inference may use.
        cache: Folder of results; the user's cache folder if None.
        seed: Of every random choice.
        seconds: Time to measure each speed-up.
        listen: Told what happens.

    Raises:
        OnnxoptError: The model or the data cannot be used, or there is nothing to remove.
    """
    source, folder = Path(model), Path(out)
    check_shares(shares)
    check_folder(folder)
    read = read_model(source)
    for share in shares:
        refuse_overwriting(source, read.graph, folder / file_name(source, share))
    recipe = Recipe(
        model=source,
        data=DataSpec(path=data),
        metric=_metric(metric, None),
        target=target().with_threads(threads),
        seed=seed,
        source="sweep",
    )
    with open_session(recipe, make_backend("ort"), _cache(cache), listen or _ignore) as session:
        found = sweep(session, shares, method, options or {}, folder, recover=recover, seconds=seconds)
    write_texts(folder, {"sweep.json": strict_json(plain(found)), "report.html": swept_page(found)})
    return found


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


def inspect_groups(model: Place, *, data: str | None = None, residual: bool = False) -> Prunable:
    """Return what can be pruned from a model, and why the rest cannot.

    Args:
        model: The ``.onnx`` file.
        data: As ``--data``; the first sample gives the sizes of dynamic dimensions.
        residual: Whether channels that are normalised over count.
    """
    read = read_model(model)
    return find_prunable(read, _calibration(data, read, 0), residual=residual)


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
    spent = _effort(effort)
    if out is not None:
        _check_out(Path(out), recipe)
    result = run_recipe(recipe, _cache(cache), listen or _ignore, limits=limits, effort=spent, command=command)
    if out is not None:
        write_artefact(result, recipe, Path(out), report=html_page(result.record))
    return result


def _effort(name: str) -> Effort:
    if name not in EFFORTS:
        raise UsageError(f"there is no effort {name!r}", hint=did_you_mean(name, EFFORTS))
    return EFFORTS[name]


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
    original: Place | None = None,
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
        if original is not None:
            made = replace(made, original=maker.add(Path(original), read_model(original)))
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


def _html_file(report: Place) -> Path:
    if Path(report).suffix != ".html":
        raise UsageError(f"{report} is no name for a page", hint="end it in .html")
    check_folder(Path(report).parent)
    return Path(report)


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
