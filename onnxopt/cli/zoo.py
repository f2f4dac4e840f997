"""``onnxopt zoo``: real trained models with labelled data, to try everything on."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from onnxopt.cli import arguments as arg
from onnxopt.cli.output import Settings, err, show, show_json

if TYPE_CHECKING:
    from onnxopt_zoo import ZooFiles

app = typer.Typer(no_args_is_help=True, help="Real trained models with labelled data, to try everything on.")


@app.command("list")
def _list(json: arg.Json = False) -> None:
    """List the models: what they are, what they are scored on, and what getting them needs."""
    import onnxopt_zoo
    from onnxopt.report.tables import zoo_table

    models = onnxopt_zoo.models()
    show_json([model.model_dump(mode="json") for model in models]) if json else show(zoo_table(models))


@app.command("get")
def _get(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="a model of `onnxopt zoo list`", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="folder for model.onnx, calibration/ and evaluation/")],
    cache: Annotated[Path | None, typer.Option(help="folder of downloads", show_default="~/.cache/onnxopt/zoo")] = None,
    samples: Annotated[bool, typer.Option(help="build the samples too")] = True,
    json: arg.Json = False,
) -> None:
    """Fetch a model and its samples from the package it is published in, checked against pinned hashes.

    Example:  onnxopt zoo get magika --out magika/
    """
    import onnxopt_zoo
    from onnxopt.api import default_cache

    settings: Settings = ctx.obj
    progress = None if settings.quiet else (lambda sentence: err().print(f"[dim]{sentence}[/]"))
    found = onnxopt_zoo.get(name, out, cache=cache or default_cache() / "zoo", samples=samples, progress=progress)
    if json:
        show_json({"model": str(found.model), "metric": found.metric, "data": str(out) if found.evaluation else None})
    else:
        show(f"wrote {out}; next:\n  {_next(out, found)}")


def _next(out: Path, found: ZooFiles) -> str:
    """Return the command to go on with."""
    data = f" --data {quote(str(out))}" if found.evaluation else ""
    metric = f" --metric {found.metric}" if found.metric else ""
    return f"onnxopt optimize {quote(str(found.model))}{data}{metric} --out {quote(f'{out}-fast')}"
