"""``onnxopt optimize``, ``onnxopt quantize`` and ``onnxopt run``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnxopt.cli import arguments as arg
from onnxopt.cli.output import show, show_json

if TYPE_CHECKING:
    from onnxopt.compile.isolation import Limits
    from onnxopt.pipeline.optimize import Result


def optimize(
    ctx: typer.Context,
    model: arg.Model,
    data: arg.Data = None,
    metric: arg.Metric = None,
    goal: arg.Goal = None,
    max_drop: Annotated[str, typer.Option(help="relative loss of the metric allowed, such as 1%")] = "1%",
    min_sqnr: Annotated[float, typer.Option(help="dB at every output, where there is no metric")] = 20.0,
    max_latency: Annotated[str | None, typer.Option(help="bound on the median, such as 5ms")] = None,
    max_size: Annotated[str | None, typer.Option(help="bound on the file, such as 10MB")] = None,
    objective: Annotated[str, typer.Option(help="latency, size or memory")] = "latency",
    runtime: Annotated[str, typer.Option(help="runtimes to try: ort, openvino or any")] = "any",
    threads: arg.Threads = 1,
    out: arg.Out = None,
    cache: arg.CacheFolder = None,
    seed: arg.Seed = 0,
    time_limit: arg.TimeLimit = 300.0,
    memory_limit: arg.MemoryLimit = None,
    effort: arg.Effort = "normal",
    explain: arg.Explain = False,
    json: arg.Json = False,
) -> None:
    """Return the fastest artefact that is [bold]proved[/] to keep the accuracy budget; the input if none is.

    Tries graph rewrites, int8 and 16-bit numerics, runtimes and their settings; measures each against the input in
    turn, scores it on samples that calibration did not see, and tells what was rejected and why.

    Examples:
      onnxopt optimize model.onnx --data samples/ --metric top1 --max-drop 1% --out fast/

      onnxopt optimize model.onnx --data samples/ --runtime ort --max-latency 5ms --json
    """
    from onnxopt import api
    from onnxopt.cli.progress import Reporter

    bounds = _bounds(max_drop=max_drop, max_latency=max_latency, max_size=max_size)
    with Reporter(ctx.obj) as listen:
        result = api.optimize(
            model,
            data=data,
            metric=metric,
            goal=_choice("--goal", goal, ("max", "min", None)),
            min_sqnr=min_sqnr,
            objective=_choice("--objective", objective, ("latency", "size", "memory")),
            runtime=_choice("--runtime", runtime, ("any", "ort", "openvino")),
            threads=threads,
            out=out,
            cache=cache,
            seed=seed,
            limits=_limits(time_limit, memory_limit),
            effort=effort,
            listen=listen,
            command=_command(),
            **bounds,
        )
    _finish(result, out, explain=explain, as_json=json)


def quantize(
    ctx: typer.Context,
    model: arg.Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="the .onnx file to write", show_default=False)],
    data: arg.Data = None,
    scheme: Annotated[
        str, typer.Option(help="auto: whatever is fastest; or int8, mixed, int8-dynamic, int4, fp16, bf16")
    ] = "auto",
    target: Annotated[
        str, typer.Option(help="where it will run, by its name in 'onnxopt targets'; elsewhere needs --scheme")
    ] = "local",
    runtime: Annotated[
        str | None,
        typer.Option(help="it is made for: ort, openvino or tensorrt", show_default="the target's first; here ort"),
    ] = None,
    metric: arg.Metric = None,
    goal: arg.Goal = None,
    max_drop: Annotated[str, typer.Option(help="relative loss of the metric allowed, such as 1%")] = "1%",
    min_sqnr: Annotated[float, typer.Option(help="dB at every output, where there is no metric")] = 20.0,
    threads: arg.Threads = 1,
    cache: arg.CacheFolder = None,
    seed: arg.Seed = 0,
    time_limit: arg.TimeLimit = 300.0,
    memory_limit: arg.MemoryLimit = None,
    effort: arg.Effort = "normal",
    explain: arg.Explain = False,
    json: arg.Json = False,
) -> None:
    """Quantize a model without passing the accuracy budget; [bold]auto[/] is never slower than the input either.

    Layers that int8 makes no faster, or that cost too much accuracy, stay in float. The result is measured against the
    input in turn, and scored on samples that calibration did not see; where the budget is missed nothing is written.
    For another [bold]--target[/] the scheme's options follow from what it is, such as 7-bit weights for the layers that
    saturate on x86 without VNNI; accuracy is judged here, and speed is not measured.

    Examples:
      onnxopt quantize model.onnx --data samples/ --out int8.onnx

      onnxopt quantize model.onnx --data samples/ --scheme int8 --target x86-avx2 --out int8.onnx

      onnxopt quantize model.onnx --data samples/ --scheme mixed --min-sqnr 25 --runtime openvino --out mixed.onnx
    """
    from onnxopt import api
    from onnxopt.cli.progress import Reporter
    from onnxopt.recipe.quantities import share

    with Reporter(ctx.obj) as listen:
        result = api.quantize_model(
            model,
            out,
            data=data,
            scheme=scheme,
            target=target,
            runtime=_choice("--runtime", runtime, ("ort", "openvino", "tensorrt", None)),
            metric=metric,
            goal=_choice("--goal", goal, ("max", "min", None)),
            min_sqnr=min_sqnr,
            threads=threads,
            cache=cache,
            seed=seed,
            limits=_limits(time_limit, memory_limit),
            effort=effort,
            listen=listen,
            command=_command(),
            max_drop=share(max_drop),
        )
    _finish(result, None, explain=explain, as_json=json)
    if not json:
        show(f"wrote {out}")


def run(
    ctx: typer.Context,
    recipe: Annotated[Path, typer.Argument(help="the recipe, a YAML file", show_default=False)],
    out: arg.Out = None,
    cache: arg.CacheFolder = None,
    time_limit: arg.TimeLimit = 300.0,
    memory_limit: arg.MemoryLimit = None,
    effort: arg.Effort = "normal",
    explain: arg.Explain = False,
    json: arg.Json = False,
) -> None:
    """Do what a recipe says: its passes in order, or its search. What was done before is taken from the cache.

    Examples:
      onnxopt run recipes/int8.yaml --out fast/

      onnxopt run fast/recipe.lock.yaml --explain
    """
    from onnxopt import api
    from onnxopt.cli.progress import Reporter

    with Reporter(ctx.obj) as listen:
        result = api.run(
            recipe,
            out=out,
            cache=cache,
            limits=_limits(time_limit, memory_limit),
            effort=effort,
            listen=listen,
            command=_command(),
        )
    _finish(result, out, explain=explain, as_json=json)


def _finish(result: Result, out: Path | None, *, explain: bool, as_json: bool) -> None:
    from onnxopt.errors import BudgetError
    from onnxopt.report.terminal import steps, summary

    if as_json:
        show_json(result.record.to_json())
    else:
        show(summary(result.record, out))
        if explain:
            show(steps(result.record))
    if result.record.shortfall:
        raise BudgetError(result.record.shortfall, hint="the table tells what was tried and why it was not taken")


def _bounds(*, max_drop: str, max_latency: str | None, max_size: str | None) -> dict[str, Any]:
    from onnxopt.recipe.quantities import seconds, share, size

    return {
        "max_drop": share(max_drop),
        "max_latency": seconds(max_latency) if max_latency else None,
        "max_size": size(max_size) if max_size else None,
    }


def _limits(time_limit: float, memory_limit: str | None) -> Limits:
    from onnxopt.compile.isolation import Limits
    from onnxopt.recipe.quantities import size

    return Limits(time_limit, size(memory_limit) if memory_limit else 0)


def _choice(flag: str, value: Any, known: tuple[Any, ...]) -> Any:
    from onnxopt.errors import UsageError, did_you_mean

    if value not in known:
        raise UsageError(f"{flag} cannot be {value!r}", hint=did_you_mean(value, [k for k in known if k]))
    return value


def _command() -> str:
    return shlex.join(["onnxopt", *sys.argv[1:]])
