"""Find the fastest artefact, or do what a recipe says."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from onnxopt.api.arguments import Place, cache_at, effort_of, ignore, metric_of
from onnxopt.compile.isolation import Limits as ChildLimits
from onnxopt.errors import UsageError
from onnxopt.evaluate.budget import Budget
from onnxopt.ir.write import check_folder
from onnxopt.options import build
from onnxopt.pipeline.artefact import write_artefact
from onnxopt.pipeline.events import Listener
from onnxopt.pipeline.optimize import Result, run_recipe
from onnxopt.recipe.recipe import DataSpec, Limits, Recipe, SearchSpec, read_recipe
from onnxopt.report.html import html_page
from onnxopt.targets.target import target


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
        metric=metric_of(metric, goal),
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


def _run(
    recipe: Recipe,
    out: Place | None,
    cache: Place | None,
    limits: ChildLimits | None,
    effort: str,
    listen: Listener | None,
    command: str,
) -> Result:
    spent = effort_of(effort)
    if out is not None:
        _check_out(Path(out), recipe)
    result = run_recipe(recipe, cache_at(cache), listen or ignore, limits=limits, effort=spent, command=command)
    if out is not None:
        write_artefact(result, recipe, Path(out), report=html_page(result.record))
    return result


def _check_out(out: Path, recipe: Recipe) -> None:
    """Raise if results cannot be written there, before hours of work."""
    check_folder(out)
    if isinstance(recipe.model, Path) and recipe.model.resolve().parent == out.resolve():
        raise UsageError(f"{out} is the folder of the input, which would be overwritten", hint="choose another --out")
