"""Layers that can be written as two thin ones: what is lost at each rank, and which ranks to take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir

from onnxopt.data.sample import Array
from onnxopt.evaluate.gram import Gram
from onnxopt.ir.windows import Window

_HALVINGS = 60

_RIDGE = 1e-3
"""Of the mean square of an input: what samples do not reach is not free, and the roots of small numbers are exact."""


@dataclass(frozen=True, eq=False)
class Factorable:
    """A layer that can be written as two.

    Attributes:
        node: Conv of one group, Gemm, or MatMul by a stored matrix.
        macs: Multiply-accumulates of one inference.
        matrix: Its weight, [outputs, inputs], float64; inputs as in the weight, channels and then places.
        window: Of a convolution.
        has_bias: Whether there is a place for the mean of the error.
    """

    node: onnx_ir.Node
    macs: float
    matrix: Array
    window: Window | None
    has_bias: bool

    @property
    def input(self) -> onnx_ir.Value:
        """What it reads."""
        value = self.node.inputs[0]
        assert value is not None
        return value


@dataclass(frozen=True, eq=False)
class Thinned:
    """Layers behind one thin layer, most often a single one, at every rank.

    Attributes:
        layers: That read the same in the same way.
        left: [outputs of all, directions], orthonormal: what they make is projected on the first of them.
        energies: [directions], largest first: of the outputs on samples, or of the weight, a share of each layer's.
        scales: [outputs of all]: outputs are multiplied by them before they are projected.
        means: [inputs]: of what is read; zeros where nothing was seen.
    """

    layers: tuple[Factorable, ...]
    left: Array
    energies: Array
    scales: Array
    means: Array

    @classmethod
    def of(cls, layers: Sequence[Factorable], seen: Gram | None) -> Thinned:
        """Return layers with their directions in order, by the outputs seen, or by the weights where none were.

        The best product of rank r of what ||W X - W_r X|| is small for projects outputs on the r first principal
        directions of W X (DRONE, NeurIPS 2021; SVD-LLM, arXiv:2403.07378). A bias takes the mean out of it.
        """
        inputs = layers[0].matrix.shape[1]
        means = np.zeros(inputs) if seen is None else seen.sums[0] / seen.rows
        roots = None if seen is None else _root(seen, means if all(layer.has_bias for layer in layers) else 0 * means)
        made = [layer.matrix if roots is None else layer.matrix @ roots for layer in layers]
        scales = np.concatenate([np.full(len(one), 1 / max(float(np.linalg.norm(one)), 1e-30)) for one in made])
        left, values, _ = np.linalg.svd(scales[:, None] * np.concatenate(made), full_matrices=False)
        return cls(tuple(layers), left, np.square(values), scales, means)

    @property
    def matrix(self) -> Array:
        """The weights of all, [outputs of all, inputs]."""
        return np.concatenate([layer.matrix for layer in self.layers])

    @property
    def macs(self) -> float:
        """Multiply-accumulates of the layers as they are."""
        return sum(layer.macs for layer in self.layers)

    def parts(self, rank: int) -> tuple[Array, Array]:
        """Return the weight of the thin layer, [rank, inputs], and of the wide ones behind it, [outputs, rank]."""
        thin = self.left[:, :rank].T @ (self.scales[:, None] * self.matrix)
        even = np.sqrt(np.maximum(np.linalg.norm(thin, axis=1), 1e-30))
        return thin / even[:, None], self.left[:, :rank] * even / self.scales[:, None]

    def ladder(self, align: int) -> Array:
        """Return the ranks worth having: multiples of ``align`` that save something, and 0 for layers as they are."""
        outputs, inputs = len(self.left), len(self.means)
        most = min((outputs * inputs - 1) // (outputs + inputs), len(self.energies))
        return np.concatenate([[0], np.arange(align, most + 1, align)])

    def cost(self, ranks: Array) -> Array:
        """Return the multiply-accumulates at ranks."""
        outputs, inputs = len(self.left), len(self.means)
        return np.asarray(np.where(ranks == 0, self.macs, self.macs * ranks * (outputs + inputs) / (outputs * inputs)))

    def loss(self, ranks: Array) -> Array:
        """Return the energy that is lost at ranks: shares of the layers', summed."""
        kept = np.concatenate([[0.0], np.cumsum(self.energies)])
        return np.asarray(np.where(ranks == 0, 0.0, np.maximum(kept[-1] - kept[ranks], 0)))


Ranked = tuple[Thinned, int]
"""Layers, and their rank; 0 where they stay."""


def choose_ranks(ways: Sequence[Sequence[Sequence[Thinned]]], macs: float, align: int) -> list[Ranked]:
    """Return ranks so that little energy is lost and ``macs`` are left.

    Each layer takes the rank that is best at a common price of a multiply-accumulate, which is found by halving.

    Args:
        ways: Of each set of layers, the ways to write it: alone, or behind one thin layer.
        macs: To be left of these layers.
        align: Ranks are multiples of it.
    """
    low, high = 0.0, 1.0 / min(float(_ladder(one, align)[1].min()) for way in ways for some in way for one in some)
    ladders = {one: _ladder(one, align) for way in ways for some in way for one in some}
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        spent = sum(float(one.cost(np.asarray(rank))) for one, rank in _at(middle, ways, ladders))
        low, high = (middle, high) if spent > macs else (low, middle)
    return _at(high, ways, ladders)


def ranks_of_energy(ways: Sequence[Sequence[Sequence[Thinned]]], least: float, align: int) -> list[Ranked]:
    """Return the ranks that are cheapest with at least a share of the energy kept; 0 where none saves anything."""
    found = []
    for way in ways:
        priced = [[(one, _least_rank(one, least, align)) for one in some] for some in way]
        found.extend(min(priced, key=lambda some: sum(float(one.cost(np.asarray(rank))) for one, rank in some)))
    return found


_Ladder = tuple[Array, Array, Array]
"""Ranks, and what they cost and lose."""


def _ladder(one: Thinned, align: int) -> _Ladder:
    ranks = one.ladder(align)
    return ranks, one.cost(ranks), one.loss(ranks)


def _at(price: float, ways: Sequence[Sequence[Sequence[Thinned]]], ladders: dict[Thinned, _Ladder]) -> list[Ranked]:
    """Return the best ranks at a price."""
    found: list[Ranked] = []
    for way in ways:
        found.extend(min((_priced(price, some, ladders) for some in way), key=lambda one: one[0])[1])
    return found


def _priced(price: float, some: Sequence[Thinned], ladders: dict[Thinned, _Ladder]) -> tuple[float, list[Ranked]]:
    total, ranked = 0.0, []
    for one in some:
        ranks, costs, losses = ladders[one]
        place = int(np.argmin(losses + price * costs))
        total += float(losses[place] + price * costs[place])
        ranked.append((one, int(ranks[place])))
    return total, ranked


def _least_rank(one: Thinned, least: float, align: int) -> int:
    ranks, _, losses = _ladder(one, align)
    enough = np.flatnonzero((losses <= (1 - least) * len(one.layers)) & (ranks > 0))
    return int(ranks[enough[0]]) if len(enough) else 0


def _root(seen: Gram, means: Array) -> Array:
    """Return a square root of the mean outer product of inputs, with a ridge, about means."""
    gram = seen.matrix[0] / seen.rows - np.outer(means, means)
    diagonal = np.maximum(np.diagonal(gram), 0)
    return np.asarray(np.linalg.cholesky(gram + max(_RIDGE * diagonal.mean(), 1e-12) * np.eye(len(gram))))
