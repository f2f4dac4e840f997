"""The child's side of ``isolation``: makes one object and calls its methods for the parent.

Run as ``python -P -m onnxopt.compile.worker FD MEMORY``: nothing is imported from the folder the user happens to be
in. Requests and answers are pickled; both ends are this program, and nothing a user supplies is ever unpickled.
"""

from __future__ import annotations

import importlib
import os
import resource
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from onnxopt.errors import EngineError, OnnxoptError

_PARENT_CHECK_SECONDS = 2.0


def main() -> None:
    """Serve requests until the parent hangs up."""
    connection = Connection(int(sys.argv[1]))
    memory = int(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if memory:
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    threading.Thread(target=_die_with_parent, args=(os.getppid(),), daemon=True).start()
    _serve(connection)


def resolve_function(place: str) -> Any:
    """Import what ``module:name`` names."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def peak_memory() -> int:
    """Return the most bytes this process has had resident.

    ``VmHWM`` is used rather than ``ru_maxrss``, which a child inherits from the parent that spawned it.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _serve(connection: Connection) -> None:
    subject: Any = None
    answer: Any
    while True:
        try:
            verb, place, arguments = connection.recv()
        except EOFError:
            return
        try:
            if verb == "make":
                started = time.perf_counter()
                subject = resolve_function(place)(*arguments)
                answer = time.perf_counter() - started
            elif verb == "function":
                answer = resolve_function(place)(*arguments)
            elif verb == "attribute":
                answer = getattr(subject, place)
            else:
                answer = getattr(subject, place)(*arguments)
            connection.send((True, answer))
        except BaseException as error:  # noqa: BLE001  (whatever it is, the parent must hear of it)
            connection.send((False, _as_error(error)))


def _as_error(error: BaseException) -> OnnxoptError:
    if isinstance(error, OnnxoptError):
        return error
    if isinstance(error, MemoryError):
        return EngineError("out of memory", hint="raise the memory limit, or use a smaller model or batch")
    return EngineError(f"{type(error).__name__}: {error}")


def _die_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main()
