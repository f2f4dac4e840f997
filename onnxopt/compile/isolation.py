"""Running things in a child process, so that a crash, a hang or a memory hog costs one candidate and not the run."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from onnxopt.compile.engine import Backend, Engine, Feeds, Results
from onnxopt.errors import EngineCrashError, EngineError, EngineTimeoutError
from onnxopt.ir.signature import Signature
from onnxopt.targets.target import Target


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may use.

    Attributes:
        seconds: For one request: a load, a run, a burst of timed runs.
        memory_bytes: Of data (heap and anonymous mappings); 0 for no limit.
    """

    seconds: float = 300.0
    memory_bytes: int = 0


class Child:
    """A process that holds one object and calls its methods for us."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed in close)
        self._connection, theirs = multiprocessing.Pipe()
        handle = theirs.fileno()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "onnxopt.compile.worker", str(handle), str(self._limits.memory_bytes)],
            pass_fds=[handle],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
        )
        theirs.close()

    def make(self, place: str, *arguments: Any) -> float:
        """Make the child's object by calling ``module:function``; return the seconds it took."""
        seconds: float = self._ask("make", place, arguments)
        return seconds

    def call(self, method: str, *arguments: Any) -> Any:
        """Return what a method of the child's object returns."""
        return self._ask("call", method, arguments)

    def attribute(self, name: str) -> Any:
        """Return an attribute of the child's object."""
        return self._ask("attribute", name, ())

    def function(self, place: str, *arguments: Any) -> Any:
        """Return what ``module:function`` returns in the child."""
        return self._ask("function", place, arguments)

    @property
    def alive(self) -> bool:
        """Whether it can still be asked."""
        return not self._connection.closed and self._process.poll() is None

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.kill()
        self._process.wait()
        self._stderr.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, verb: str, place: str, arguments: tuple[Any, ...]) -> Any:
        if self._connection.closed:
            raise EngineError("the engine is closed")
        try:
            self._connection.send((verb, place, arguments))
            if not self._connection.poll(self._limits.seconds):
                raise self._timed_out(place)
            fine, answer = self._connection.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise self._crashed() from error
        if not fine:
            raise answer
        return answer

    def _timed_out(self, place: str) -> EngineTimeoutError:
        self._process.kill()
        return EngineTimeoutError(
            f"the runtime did not finish {place.rpartition(':')[2]!r} within {self._limits.seconds:g} s",
            hint="raise the time limit if the model is that slow",
        )

    def _crashed(self) -> EngineCrashError:
        code = self._process.wait()
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        hint = "the system may have run out of memory" if code == -signal.SIGKILL else None
        return EngineCrashError(f"the runtime's process died: {name}{self._last_words()}", hint=hint)

    def _last_words(self) -> str:
        self._stderr.seek(0)
        lines = [line.strip() for line in self._stderr.read().decode(errors="replace").splitlines() if line.strip()]
        return f" ({lines[-1][:200]})" if lines else ""


class IsolatedEngine(Engine):
    """An engine that lives in a child process; it looks like any other.

    Attributes:
        load_seconds: Time to import the runtime and compile the model.
    """

    def __init__(self, backend: Backend, model: Path, target: Target, limits: Limits | None = None) -> None:
        self._child = Child(limits)
        try:
            self.load_seconds = self._child.make("onnxopt.compile.isolation:compile_model", backend, model, target)
            self._signature: Signature = self._child.attribute("signature")
        except BaseException:
            self._child.close()
            raise

    @property
    def signature(self) -> Signature:
        """The engine's inputs and outputs."""
        return self._signature

    @property
    def alive(self) -> bool:
        """Whether its process still answers."""
        return self._child.alive

    def run(self, feeds: Feeds) -> Results:
        """Run once in the child."""
        results: Results = self._child.call("run", dict(feeds))
        return results

    def time(self, feeds: Feeds, repeats: int) -> list[float]:
        """Time runs inside the child, where sending feeds and results does not count."""
        seconds: list[float] = self._child.call("time", dict(feeds), repeats)
        return seconds

    def peak_memory(self) -> int:
        """Return the most bytes the child has had resident, interpreter and runtime included."""
        most: int = self._child.function("onnxopt.compile.worker:peak_memory")
        return most

    def close(self) -> None:
        """End the child."""
        self._child.close()


class PersistentChild:
    """Calls functions in one child after the other: a new one is started when the last has died."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits
        self._child: Child | None = None

    def function(self, place: str, *arguments: Any) -> Any:
        """Return what ``module:function`` returns in the child.

        Raises:
            EngineCrashError: The process died.
            EngineTimeoutError: It did not answer in time.
        """
        self._child = self._child or Child(self._limits)
        try:
            return self._child.function(place, *arguments)
        except (EngineCrashError, EngineTimeoutError):
            self.close()
            raise

    def close(self) -> None:
        """End the process, if there is one."""
        if self._child is not None:
            self._child.close()
            self._child = None


def compile_model(backend: Backend, model: Path, target: Target) -> Engine:
    """Compile; called inside the child."""
    return backend.compile(model, target)


def run_isolated(place: str, *arguments: Any, limits: Limits | None = None) -> Any:
    """Return what ``module:function`` returns in a process of its own.

    Raises:
        EngineCrashError: The process died.
        EngineTimeoutError: It did not answer in time.
    """
    with Child(limits) as child:
        return child.function(place, *arguments)
