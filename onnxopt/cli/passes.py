"""A command for each pass, made from its fields: nothing is declared twice."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer

from onnxopt.cli import arguments as arg
from onnxopt.cli.output import show, show_json
from onnxopt.errors import UsageError, did_you_mean
from onnxopt.options import Option, describe
from onnxopt.registry import resolve

if TYPE_CHECKING:
    from onnxopt.explain.rules import RulesTold

_FIXED: Mapping[str, tuple[Any, Any]] = {
    "model": (arg.Model, inspect.Parameter.empty),
    "out": (Annotated[Path, typer.Option("--out", "-o", help="the .onnx file to write", show_default=False)], ...),
    "data": (arg.Data, None),
    "cache": (arg.CacheFolder, None),
    "seed": (arg.Seed, 0),
    "verify": (
        Annotated[bool, typer.Option(help="check that a pass that must not change the answer does not")],
        True,
    ),
    "json": (arg.Json, False),
}
"""What every pass command takes besides the pass's own options."""

_RULES: Mapping[str, tuple[Any, Any]] = {
    "explain": (Annotated[bool, typer.Option("--explain", help="list what fired where, and what nearly did")], False),
    "rule": (Annotated[str | None, typer.Option(help="explain this rule alone, every place", metavar="RULE")], None),
}
"""What the command of a pass that applies rules takes as well."""

_ORIGINAL: Mapping[str, tuple[Any, Any]] = {
    "original": (Annotated[Path, typer.Option(help="the .onnx file before it was changed", show_default=False)], ...),
}
"""What the command of a pass that holds a model against the original takes as well."""


def pass_command(name: str) -> Any:
    """Return the command of a pass."""
    cls = resolve("passes", name)
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    summary = inspect.getdoc(cls) or ""
    app.command(name, help=f"{summary}\n\nExample:  onnxopt {name} model.onnx --out changed.onnx")(_function(name, cls))
    return typer.main.get_command(app)


def _function(name: str, cls: type[Any]) -> Callable[..., None]:
    """Return a function whose parameters are the fixed ones and the pass's options."""
    options = describe(cls)
    fixed = {**_FIXED, **(_RULES if cls.rules() else {}), **(_ORIGINAL if "original" in cls.uses else {})}

    def command(ctx: typer.Context, **given: Any) -> None:
        values = {option.name: _value(option, given[option.name]) for option in options}
        _apply(ctx, name, values, {key: given[key] for key in fixed})

    parameters = [_parameter("ctx", typer.Context, inspect.Parameter.empty)]
    parameters += [_parameter(key, kind, default) for key, (kind, default) in fixed.items()]
    parameters += [_parameter(option.name, *_annotated(option)) for option in options]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _apply(ctx: typer.Context, name: str, values: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    from onnxopt import api
    from onnxopt.cli.progress import Reporter
    from onnxopt.pipeline.record import plain
    from onnxopt.report.tables import applied_table, rules_table

    explained = _listener(name, **{key: given.get(key) for key in _RULES})
    with Reporter(ctx.obj, explained) as listen:
        how = {key: given[key] for key in ("data", "cache", "verify", "seed", *_ORIGINAL) if key in given}
        made = api.apply_pass(given["model"], name, values, given["out"], listen=listen, **how)
    if given["json"]:
        show_json({**plain(made), **({} if explained is None else {"rules": plain(explained)})})
    else:
        show(applied_table(given["model"], made), *([] if explained is None else [rules_table(explained)]))


def _listener(name: str, explain: bool | None, rule: str | None) -> RulesTold | None:
    """Return what listens to a pass for ``--explain``, None where nobody asked.

    Raises:
        UsageError: The pass has no such rule.
    """
    from onnxopt.explain.rules import RulesTold

    known = resolve("passes", name).rules()
    if rule is not None and rule not in known:
        raise UsageError(f"there is no rule {rule!r}", where="--rule", hint=did_you_mean(rule, known))
    return RulesTold(rule) if rule or explain else None


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _annotated(option: Option) -> tuple[Any, Any]:
    """Return a parameter's annotation and default."""
    kind, default = _cli_type(option.type), option.default
    if kind == list[str]:
        default = [f"{k}={v}" for k, v in default.items()] if isinstance(default, Mapping) else list(default)
    text = option.text + ("; NAME=VALUE, may be repeated" if get_origin(option.type) is dict else "")
    told = typer.Option(help=text, rich_help_panel="Options of the pass")
    return Annotated[kind, told], ... if option.required else default


def _cli_type(kind: Any) -> Any:
    """Return the type a flag is parsed as: lists for tuples and mappings, one flag for each item."""
    origin = get_origin(kind)
    if origin in (tuple, dict):
        return list[str]
    if origin is Literal:
        return type(get_args(kind)[0])
    if origin in (Union, types.UnionType):
        inner = [part for part in get_args(kind) if part is not type(None)]
        return _cli_type(inner[0]) | None if len(inner) == 1 else str | None
    return kind


def _value(option: Option, given: Any) -> Any:
    """Return what the pass is given for what was typed."""
    if get_origin(option.type) is not dict:
        return given
    return arg.pairs(given, f"--{option.name}")
