"""What ``profile`` and ``compare`` found."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from onnxopt.evaluate.drift import Drift
from onnxopt.profile.latency import Timing
from onnxopt.profile.machine import Machine
from onnxopt.profile.statistics import Speedup

if TYPE_CHECKING:
    from onnxopt.explain.layerwise import LayerDrift


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
        layers: That both models have, in the order of the graph, where that was asked for.
    """

    drift: Drift
    speedup: Speedup
    samples: int
    synthetic: bool
    layers: tuple[LayerDrift, ...] = ()

    @property
    def steepest_fall(self) -> tuple[LayerDrift, LayerDrift] | None:
        """The two layers in a row between which the SQNR falls most; None if it falls nowhere."""
        told = [layer for layer in self.layers if layer.sqnr_db is not None]
        falls = [(one, other) for one, other in pairwise(told) if _sqnr(other) < _sqnr(one)]
        return max(falls, key=lambda pair: _sqnr(pair[0]) - _sqnr(pair[1]), default=None)


def _sqnr(layer: LayerDrift) -> float:
    assert layer.sqnr_db is not None
    return layer.sqnr_db
