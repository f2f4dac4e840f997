"""Quantize a model, or tell what 8 bits do to its layers."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from onnxopt.api.arguments import Place, cache_at, calibration_of, effort_of, html_file, ignore, metric_of, onnx_file
from onnxopt.compile.engine import make_backend
from onnxopt.compile.isolation import Limits as ChildLimits
from onnxopt.context import Context
from onnxopt.data.split import synthetic_split
from onnxopt.errors import UsageError, did_you_mean
from onnxopt.evaluate.budget import Budget
from onnxopt.explain.layers import LayersExplained, explain_quantized
from onnxopt.explain.layers import explain_layers as explain_layers_of
from onnxopt.ir.quantized import is_quantized
from onnxopt.ir.read import read_model
from onnxopt.ir.write import refuse_overwriting, write_model
from onnxopt.options import build
from onnxopt.passes import make_pass
from onnxopt.pipeline.candidates import SCHEMES, scheme_steps
from onnxopt.pipeline.elsewhere import quantize_elsewhere
from onnxopt.pipeline.events import Listener
from onnxopt.pipeline.making import read_proved
from onnxopt.pipeline.optimize import Result, run_recipe
from onnxopt.pipeline.steps import CachedSteps
from onnxopt.profile.machine import this_machine
from onnxopt.quantize.mixed import QuantizeMixed
from onnxopt.recipe.recipe import DataSpec, Recipe, SearchSpec
from onnxopt.report.explained_page import explained_page
from onnxopt.targets.target import LOCAL, Target, target
from onnxopt.targets.ways import check_runtime, schemes_of


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
    refuse_overwriting(Path(model), read_model(model).graph, onnx_file(out))
    recipe = Recipe(
        model=Path(model),
        data=DataSpec(path=data),
        metric=metric_of(metric, goal),
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
            cache_at(cache),
            listen or ignore,
            limits=limits,
            effort=effort_of(effort),
            command=command,
        )
        return _written(result, out)
    if scheme == "auto":
        asked = replace(recipe, search=build(SearchSpec, {"runtime": used}, where="quantize"))
    else:
        steps = scheme_steps(scheme, min_sqnr=min_sqnr, runtime=used)
        asked = replace(recipe, passes=tuple(make_pass(name, options) for name, options in steps))
    result = run_recipe(
        asked, cache_at(cache), listen or ignore, limits=limits, effort=effort_of(effort), command=command
    )
    return _written(result, out)


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
    page = html_file(report) if report is not None else None
    change = make_pass("quantize-mixed", options or {}, where="options of quantize-mixed")
    assert isinstance(change, QuantizeMixed)
    read, tell = read_model(model), listen or ignore
    samples = calibration_of(data, read, seed) or synthetic_split(read).calibration
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
            kept=CachedSteps(cache_at(cache), tell, f"explain {model}").kept,
        )
        if quantized:
            found = explain_quantized(read, ctx)
        else:
            rewritten = make_pass("rewrite", {"check": "if-possible"})(read, ctx)
            found = explain_layers_of(rewritten, change, worst, ctx)
    if page is not None:
        page.write_text(explained_page(found, str(model), str(this_machine())))
    return found
