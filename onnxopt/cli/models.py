"""Commands that look at models and data: inspect, profile, evaluate, compare, data, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxopt.cli import arguments as arg
from onnxopt.cli.output import show, show_json


def inspect(
    model: arg.Model,
    groups: Annotated[bool, typer.Option("--groups", help="what can be pruned, and why the rest cannot")] = False,
    data: arg.Data = None,
    json: arg.Json = False,
) -> None:
    """Tell what a model is made of: interface, operators, weights and where they are stored.

    Examples:
      onnxopt inspect model.onnx

      onnxopt inspect model.onnx --groups
    """
    from onnxopt import api
    from onnxopt.pipeline.record import plain

    if groups:
        from onnxopt.report.pruned import prunable_table

        prunable = api.inspect_groups(model, data=data)
        show_json(plain(prunable)) if json else show(prunable_table(prunable))
        return
    from onnxopt.report.tables import summary_table

    found = api.inspect(model)
    show_json(plain(found)) if json else show(summary_table(found))


def profile(
    model: arg.Model,
    data: arg.Data = None,
    versus: Annotated[Path | None, typer.Option("--vs", help="another model to measure in turn with it")] = None,
    runtime: arg.Runtime = "ort",
    option: Annotated[list[str] | None, typer.Option(help="of the runtime, as NAME=VALUE; may be repeated")] = None,
    threads: arg.Threads = 1,
    seconds: Annotated[float, typer.Option(help="time to measure", min=0.1)] = 5.0,
    json: arg.Json = False,
) -> None:
    """Measure latency: warm-up until steady, every sample kept; with --vs, the speed-up and its 95 % interval.

    Example:  onnxopt profile fast/model.onnx --vs model.onnx --data samples/
    """
    from onnxopt import api
    from onnxopt.pipeline.record import plain
    from onnxopt.report.tables import profile_table

    found = api.profile_model(
        model,
        data=data,
        runtime=runtime,
        options=arg.pairs(option, "--option"),
        threads=threads,
        versus=versus,
        seconds=seconds,
    )
    show_json(plain(found)) if json else show(profile_table(found))


def explain(
    ctx: typer.Context,
    model: arg.Model,
    data: arg.Data = None,
    worst: Annotated[int, typer.Option(help="layers to look into, those that disturb the outputs most", min=0)] = 5,
    option: Annotated[list[str] | None, typer.Option(help="of quantize-mixed, as NAME=VALUE; may be repeated")] = None,
    threads: arg.Threads = 1,
    report: Annotated[
        Path | None, typer.Option(help="write what was found as a page with a plot of all layers", metavar="FILE.html")
    ] = None,
    cache: arg.CacheFolder = None,
    seed: arg.Seed = 0,
    json: arg.Json = False,
) -> None:
    """Tell which layers cost time and which would cost accuracy in 8 bits, why, and what leaving them in float gives.

    Each layer is rounded alone and timed both ways in ONNX Runtime; what was found is kept for the next command.
    Then it tells which layers would compute something else on x86 CPUs without VNNI, whose 8-bit sums saturate; of a
    model that is quantized already it tells this alone.

    Examples:
      onnxopt explain model.onnx --data samples/ --report layers.html

      onnxopt explain int8.onnx --data samples/

      onnxopt explain model.onnx --data samples/ --option method=minmax --option runtime=openvino --json
    """
    from onnxopt import api
    from onnxopt.cli.progress import Reporter
    from onnxopt.pipeline.record import plain
    from onnxopt.report.explained import explained_table

    options = arg.pairs(option, "--option")
    with Reporter(ctx.obj) as listen:
        found = api.explain_layers(
            model,
            data=data,
            worst=worst,
            options=options,
            threads=threads,
            report=report,
            cache=cache,
            seed=seed,
            listen=listen,
        )
    show_json(plain(found)) if json else show(explained_table(found, report))


def evaluate(
    model: arg.Model,
    data: arg.Data = None,
    metric: arg.Metric = None,
    goal: arg.Goal = None,
    reference: Annotated[Path | None, typer.Option(help="a model to measure drop and drift against")] = None,
    runtime: arg.Runtime = "ort",
    option: Annotated[list[str] | None, typer.Option(help="of the runtime, as NAME=VALUE; may be repeated")] = None,
    threads: arg.Threads = 1,
    json: arg.Json = False,
) -> None:
    """Score a model on samples, and tell how far its outputs are from a reference model's.

    Example:  onnxopt evaluate int8.onnx --data samples/ --metric top1 --reference model.onnx
    """
    from onnxopt import api
    from onnxopt.errors import UsageError
    from onnxopt.pipeline.record import plain
    from onnxopt.report.tables import scores_table

    if data is None or (metric is None and reference is None):
        raise UsageError("nothing to evaluate by", hint="give --data, and --metric or --reference")
    found = api.evaluate_model(
        model,
        data=data,
        metric=metric,
        goal=goal,  # type: ignore[arg-type]
        runtime=runtime,
        options=arg.pairs(option, "--option"),
        threads=threads,
        reference=reference,
    )
    show_json(plain(found)) if json else show(scores_table(found))


def compare(
    ctx: typer.Context,
    first: Annotated[Path, typer.Argument(help="the reference .onnx file", show_default=False)],
    second: Annotated[Path, typer.Argument(help="the .onnx file in question", show_default=False)],
    data: arg.Data = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="also what each layer makes; of a pruned model the channels it kept")
    ] = False,
    runtime: arg.Runtime = "ort",
    threads: arg.Threads = 1,
    json: arg.Json = False,
) -> None:
    """Hold one model against another: how far its outputs are off, and how much faster it is.

    Examples:
      onnxopt compare model.onnx int8.onnx --data samples/

      onnxopt compare model.onnx pruned.onnx --data samples/ --layers
    """
    from onnxopt import api
    from onnxopt.cli.progress import Reporter
    from onnxopt.pipeline.record import plain
    from onnxopt.report.tables import comparison_table

    with Reporter(ctx.obj) as listen:
        found = api.compare(first, second, data=data, layers=layers, runtime=runtime, threads=threads, listen=listen)
    show_json(plain(found)) if json else show(comparison_table(found))


def data(
    source: Annotated[str, typer.Argument(help="what --data takes: YAML description, file, folder, module:function")],
    model: Annotated[Path, typer.Option(help="the .onnx file the samples are for", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="folder to write to", show_default=False)],
    limit: Annotated[int | None, typer.Option(help="only the first so many", min=1)] = None,
    json: arg.Json = False,
) -> None:
    """Write samples of any source as a folder of .npz files, the format every command reads.

    A description is a YAML file with one of these first keys, and options beside it:
    files, stacked, images (resize, crop, mean, std, layout, labels …), text (tokenizer, column, label …),
    audio (rate, seconds, labels …), function, synthetic.

    Example:  onnxopt data photos.yaml --model model.onnx --out samples/
    """
    from onnxopt import api

    count = api.write_data(source, model, out, limit=limit)
    show_json({"samples": count, "folder": str(out)}) if json else show(f"wrote {count} samples to {out}")


def export(
    source: Annotated[str, typer.Argument(help="module:function returning (module, example), or a .pt2 file")],
    out: Annotated[Path, typer.Option("--out", "-o", help="the .onnx file to write", show_default=False)],
    weights: Annotated[Path | None, typer.Option(help="state dict to load first (weights_only)")] = None,
    dynamic: Annotated[
        list[str] | None,
        typer.Option(help="batch=1..64 (first axis of every input) or seq@ids.1,mask.1=1..512; may be repeated"),
    ] = None,
    opset: Annotated[int, typer.Option(help="opset of the result, exactly", min=7)] = 18,
    json: arg.Json = False,
) -> None:
    """Export a torch module, and check the result against it at sizes that were not traced.

    Example:  onnxopt export mynet:build --weights best.pt --dynamic batch=1..64 --out model.onnx
    """
    from onnxopt.lift.extra import need_torch

    need_torch("exporting")
    from onnxopt.export.from_torch import export_model
    from onnxopt.report.tables import export_record, export_table

    found = export_model(source, out, weights=weights, dynamic=dynamic or (), opset=opset)
    show_json(export_record(found, out)) if json else show(export_table(found, out))


def bucket_shapes(
    ctx: typer.Context,
    model: arg.Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="folder to write to", show_default=False)],
    dims: Annotated[
        list[str], typer.Option(help="sizes of a dimension, as NAME=8,16,32; may be repeated", show_default=False)
    ],
    data: arg.Data = None,
    cache: arg.CacheFolder = None,
    seed: arg.Seed = 0,
    json: arg.Json = False,
) -> None:
    """Write a model for each size of a dynamic dimension: shapes fixed, rewritten, verified; for runtimes that plan.

    Several dimensions make a model for each combination. An application pads its input to the next larger size.

    Example:  onnxopt bucket-shapes bert.onnx --dims tokens=32,64,128 --dims batch=1 --out buckets/
    """
    from onnxopt import api
    from onnxopt.cli.progress import Reporter
    from onnxopt.pipeline.record import plain
    from onnxopt.report.tables import buckets_table

    with Reporter(ctx.obj) as listen:
        sizes = {name: arg.sizes(given, "--dims") for name, given in arg.pairs(dims, "--dims").items()}
        made = api.bucket_shapes(model, sizes, out, data=data, cache=cache, seed=seed, listen=listen)
    show_json(plain(made)) if json else show(buckets_table(made))
