"""Prune a model to a goal, or to several shares."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from onnxopt.api.arguments import Place, any_samples, cache_at, calibration_of, ignore, metric_of, onnx_file
from onnxopt.api.looking import compare, evaluate_model
from onnxopt.compile.engine import make_backend
from onnxopt.compile.isolation import IsolatedEngine
from onnxopt.errors import UsageError
from onnxopt.explain.prunable import Pruned, compressed_size, find_prunable
from onnxopt.ir.read import read_model
from onnxopt.ir.write import check_folder, model_files, refuse_overwriting, write_model, write_texts
from onnxopt.pipeline.events import Listener
from onnxopt.pipeline.making import Maker, ModelFile
from onnxopt.pipeline.pruning import PruneGoal, PruneWay, Schedule, prune_to
from onnxopt.pipeline.record import plain, strict_json
from onnxopt.pipeline.session import open_session
from onnxopt.pipeline.steps import CachedSteps
from onnxopt.pipeline.sweeping import Sweep, check_shares, file_name, sweep
from onnxopt.profile.latency import Plan
from onnxopt.profile.launches import measure_engine, timed_feeds
from onnxopt.recipe.recipe import DataSpec, Recipe
from onnxopt.report.swept import swept_page
from onnxopt.targets.target import target


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
    rounds: int = 1,
    schedule: Schedule = "geometric",
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
        rounds: In which the goal is come to, with recovery between.
        schedule: How much goes in each: geometric, linear or cubic.
        threads: One inference may use.
        cache: Folder of results; the user's cache folder if None.
        seed: Of every random choice.
        seconds: Time to measure the speed-up.
        listen: Told what happens.

    Raises:
        BudgetError: A size or a latency cannot be reached; nothing is written then.
        OnnxoptError: The model or the data cannot be used, or there is nothing to remove.
    """
    tell, way = listen or ignore, PruneWay(method, options or {}, recover, rounds, schedule)
    way.check(goal)
    _check_data(data, metric, way)
    read = read_model(model)
    refuse_overwriting(Path(model), read.graph, onnx_file(out))
    samples = calibration_of(data, read, seed)
    machine = target().with_threads(threads)
    start = partial(IsolatedEngine, make_backend("ort"), target=machine)
    feeds = timed_feeds(any_samples(data, read))

    def latency(file: ModelFile) -> float:
        return measure_engine(partial(start, file.path), feeds, Plan(max_seconds=1.0)).p50

    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onnxopt-")))
        maker = Maker(CachedSteps(cache_at(cache), tell, f"prune {model}"), machine, samples, scratch, seed=seed)
        stack.callback(maker.close)
        before = maker.add(Path(model), read)
        made = prune_to(goal, way, maker, before, samples=samples, seconds=latency, tell=tell)
        after, scores = maker.load(made), None
        if data is not None and metric:
            scores = evaluate_model(made.path, data=data, metric=metric, reference=model, threads=threads)
        compared = compare(model, made.path, data=data, threads=threads, seconds=seconds)
        written = write_model(after, out)
    return Pruned(
        before=find_prunable(read, samples),
        after=find_prunable(after, samples),
        size_before=before.size_bytes,
        size_after=made.size_bytes,
        compressed_before=compressed_size(model_files(read.graph, Path(model))),
        compressed_after=compressed_size(written),
        compared=compared,
        scores=scores,
    )


def _check_data(data: str | None, metric: str | None, way: PruneWay) -> None:
    """Raise UsageError if something needs samples, and there are none."""
    if data is None and metric_of(metric, None) is not None:
        raise UsageError("a metric needs samples with labels", hint="give --data as well")
    if data is None and way.recover:
        raise UsageError(f"{way.recover[0]!r} recovers on samples, and there are none", hint="give --data as well")


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
    rounds: int = 1,
    schedule: Schedule = "geometric",
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
        rounds: In which the goal is come to, with recovery between.
        schedule: How much goes in each: geometric, linear or cubic.
        threads: One inference may use.
        cache: Folder of results; the user's cache folder if None.
        seed: Of every random choice.
        seconds: Time to measure each speed-up.
        listen: Told what happens.

    Raises:
        OnnxoptError: The model or the data cannot be used, or there is nothing to remove.
    """
    source, folder = Path(model), Path(out)
    way = PruneWay(method, options or {}, recover, rounds, schedule)
    check_shares(shares)
    way.check(PruneGoal(shares[0]))
    _check_data(data, metric, way)
    check_folder(folder)
    if folder.suffix == ".onnx":
        raise UsageError(f"{out} is a name for a model, and a sweep writes a folder", hint="give --out FOLDER/")
    read = read_model(source)
    for share in shares:
        refuse_overwriting(source, read.graph, folder / file_name(source, share))
    recipe = Recipe(
        model=source,
        data=DataSpec(path=data),
        metric=metric_of(metric, None),
        target=target().with_threads(threads),
        seed=seed,
        source="sweep",
    )
    with open_session(recipe, make_backend("ort"), cache_at(cache), listen or ignore) as session:
        found = sweep(session, shares, way, folder, seconds=seconds)
    write_texts(folder, {"sweep.json": strict_json(plain(found)), "report.html": swept_page(found)})
    return found
