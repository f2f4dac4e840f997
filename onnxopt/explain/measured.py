"""What ``profile`` and ``compare`` found."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

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
class LayerDrift:
    """What a layer makes in the second model, held against the first's.

    Attributes:
        node: Name of the layer in the second model.
        operator: Its type.
        tensor: What it makes, with its bias, under the same name in both models.
        channels: That it makes in the second model; None if its weight is computed, as that of a quantized layer.
        of: That it makes in the first; those a pruned model tells that it keeps are compared.
        sqnr_db: Of it; None where it is not compared.
        reason: Why it is not compared, empty if it is.
    """

    node: str
    operator: str
    tensor: str
    channels: int | None
    of: int | None
    sqnr_db: float | None
    reason: str = ""

    @property
    def kept(self) -> str:
        """Channels, for people."""
        return "-" if self.channels is None or self.of is None else f"{self.channels} of {self.of}"


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
    def noisiest(self) -> LayerDrift | None:
        """The layer that adds most noise to what the one before it has, as a share of the signal; None if none does."""
        told = [layer for layer in self.layers if layer.sqnr_db is not None]
        noises = [0.0, *(10 ** (-(layer.sqnr_db or 0) / 10) for layer in told)]
        added = [after - before for before, after in pairwise(noises)]
        most = max(range(len(told)), key=added.__getitem__, default=None)
        return None if most is None or added[most] <= _EXACT else told[most]


_EXACT = 1e-12
"""Share of the signal that is rounding at most."""
