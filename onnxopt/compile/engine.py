"""The two interfaces of this room: a backend compiles a model file, an engine runs it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np

from onnxopt.errors import DataError, EngineError, OnnxoptError
from onnxopt.ir.signature import Signature
from onnxopt.options import build, dump
from onnxopt.registry import resolve
from onnxopt.targets.target import Target

Array = np.ndarray[Any, Any]
Feeds = Mapping[str, Array]
Results = dict[str, Array]

_UNKNOWN_OPERATOR = (
    "not a registered function/op",
    "could not find an implementation",
    "no conversion rule",
    "does not support the following onnx operations",
    "unknown, known functions",
)
"""What onnxruntime, OpenVINO and the reference evaluator say of an operator they do not have."""


class Engine(ABC):
    """A compiled model. A context manager: leaving it frees the runtime's memory."""

    @property
    @abstractmethod
    def signature(self) -> Signature:
        """Inputs and outputs as the runtime tells them; names of symbolic dimensions may be lost."""

    @abstractmethod
    def run(self, feeds: Feeds) -> Results:
        """Return every output by name.

        Args:
            feeds: Every input by name, with the model's dtypes and fitting shapes.

        Raises:
            EngineError: The runtime refuses the feeds or fails.
        """

    def time(self, feeds: Feeds, repeats: int) -> list[float]:
        """Return the seconds each of ``repeats`` runs took, on the monotonic clock."""
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            self.run(feeds)
            seconds.append(time.perf_counter() - start)
        return seconds

    def close(self) -> None:
        """Free what the engine holds; it cannot run afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Backend(ABC):
    """A runtime and how it is set up; its fields are its options.

    Attributes:
        name: What recipes and ``--runtime`` call it.
        libraries: Distributions whose versions decide what it compiles to.
    """

    name: ClassVar[str]
    libraries: ClassVar[tuple[str, ...]]

    @abstractmethod
    def unavailable(self) -> str | None:
        """Return why this backend cannot run on this machine, or None if it can."""

    @abstractmethod
    def compile(self, model: Path, target: Target) -> Engine:
        """Compile a model file.

        Args:
            model: The ``.onnx`` file; its external data lies beside it.
            target: Gives the number of threads one inference may use.

        Raises:
            EngineError: The runtime cannot read or compile the model; the reason is the runtime's own.
        """

    @property
    def options(self) -> dict[str, Any]:
        """The fields, as JSON values."""
        return dump(self)

    def __str__(self) -> str:
        usual = type(self)().options
        told = [f"{key}={value}" for key, value in self.options.items() if value != usual[key]]
        return f"{self.name}({', '.join(told)})" if told else self.name


def make_backend(
    name: str, values: Mapping[str, Any] | None = None, *, where: str = "", error: type[OnnxoptError] | None = None
) -> Backend:
    """Return the backend of that name with these options.

    Raises:
        UsageError: There is no such backend, or an option does not fit (then ``error``, where it is given).
    """
    cls: type[Backend] = resolve("backends", name)
    place = where or f"runtime {name!r}"
    return build(cls, values or {}, where=place, **({"error": error} if error else {}))


def runtime_error(runtime: str, action: str, error: Exception, model: Path | None = None) -> EngineError:
    """Return a runtime's own failure as an EngineError that keeps its message."""
    text = str(error).strip() or type(error).__name__
    return EngineError(
        f"{runtime} cannot {action} the model: {_first_lines(text)}",
        where=str(model) if model else None,
        hint=_hint(text),
    )


def refuse_wrong_feeds(runtime: str, signature: Signature, feeds: Feeds) -> None:
    """Raise EngineError unless feeds fit, for runtimes that compute something from feeds that do not."""
    try:
        signature.check_feeds(feeds, runtime)
    except DataError as error:
        raise EngineError(f"{runtime} cannot run the model: {error.what}", hint=error.hint) from error


def _first_lines(text: str, limit: int = 400) -> str:
    joined = " ".join(line.strip() for line in text.splitlines() if line.strip())
    return joined if len(joined) <= limit else joined[:limit] + "…"


def _hint(text: str) -> str | None:
    if any(words in text.lower() for words in _UNKNOWN_OPERATOR):
        return "the model uses an operator this runtime does not have; try another --runtime"
    return None
