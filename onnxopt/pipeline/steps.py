"""A step with the cache under it: the result that is there, or a new one and the reason for it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from onnxopt.data.sample import Samples
from onnxopt.pipeline.cache import Cache, Entry, Parts
from onnxopt.pipeline.events import Listener, StepDone

_TELLING = ("cli", "report")
"""Rooms whose code no result depends on."""


@dataclass(frozen=True)
class CachedSteps:
    """Runs steps.

    Attributes:
        cache: Where results are kept.
        listen: Told of every step.
        label: Distinguishes runs, so that the reason for a rerun is found: the input's path.
    """

    cache: Cache
    listen: Listener
    label: str

    @property
    def kept(self) -> Path:
        """A folder where steps find unfinished work again; another for each build of this program."""
        return self.cache.kept / _program()[:16]

    def run(self, step: str, parts: Parts, make: Callable[[Path], Any], *, place: str = "") -> tuple[Entry, StepDone]:
        """Return the entry made from ``parts``, and whether and why it was made now.

        Args:
            step: What it is, for people.
            parts: Everything the result depends on besides this program's own code.
            make: Writes files into a folder and returns a JSON value.
            place: Where in the recipe it stands, so that a change of its options is known for one; else ``step``.
        """
        parts = {**parts, "program": _program()}
        label = f"{self.label}: {place or step}"
        found = self.cache.look_up(parts, label)
        started = time.perf_counter()
        entry = found.entry or self.cache.store(parts, label, make)
        took = 0.0 if found.entry else time.perf_counter() - started
        done = StepDone(step, found.entry is not None, found.reason, took)
        self.listen(done)
        return entry, done


def fingerprint(samples: Samples | None) -> str | None:
    """Return the fingerprint of samples, None where there are none."""
    return None if samples is None else samples.fingerprint


@cache
def _program() -> str:
    """Return the SHA-256 of this package's code: what an older build found is never served by a newer one."""
    package = Path(__file__).parent.parent
    sha = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        if file.relative_to(package).parts[0] not in _TELLING:
            sha.update(file.read_bytes())
    return sha.hexdigest()
