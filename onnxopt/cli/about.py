"""Commands about the installation: passes, targets, doctor, cache."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxopt.cli import arguments as arg
from onnxopt.cli.output import show, show_json
from onnxopt.errors import UsageError

if TYPE_CHECKING:
    from onnxopt.pipeline.cache import Cache

cache_app = typer.Typer(no_args_is_help=True, help="Look at, check or empty the cache of results.")


def passes(
    name: Annotated[str | None, typer.Argument(help="a pass to explain with all its options")] = None,
    json: arg.Json = False,
) -> None:
    """List the passes, or explain one: what it does, its options, their defaults.

    Example:  onnxopt passes quantize-static
    """
    from onnxopt.report.tables import pass_record, pass_table, passes_table

    if name is None:
        show_json(pass_record(None)) if json else show(passes_table())
    else:
        show_json(pass_record(name)) if json else show(pass_table(name))


def targets(json: arg.Json = False) -> None:
    """List the machines that are known, with their precisions and runtimes; results are made on this one, `local`."""
    from onnxopt.pipeline.record import plain
    from onnxopt.report.tables import targets_table
    from onnxopt.targets.target import target, target_names

    rows = [target(name) for name in target_names()]
    show_json([plain(row) for row in rows]) if json else show(targets_table(rows))


def doctor(json: arg.Json = False) -> None:
    """Check this installation: versions, runtimes, instruction sets, and what is missing for which feature."""
    from onnxopt.explain.doctor import examine
    from onnxopt.pipeline.record import plain
    from onnxopt.report.tables import doctor_table

    found = examine()
    show_json(plain(found)) if json else show(doctor_table(found))


@cache_app.command("info")
def _info(cache: arg.CacheFolder = None, json: arg.Json = False) -> None:
    """Tell where the cache is, how large, and what it holds."""
    from onnxopt.report.tables import cache_record, cache_table

    found = cache_record(_cache(cache))
    show_json(found) if json else show(cache_table(found))


@cache_app.command("clean")
def _clean(cache: arg.CacheFolder = None, json: arg.Json = False) -> None:
    """Remove damaged entries, and what killed runs left behind."""
    removed = _cache(cache).clean()
    show_json({"removed": removed}) if json else show(f"removed {removed} folders")


@cache_app.command("clear")
def _clear(
    cache: arg.CacheFolder = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    json: arg.Json = False,
) -> None:
    """Remove every cached result; other files of the folder stay."""
    found = _cache(cache)
    if not (yes or (sys.stdin.isatty() and typer.confirm(f"remove every cached result in {found.root}?"))):
        raise UsageError("nothing was removed", hint="--yes does not ask")
    found.clear()
    show_json({"emptied": str(found.root)}) if json else show(f"emptied {found.root}")


def _cache(folder: Path | None) -> Cache:
    from onnxopt.api import default_cache
    from onnxopt.pipeline.cache import Cache

    return Cache(folder or default_cache())
