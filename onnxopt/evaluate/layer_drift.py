"""Two models run side by side, and how far the tensors both make are apart. Works in a child."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxopt.compile.engine import Feeds
from onnxopt.compile.ort import OnnxRuntime
from onnxopt.data.sample import Array
from onnxopt.evaluate.drift import Drift, DriftMeter
from onnxopt.targets.machine import processor
from onnxopt.targets.target import local_target


@dataclass(frozen=True, eq=False)
class Paired:
    """How a tensor of one model goes with that of the same name in another.

    Attributes:
        axis: Of its channels.
        kept: Positions of the first's channels that the second has, [channels]; None for all.
    """

    axis: int
    kept: Array | None


class SideBySide:
    """Runs samples through two models whose outputs are the tensors to hold against each other."""

    def __init__(self, first: str, second: str, tensors: Mapping[str, Paired]) -> None:
        """Load the models.

        Args:
            first: File of the reference.
            second: File of the model in question.
            tensors: By name, which is the same in both.
        """
        target = local_target().with_threads(processor().cores)
        self._engines = [OnnxRuntime(spinning=False).compile(Path(file), target) for file in (first, second)]
        self._tensors = tensors
        self._meter = DriftMeter()
        self._odd: dict[str, str] = {}

    def add(self, samples: Sequence[Feeds]) -> None:
        """Run samples and take in what the tensors are."""
        for feeds in samples:
            first, second = (engine.run(feeds) for engine in self._engines)
            for name, paired in self._tensors.items():
                self._hold(name, paired, first[name], second[name])

    def found(self) -> tuple[Drift, Mapping[str, str]]:
        """Return the drift of the tensors so far, and of those that do not line up why, by name."""
        return self._meter.result(), self._odd

    def _hold(self, name: str, paired: Paired, wanted: Array, made: Array) -> None:
        if paired.kept is not None:
            wanted = np.take(wanted, paired.kept, paired.axis)
        if wanted.shape == made.shape:
            self._meter.add({name: wanted}, {name: made})
        else:
            self._odd[name] = f"it has the shape {list(made.shape)}, and the first's is {list(wanted.shape)}"
