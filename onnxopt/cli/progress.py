"""What a run tells while it runs, on standard error: a bar on a terminal, lines where asked for."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from onnxopt.cli.output import Settings, err
from onnxopt.context import Warned
from onnxopt.pipeline.events import CandidateDone, CandidateStarted, Event, Listener, StepDone

_WARNINGS = 3
"""Warnings that are told where nobody asked for more."""


class Reporter:
    """A listener that shows progress, and in the end what was warned of; a context manager."""

    def __init__(self, settings: Settings, also: Listener | None = None) -> None:
        """Make a reporter that is as talkative as ``settings`` say; ``also`` is told everything too."""
        self._settings = settings
        self._also = also
        self._warnings: dict[str, None] = {}
        self._console = err()
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        hidden = settings.quiet or not self._console.is_terminal
        self._progress = Progress(*columns, console=self._console, transient=True, disable=hidden)
        self._task = self._progress.add_task("reading model and data", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        self._tell_warnings()

    def __call__(self, event: Event) -> None:
        """Take in an event."""
        if self._also is not None:
            self._also(event)
        match event:
            case CandidateStarted(name, index, total):
                self._progress.update(self._task, description=name, completed=index - 1, total=total)
            case CandidateDone(name, status, reason, speedup):
                self._say(f"{name}: {status} {speedup} {reason}", always=not self._console.is_terminal)
            case StepDone(step, cached, reason, seconds):
                self._say(f"  {step}: {'cached' if cached else f'{reason}, {seconds:.1f} s'}")
            case Warned(text):
                self._warnings[text] = None
                self._say(f"  warning: {text}")
            case _:
                pass

    def _tell_warnings(self) -> None:
        """Tell the first few of the warnings, which verbose reporters have told as they came."""
        if not self._warnings or self._settings.verbose:
            return
        count = len(self._warnings)
        rest = ", of which the first:" if count > _WARNINGS else ":"
        self._say(f"{count} warning{'s' if count > 1 else ''}{rest}", always=True)
        for text in list(self._warnings)[:_WARNINGS]:
            self._say(f"  {text}", always=True)
        if count > _WARNINGS:
            self._say("  --verbose tells all", always=True)

    def _say(self, text: str, *, always: bool = False) -> None:
        if (self._settings.verbose or always) and not self._settings.quiet:
            self._console.print(text, soft_wrap=True, highlight=False, markup=False)
