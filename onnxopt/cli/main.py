"""``onnxopt``: the program's entry, its global options, and how errors leave it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from onnxopt import __version__
from onnxopt.cli import about, models, optimizing, pruning, zoo
from onnxopt.cli.output import Settings, err, out
from onnxopt.errors import BudgetError, OnnxoptError, OutputError, UsageError, did_you_mean
from onnxopt.registry import names

_INTERRUPTED = 130
_ABOUT = "About this installation"
_GLOBAL = {"-v", "--verbose", "-q", "--quiet", "--debug"}

_EPILOG = (
    "Each pass is a command too: onnxopt PASS MODEL --out FILE. They are: "
    + ", ".join(names("passes"))
    + ". `onnxopt passes` explains them. Exit codes: 0 done, 1 failed, 2 wrong usage or recipe, 3 a budget was not met."
)


class _Commands(TyperGroup):
    """The commands written out in this room, and one for each pass, made when it is asked for."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        known = super().get_command(ctx, cmd_name)
        if known is not None or cmd_name not in names("passes"):
            return known
        from onnxopt.cli.passes import pass_command

        return pass_command(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None:
            known = [*self.list_commands(ctx), *names("passes")]
            raise UsageError(f"there is no command {args[0]!r}", hint=did_you_mean(args[0], known))
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    epilog=_EPILOG,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        out().print(f"onnxopt {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    ctx: typer.Context,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="tell every step, and why it ran")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress; only results and errors")] = False,
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_version, help="tell it")] = False,  # noqa: ARG001
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False,
) -> None:
    """ONNX deployment: the fastest artefact that is proved to stay within your accuracy budget, and why.

    Start with:  onnxopt optimize model.onnx --data samples/

    The global options may stand anywhere on the line.
    """
    ctx.obj = Settings(verbose=verbose, quiet=quiet, debug=debug)


_PANELS: Mapping[str, Sequence[Callable[..., None]]] = {
    "The main job": (optimizing.optimize, optimizing.quantize, pruning.prune, optimizing.run),
    "Looking at models and data": (
        models.inspect,
        models.profile,
        models.evaluate,
        models.explain,
        models.compare,
        models.data,
        models.export,
        models.bucket_shapes,
    ),
    _ABOUT: (about.passes, about.targets, about.doctor),
}
for panel, commands in _PANELS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.add_typer(about.cache_app, name="cache", rich_help_panel=_ABOUT)
app.add_typer(zoo.app, name="zoo", rich_help_panel=_ABOUT)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program; the only place where errors become exit codes."""
    given = _hoisted(list(sys.argv[1:] if arguments is None else arguments))
    try:
        code = app(given, prog_name="onnxopt", standalone_mode=False)
    except OnnxoptError as error:
        _fail(error, given)
    except OSError as error:
        _fail(OutputError(f"{error.strerror or error}", where=error.filename), given)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except Exception as error:  # noqa: BLE001  (told as a defect of this program, with a non-zero exit code)
        _unknown(error, given)
    if code == _INTERRUPTED:
        err().print("interrupted: what was finished is kept; run the same command to go on")
    sys.exit(code if isinstance(code, int) else 0)


def _hoisted(given: list[str]) -> list[str]:
    """Move global options to the front, so that they may stand anywhere before a ``--``."""
    end = given.index("--") if "--" in given else len(given)
    flags = [word for word in given[:end] if word in _GLOBAL]
    return [*flags, *(word for word in given[:end] if word not in _GLOBAL), *given[end:]]


def _fail(error: OnnxoptError, given: Sequence[str]) -> None:
    if "--debug" in given:
        err().print_exception()
    if "--json" in given and not isinstance(error, BudgetError):  # then the record was printed, and tells it
        print(json.dumps(error.to_dict()))  # noqa: T201
    err().print(f"[bold red]error:[/] {_escape(error.what)}", soft_wrap=True, highlight=False)
    for word, text in (("at:  ", error.where), ("hint:", error.hint)):
        if text:
            err().print(f"  [dim]{word}[/] {_escape(text)}", soft_wrap=True, highlight=False)
    sys.exit(error.exit_code)


def _unknown(error: Exception, given: Sequence[str]) -> None:
    """Leave with what typer says of wrong usage, or with a defect of this program."""
    told = getattr(error, "format_message", None)
    if callable(told):
        _fail(UsageError(told().rstrip("."), hint="--help after the command tells what it takes"), given)
    what = f"a defect in onnxopt: {type(error).__name__}: {error}"
    _fail(OnnxoptError(what, hint="run again with --debug and report what it prints"), given)


def _escape(text: str) -> str:
    return text.replace("[", "\\[")
