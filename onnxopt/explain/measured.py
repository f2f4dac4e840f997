"""What ``profile`` and ``compare`` found."""

from __future__ import annotations

from dataclasses import dataclass

from onnxopt.evaluate.drift import Drift
from onnxopt.profile.latency import Timing
from onnxopt.profile.machine import Machine
from onnxopt.profile.statistics import Speedup


@dataclass(frozen=True)
class Profile:
    """Latency of a model, and against another where one was given.

    Attributes:
        runtime: Backend and its settings.
        machine: Where it was measured.
        threads: An inference could use.
        timing: Of the model.
        versus: Of the other model.
        speedup: How many times faster the model is than the other.
    """

    runtime: str
    machine: Machine
    threads: int
    timing: Timing
    versus: Timing | None = None
    speedup: Speedup | None = None


@dataclass(frozen=True)
class Compared:
    """Two models on the same samples.

    Attributes:
        drift: Of the second model's outputs against the first's.
        speedup: How many times faster the second is.
        samples: Compared.
        synthetic: Whether they were made up.
    """

    drift: Drift
    speedup: Speedup
    samples: int
    synthetic: bool
