"""Arguments and options that several commands share, declared once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from onnxopt.errors import UsageError

Model = Annotated[Path, typer.Argument(help="the .onnx file", show_default=False)]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        "-d",
        help="samples: a folder of .npz files (one a sample, arrays named as inputs, optional 'label'), a folder with"
        " calibration/ and evaluation/, one stacked .npz or .npy, a YAML description, or module:function",
        show_default=False,
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        "--metric",
        "-m",
        help="top1 top5 f1 auc pearson spearman cer wer mse perplexity cosine sqnr agreement, or"
        " module:function(outputs, labels)",
        show_default=False,
    ),
]
Goal = Annotated[str | None, typer.Option(help="max or min; only for module:function", show_default=False)]
Runtime = Annotated[str, typer.Option(help="runtime to run in")]
Threads = Annotated[int, typer.Option(help="threads one inference may use", min=1)]
Seed = Annotated[int, typer.Option(help="of every random choice", min=0)]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="folder to write the result to", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="print the result as JSON")]
CacheFolder = Annotated[
    Path | None,
    typer.Option(
        "--cache", envvar="ONNXOPT_CACHE", help="folder of results, kept between runs", show_default="~/.cache/onnxopt"
    ),
]
Effort = Annotated[str, typer.Option(help="time spent on measuring: quick, normal or thorough")]
Explain = Annotated[bool, typer.Option("--explain", help="tell why each step ran, or that its result was cached")]
TimeLimit = Annotated[
    float, typer.Option(help="seconds a runtime may take for one load or burst of runs before it is ended", min=1)
]
MemoryLimit = Annotated[
    str | None, typer.Option(help="memory of data a runtime's process may take, such as 4GB", show_default="no limit")
]


def pairs(texts: Iterable[str] | None, flag: str) -> dict[str, Any]:
    """Return NAME=VALUE texts as a mapping, values read as YAML.

    Raises:
        UsageError: One has another form.
    """
    import yaml

    found = {}
    for text in texts or ():
        name, sign, value = text.rpartition("=")
        if not sign:
            raise UsageError(f"{flag} {text!r} is not NAME=VALUE")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UsageError(f"{flag} {text!r}: the value cannot be read", hint="quote it") from error
    return found


def sizes(given: Any, flag: str) -> list[int]:
    """Return sizes written as 8,16,32.

    Raises:
        UsageError: One is no number above 0.
    """
    parts = [part.strip() for part in str(given).split(",")]
    wrong = [part for part in parts if not part.isdecimal() or not int(part)]
    if wrong:
        raise UsageError(f"{wrong[0]!r} is no size", where=flag, hint="write sizes as NAME=8,16,32")
    return [int(part) for part in dict.fromkeys(parts)]
