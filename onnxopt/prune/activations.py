"""How much each channel matters by what the layers that read it make of it on samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir

from onnxopt.context import Context
from onnxopt.data.sample import Array, Samples
from onnxopt.evaluate.batches import fitting
from onnxopt.evaluate.gram import Gram
from onnxopt.ir.layer_weights import Weights, weights_of
from onnxopt.ir.windows import Window
from onnxopt.prune.groups import Group, Groups
from onnxopt.prune.inputs import Read, find_inputs
from onnxopt.prune.units import Labels

Seeing = Literal["activation", "hessian", "reconstruction"]
"""Criteria that need samples."""

_MOST_BYTES = 1 << 29
"""Of Gram matrices held at a time; layers beyond that wait for another run over the samples."""

_MOST_INPUTS = 2304
"""Of an output, for ``reconstruction``: work grows with the cube."""

_DAMPING = 1e-4
"""Of the mean square of each input, added to it: samples are few."""

_DEAD = 1e-9
"""Of the mean square of all inputs, added to each: some are always zero."""


@dataclass(eq=False)
class _Reader:
    """A layer that reads channels of a group.

    Attributes:
        weights: Of it, of one convolution group.
        window: Of a convolution.
        places: [channels, places], int: where each channel is among the numbers that an output is a product with.
        gram: Of these numbers, once seen.
    """

    weights: Weights
    window: Window | None
    places: Array
    gram: Gram

    @property
    def input(self) -> onnx_ir.Value:
        """What it reads."""
        value = self.weights.node.inputs[0]
        assert value is not None
        return value

    @property
    def inputs(self) -> int:
        """Numbers that an output is a product with."""
        return int(self.weights.parts.shape[2] * self.weights.parts.shape[3])

    @property
    def rows(self) -> Array:
        """The weights, [outputs, inputs], float64."""
        return np.asarray(self.weights.parts[0].reshape(self.weights.parts.shape[1], -1), np.float64)

    @property
    def matrix(self) -> Array:
        """The mean of products of inputs, [inputs, inputs], float64."""
        return np.asarray(self.gram.matrix[0] / self.gram.rows)


def seen_importance(
    groups: Groups, considered: Sequence[Group], criterion: Seeing, samples: Samples, ctx: Context
) -> list[Array]:
    """Return which part of what its readers make is lost with each channel, [channels] for each group, float64.

    Several readers add up. The numbers are zero for a group that no layer reads by its weights, and with
    ``reconstruction`` for one that only layers with very many inputs read.

    Args:
        groups: All groups of the graph.
        considered: Those asked for.
        criterion: ``activation``: the mean magnitude of the channel over that of all that the layer reads (Molchanov et
            al., arXiv:1611.06440, section 2.2); ``hessian``: its energy times that of its weights, which is the
            diagonal of the Hessian of the layer's error (optimal brain damage);
            ``reconstruction``: what is lost more when the channels go one after the other, each time the one the
            others can make up for best, and do (optimal brain surgeon, with whole channels).
        samples: Read one at a time.
        ctx: Gives ``scratch``; told of progress.
    """
    most = _MOST_INPUTS if criterion == "reconstruction" else None
    readers = [list(_readers(groups, group, most)) for group in considered]
    found = [np.zeros(group.width) for group in considered]
    for some in fitting(
        range(len(readers)), lambda place: sum(8 * one.inputs**2 for one in readers[place]), _MOST_BYTES
    ):
        _look(groups, [reader for place in some for reader in readers[place]], samples, ctx)
        for place in some:
            seen = [reader for reader in readers[place] if reader.gram.rows]
            found[place] = _CRITERIA[criterion](seen) if seen else found[place]
            readers[place] = []
    return found


def _activation(readers: Sequence[_Reader]) -> Array:
    sizes = [reader.gram.sizes[0] for reader in readers]
    return _summed(readers, [size / max(float(size.sum()), 1e-30) for size in sizes])


def _hessian(readers: Sequence[_Reader]) -> Array:
    return _summed(readers, [_noise(reader.rows, reader.matrix) for reader in readers])


def _noise(rows: Array, matrix: Array) -> Array:
    """Return which part of what a layer makes is lost without each number alone, [inputs]."""
    return np.asarray(np.square(rows).sum(0) * np.diagonal(matrix) / _energy(rows, matrix))


def _reconstruction(readers: Sequence[_Reader]) -> Array:
    """Remove the channels one after the other; return what is lost more with each."""
    layers = [_Surgeon(reader) for reader in readers]
    lost = np.zeros(len(readers[0].places))
    left = list(range(len(lost)))
    before = 0.0
    while left:
        costs = sum(layer.costs(left) for layer in layers)
        place = int(np.argmin(costs))
        before = max(before, float(np.asarray(costs)[place]))
        lost[left[place]] = before
        for layer in layers:
            layer.remove(left[place])
        del left[place]
    return lost


class _Surgeon:
    """The weights of a layer while channels are removed from it and the others make up for them."""

    def __init__(self, reader: _Reader) -> None:
        matrix = reader.matrix
        self._energy = _energy(reader.rows, matrix)
        squares = np.diagonal(matrix)
        damping = _DAMPING * squares + max(_DEAD * float(squares.mean()), 1e-30)
        self._inverse = np.linalg.inv(matrix + np.diag(damping))
        self._rows = reader.rows
        self._places = reader.places

    def costs(self, channels: Sequence[int]) -> Array:
        """Return what is lost more without each of these channels, as a part of what the layer makes."""
        places = self._places[channels]
        blocks = self._inverse[places[:, :, None], places[:, None, :]]
        weights = self._rows[:, places].transpose(1, 2, 0)
        return np.asarray((weights * np.linalg.solve(blocks, weights)).sum((1, 2)) / self._energy)

    def remove(self, channel: int) -> None:
        """Let the channels that are left make up for one."""
        places = self._places[channel]
        across = self._inverse[places]
        solved = np.linalg.solve(self._inverse[np.ix_(places, places)], across)
        self._rows = self._rows - self._rows[:, places] @ solved
        self._inverse = self._inverse - across.T @ solved
        self._inverse[places, places] = 1.0  # whatever: nobody asks for it again


_CRITERIA = {"activation": _activation, "hessian": _hessian, "reconstruction": _reconstruction}


def _energy(rows: Array, matrix: Array) -> float:
    """Return the mean square of what a layer makes, over all its outputs."""
    return max(float(((rows @ matrix) * rows).sum()), 1e-30)


def _summed(readers: Sequence[_Reader], shares: Sequence[Array]) -> Array:
    """Return what channels come to, from what each number a reader's outputs are products with comes to."""
    return np.asarray(sum(share[reader.places].sum(1) for reader, share in zip(readers, shares, strict=True)))


