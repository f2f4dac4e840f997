"""Where output goes: results to standard output, everything else to standard error."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


@dataclass(frozen=True, slots=True)
class Settings:
    """The global options."""

    verbose: bool = False
    quiet: bool = False
    debug: bool = False


def out() -> Console:
    """Return the console for results; not a terminal, it keeps wide tables whole."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 200, markup=False, highlight=False)


def err() -> Console:
    """Return the console for progress and errors."""
    from rich.console import Console

    return Console(stderr=True)


def show(*renderables: RenderableType) -> None:
    """Print results, each below the one before."""
    for renderable in renderables:
        out().print(renderable)


def show_json(value: Any) -> None:
    """Print a result as strict JSON; a text is JSON already."""
    from onnxopt.pipeline.record import strict_json

    sys.stdout.write(value if isinstance(value, str) else strict_json(value))
    sys.stdout.write("\n")
