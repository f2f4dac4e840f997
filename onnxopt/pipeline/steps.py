"""A step with the cache under it: the result that is there, or a new one and the reason for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxopt.data.sample import Samples
from onnxopt.pipeline.cache import Cache, Entry, Parts
from onnxopt.pipeline.events import Listener, StepDone


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

    def run(self, step: str, parts: Parts, make: Callable[[Path], Any], *, place: str = "") -> tuple[Entry, StepDone]:
        """Return the entry made from ``parts``, and whether and why it was made now.

        Args:
            step: What it is, for people.
            parts: Everything the result depends on.
            make: Writes files into a folder and returns a JSON value.
            place: Where in the recipe it stands, so that a change of its options is known for one; else ``step``.
        """
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