def _readers(groups: Groups, group: Group, most: int | None) -> Iterator[_Reader]:
    """Yield the layers that read the channels of a group by their weights, with at most so many inputs."""
    for slot in group.slots:
        classes = groups.solved.classes[groups.stored[slot.value, slot.axis]]
        for node, index in slot.value.uses():
            weights = weights_of(node) if index == 1 else None
            if weights is None or weights.parts.shape[0] > 1 or slot.axis != axis_read(node):
                continue
            places = _places(classes, group.classes, weights.parts.shape[3])
            if places is None or (most is not None and weights.parts.shape[2] * weights.parts.shape[3] > most):
                continue
            window = (
                Window.of(node, slot.value.shape.numpy()[2:]) if node.op_type == "Conv" and slot.value.shape else None
            )
            yield _Reader(weights, window, places, Gram(window))


def _places(classes: Labels, channels: Labels, kernel: int) -> Array | None:
    """Return where channels are, [channels, places]; None where some are in more places than others."""
    found = [np.flatnonzero(classes == one) for one in channels]
    if len({len(one) for one in found}) > 1:
        return None
    spread = np.asarray(found)[:, :, None] * kernel + np.arange(kernel)
    return np.asarray(spread.reshape(len(channels), -1))


def axis_read(node: onnx_ir.Node) -> int:
    """Return the axis of a layer's weight that goes with the channels it reads."""
    return 1 if node.op_type == "Conv" or node.attributes.get_int("transB", 0) == 1 else 0


def _look(groups: Groups, readers: Sequence[_Reader], samples: Samples, ctx: Context) -> None:
    """Give layers their Gram matrices; a tensor that is read in several ways is looked at once for each."""
    reads = {reader: Read(reader.input, reader.window, reader.inputs) for reader in readers}
    seen: dict[Read, Gram] = {}
    for some in find_inputs(groups.graph, list(dict.fromkeys(reads.values())), samples, ctx):
        seen.update(some)
    for reader, read in reads.items():
        reader.gram = seen.get(read, reader.gram)
