"""Every error onnxopt raises on purpose: what is wrong, where, what to do, and the exit code.

Exit codes: 0 done, 1 failed, 2 wrong usage or recipe, 3 a budget was not met.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class OnnxoptError(Exception):
    """An error with a place and a next step.

    Args:
        what: What is wrong, with the offending value.
        where: The file, line, node or sample it is wrong at.
        hint: What to do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  at:   {self.where}")
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.where, self.hint)

    def to_dict(self) -> dict[str, str | int | None]:
        """Return the error as plain values, for ``--json`` and for run records."""
        return {
            "error": type(self).__name__,
            "what": self.what,
            "where": self.where,
            "hint": self.hint,
            "exit_code": self.exit_code,
        }


class UsageError(OnnxoptError):
    """The command line, the Python call or an option is wrong."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe cannot be read as one."""


class ModelError(OnnxoptError):
    """A model file is missing a part, damaged, hostile or invalid."""


class DataError(OnnxoptError):
    """Samples do not fit the model, or cannot be read."""


class PassError(OnnxoptError):
    """A pass cannot run on this model, or produced an invalid one."""


class NothingToPruneError(PassError):
    """There is nothing that a pass could remove from this model, or nothing more."""


class VerificationError(OnnxoptError):
    """A model no longer computes what it should, or that cannot be decided."""


class UnverifiableError(VerificationError):
    """No input at hand would show a wrong answer, so nothing can be said."""


class EngineError(OnnxoptError):
    """A runtime could not compile or run a model."""


class EngineCrashError(EngineError):
    """A runtime's process died: a segmentation fault, an abort, or the out-of-memory killer."""


class EngineTimeoutError(EngineError):
    """A runtime's process did not answer within its time limit."""


class MissingExtraError(OnnxoptError):
    """A feature needs a package that is not installed."""


class OutputError(OnnxoptError):
    """Results cannot be written: no permission, no space, or something is in the way."""


class BudgetError(OnnxoptError):
    """Everything worked, but nothing meets the budget the user set."""

    exit_code = 3


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint that names the closest of ``known`` words, or lists them all."""
    choices = sorted(known)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(choices)}" if choices else "there is none to choose from"


def _rebuild(cls: type[OnnxoptError], what: str, where: str | None, hint: str | None) -> OnnxoptError:
    return cls(what, where=where, hint=hint)
