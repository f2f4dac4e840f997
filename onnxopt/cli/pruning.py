"""The command ``prune``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnxopt.cli import arguments as arg
from onnxopt.cli.output import show, show_json

if TYPE_CHECKING:
    from onnxopt.pipeline.pruning import PruneGoal


def prune(
    ctx: typer.Context,
    model: arg.Model,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="the .onnx file to write; a folder with --sweep", show_default=False)
    ],
    macs: Annotated[str | None, typer.Option(help="multiply-accumulates to leave, such as 50%")] = None,
    params: Annotated[str | None, typer.Option(help="parameters to leave, such as 60%")] = None,
    size: Annotated[str | None, typer.Option(help="bytes of the file at most, such as 5MB")] = None,
    latency: Annotated[str | None, typer.Option(help="median at most, such as 4ms, measured here")] = None,
    sweep: Annotated[
        str | None, typer.Option(help="shares of the multiply-accumulates to leave, such as 90%,70%,50%: a model each")
    ] = None,
    method: Annotated[
        str, typer.Option(help="channels, heads, layers, low-rank, separable, weights, or n-m of them")
    ] = "channels",
    option: Annotated[list[str] | None, typer.Option(help="of the pass, as NAME=VALUE; may be repeated")] = None,
    recover: Annotated[
        list[str] | None,
        typer.Option(help="pass that wins accuracy back on the samples, such as match-statistics; may be repeated"),
    ] = None,
    rounds: Annotated[int, typer.Option(help="come to the goal in so many rounds, with recovery between", min=1)] = 1,
    schedule: Annotated[
        str, typer.Option(help="how much goes in each round: geometric, linear, or cubic, which starts with most")
    ] = "geometric",
    no_recover: Annotated[bool, typer.Option("--no-recover", help="leave the weights as pruning leaves them")] = False,
    data: arg.Data = None,
    metric: arg.Metric = None,
    threads: arg.Threads = 1,
    seconds: Annotated[float, typer.Option(help="time to measure the speed-up", min=0.1)] = 5.0,
    cache: arg.CacheFolder = None,
    seed: arg.Seed = 0,
    json: arg.Json = False,
) -> None:
    """Remove what matters least until a goal is reached: a smaller, dense model that every runtime runs faster.

    Half of the multiply-accumulates are left if no goal is given. Channels go from every tensor they are in; what
    cannot be removed is told by [bold]inspect --groups[/]. With samples, what is left is refitted to what the original
    made ([bold]reconstruct-weights[/]). What accuracy is lost even so is told, and nothing is judged.

    Examples:
      onnxopt prune model.onnx --macs 50% --data samples/ --metric top1 --out half.onnx

      onnxopt prune model.onnx --latency 4ms --option criterion=median --out fast.onnx

      onnxopt prune model.onnx --method layers --macs 75% --data samples/ --out shallow.onnx

      onnxopt prune model.onnx --sweep 90%,70%,50% --data samples/ --metric top1 --out swept/

      onnxopt prune model.onnx --macs 40% --rounds 4 --schedule cubic --data samples/ --out small.onnx

      onnxopt prune model.onnx --method weights --params 30% --option block=1x4 --out sparse.onnx
    """
    from onnxopt import api
    from onnxopt.cli.progress import Reporter
    from onnxopt.errors import UsageError
    from onnxopt.pipeline.record import plain
    from onnxopt.report.pruned import pruned_table
    from onnxopt.report.swept import swept_table

    if no_recover and recover:
        raise UsageError("--recover and --no-recover", hint="give one of them")
    given: dict[str, Any] = {"method": method, "options": arg.pairs(option, "--option"), "data": data}
    given |= {"metric": metric, "recover": () if no_recover else recover or None}
    given |= {"rounds": rounds, "schedule": schedule}
    given |= {"threads": threads, "cache": cache, "seed": seed, "seconds": seconds}
    if sweep is not None:
        shares = _shares(sweep, macs, params, size, latency)
        with Reporter(ctx.obj) as listen:
            swept = api.sweep_model(model, out, shares, **given, listen=listen)
        return show_json(plain(swept)) if json else show(swept_table(swept, out))
    goal = _goal(macs, params, size, latency)
    with Reporter(ctx.obj) as listen:
        found = api.prune_model(model, out, goal, **given, listen=listen)
    return show_json(plain(found)) if json else show(pruned_table(found, out))


def _shares(text: str, *goals: str | None) -> list[float]:
    """Return the shares of a sweep, which has no other goal."""
    from onnxopt.errors import UsageError
    from onnxopt.recipe import quantities

    if any(goal is not None for goal in goals):
        raise UsageError("a sweep and a goal", hint="give --sweep, or one of --macs, --params, --size and --latency")
    return [quantities.share(part) for part in text.split(",") if part.strip()]


def _goal(macs: str | None, params: str | None, size: str | None, latency: str | None) -> PruneGoal:
    """Return the one goal that was given, if any."""
    from onnxopt.errors import UsageError
    from onnxopt.pipeline.pruning import PruneGoal
    from onnxopt.recipe import quantities

    given = [flag for flag in (macs, params, size, latency) if flag is not None]
    if len(given) > 1:
        raise UsageError("there are several goals", hint="give one of --macs, --params, --size and --latency")
    if size is not None:
        return PruneGoal(of="parameters", size=quantities.size(size))
    if latency is not None:
        return PruneGoal(latency=quantities.seconds(latency))
    if not given:
        return PruneGoal()
    share = quantities.share(params or macs or "")
    if not 0 < share < 1:
        raise UsageError(f"{given[0]} leaves nothing or everything", hint="write a share such as 50%")
    return PruneGoal(share, "parameters" if params else "macs")
