"""How much a model's outputs move with the channels that layers read: from gradients, on samples.

A gate stands before a channel wherever it is read, and is open: 1. The derivative of an output by it is what the
output would lose with the channel, to first order (Molchanov et al., arXiv:1906.10771).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from onnxopt.data.sample import Array
from onnxopt.ir.read import read_model
from onnxopt.lift.gate import Gate
from onnxopt.lift.lifted import Lifted
from onnxopt.lift.operator import Tensor


class GateGradients:
    """Runs samples forth and back. Works in a child, which alone imports torch."""

    def __init__(self, model: str, groups: Sequence[Sequence[Gate]], widths: Sequence[int], seed: int) -> None:
        """Load a model.

        Args:
            model: Its file.
            groups: The gates of each group.
            widths: Channels of each group.
            seed: Of the directions outputs are looked at along.
        """
        names = dict.fromkeys(gate.weight for gates in groups for gate in gates)
        self._lifted = Lifted(read_model(Path(model)).graph, list(names))
        self._groups = groups
        self._squares = [np.zeros(width) for width in widths]
        self._random = np.random.default_rng(seed)
        self._seen = 0

    def add(self, samples: Sequence[Mapping[str, Array]]) -> None:
        """Take in what samples say.

        Raises:
            EngineError: Gradients do not pass through a node.
        """
        for feeds in samples:
            self._add(feeds)

    def means(self) -> list[Array]:
        """Return for each group the mean over samples of what the outputs lose with each channel, [channels].

        It is the squared first-order change of all float outputs, each over its own power.
        """
        return [squares / max(self._seen, 1) for squares in self._squares]

    def _add(self, feeds: Mapping[str, Array]) -> None:
        asked = [one for one in self._lifted.run(feeds).values() if one.requires_grad and _says_something(one)]
        if not asked:
            return
        total: Any = sum(self._along(one) for one in asked)
        total.backward()
        self._seen += 1
        for squares, gates in zip(self._squares, self._groups, strict=True):
            derivative = np.zeros(len(squares))
            for gate in gates:
                derivative += self._derivative(gate, len(squares))
            squares += np.square(derivative)
        for weight in self._lifted.weights.values():
            weight.grad = None

    def _along(self, output: Tensor) -> Tensor:
        """Return an output along a random direction: squares of its derivatives are, on average, those of all."""
        signs = self._random.integers(0, 2, output.shape) * 2.0 - 1
        return (output * torch.from_numpy(signs).to(output.dtype)).sum() / output.detach().norm()

    def _derivative(self, gate: Gate, width: int) -> Array:
        """Return the derivative by the gates before a weight's channels, [channels]."""
        weight = self._lifted.weights[gate.weight]
        if weight.grad is None:
            return np.zeros(width)
        others = [axis for axis in range(weight.ndim) if axis != gate.axis % weight.ndim]
        product = weight.detach() * weight.grad
        along = (product.sum(others) if others else product).numpy().astype(np.float64)
        inside = gate.channels >= 0
        return np.bincount(gate.channels[inside], along[inside], width)


def _says_something(output: Tensor) -> bool:
    return bool(torch.isfinite(output).all()) and bool(output.detach().norm() > 0)
