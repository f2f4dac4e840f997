"""The pass ``round-weights``: float weights that lie on the grid of 8 bits already, rounded with the data in view."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir

from onnxopt.context import Context, Missed, Use
from onnxopt.evaluate.collect import collect
from onnxopt.evaluate.gram import Gram
from onnxopt.ir.cleanup import remove_unused
from onnxopt.ir.layer_weights import Weights, replace_constant, weights_of
from onnxopt.ir.model import private_copy
from onnxopt.ir.quant import Array, Quantization
from onnxopt.ir.windows import Window
from onnxopt.passes import options
from onnxopt.quantize.calibrated import Calibrated, Ready
from onnxopt.quantize.rounding import round_jointly

_MOST_BYTES = 1 << 29
"""Of Gram matrices held at a time; layers beyond that wait for another run over the samples."""

_MOST_INPUTS = 4608
"""Of an output; work grows with the cube."""


@dataclass(frozen=True, eq=False, slots=True)
class _Task:
    """A layer to round.

    Attributes:
        weights: Of it.
        window: Of a convolution.
        grid: Its weights will be stored on.
    """

    weights: Weights
    window: Window | None
    grid: Quantization

    @property
    def input(self) -> onnx_ir.Value:
        value = self.weights.node.inputs[0]
        assert value is not None
        return value

    @property
    def size(self) -> int:
        """Bytes of the Gram matrix."""
        groups, _, inputs, places = self.weights.parts.shape
        return int(groups * (inputs * places) ** 2 * 8)


@options
class RoundWeights(Calibrated):
    """Round each weight up or down so that what its layer makes changes least (arXiv:2004.10568, arXiv:2210.17323).

    The error of a layer's outputs on samples is quadratic in its weights, as in AdaRound; it is made small as in GPTQ,
    column by column. The weights stay float32, on the grid ``quantize-static`` will find with these options.
    """

    name: ClassVar[str] = "round-weights"
    uses: ClassVar[frozenset[Use]] = frozenset({"data", "scratch"})

    def edit(self, graph: onnx_ir.Model, ctx: Context) -> onnx_ir.Model:
        """Return the float model with rounded weights; tell which stay as they are."""
        ready = self.ready(graph, ctx.data, ctx)
        before = private_copy(ready.graph)
        for some in _batches(list(self._tasks(ready, ctx))):
            self._round(before, some, ctx)
        remove_unused(ready.graph)
        return ready.graph

    def _tasks(self, ready: Ready, ctx: Context) -> Iterator[_Task]:
        grids = ready.grids()
        for layer in ready.layers:
            found = _task(layer.node, grids)
            if isinstance(found, str):
                ctx.emit(Missed(self.name, layer.name, found, layer.name))
            else:
                yield found

    def _round(self, before: onnx_ir.Model, tasks: Sequence[_Task], ctx: Context) -> None:
        """Round some layers in place, by one run of the model as it was over the samples."""
        wanted = {(task.input, task.window): task for task in tasks}
        for some in _apart(list(wanted)):
            statistics = {value: Gram(window) for value, window in some}
            seen = collect(before, statistics, ctx.data[: self.samples], ctx, what="looking at inputs")
            for task in tasks:
                if (task.input, task.window) in some:
                    self._replace(task, seen[task.input.name or ""], ctx)

    def _replace(self, task: _Task, gram: Gram, ctx: Context) -> None:
        node = task.weights.node
        if gram.rows:
            replace_constant(node, 1, task.weights.layout(_rounded(task, gram.matrix)))
        else:
            name, reason = node.name or "", "what it reads took no finite value in any sample"
            ctx.emit(Missed(self.name, name, reason, name))


def _task(node: onnx_ir.Node, grids: Mapping[str, Quantization]) -> _Task | str:
    """Return what is needed to round a layer, or why it is left to ``quantize-static``."""
    weights, grid = weights_of(node), grids.get(node.name or "")
    if weights is None or grid is None:
        return f"{node.op_type} with such weights is rounded to nearest"
    if node.inputs[1] is not None and len(node.inputs[1].uses()) > 1:
        return "its weight is read by other layers too, and stays one"
    if weights.parts.shape[2] * weights.parts.shape[3] > _MOST_INPUTS:
        return f"an output is a product with more than {_MOST_INPUTS} numbers: it would take too long"
    if node.op_type != "Conv":
        return _Task(weights, None, grid)
    assert node.inputs[1] is not None
    assert node.inputs[1].shape is not None
    return _Task(weights, Window.of(node, node.inputs[1].shape.numpy()[2:]), grid)


def _batches(tasks: Sequence[_Task]) -> Iterator[list[_Task]]:
    """Yield layers whose Gram matrices fit into memory together."""
    batch: list[_Task] = []
    for task in tasks:
        if batch and sum(one.size for one in (*batch, task)) > _MOST_BYTES:
            yield batch
            batch = []
        batch.append(task)
    if batch:
        yield batch


def _apart(keys: list[tuple[onnx_ir.Value, Window | None]]) -> Iterator[set[tuple[onnx_ir.Value, Window | None]]]:
    """Yield keys in sets in which no tensor is looked at in two ways."""
    while keys:
        some = dict(reversed(keys))
        yield set(some.items())
        keys = [key for key in keys if some[key[0]] != key[1]]


def _rounded(task: _Task, gram: Array) -> Array:
    """Return the weights of a layer on its grid, in the form of its parts."""
    groups, outputs, inputs, places = task.weights.parts.shape
    scale = task.grid.scale if task.grid.axis is None else task.grid.scale.reshape(groups, outputs, 1)
    rows = task.weights.parts.reshape(groups, outputs, inputs * places)
    if task.grid.axis is None:
        return round_jointly(rows, gram, scale.reshape(1, 1, 1)).reshape(task.weights.parts.shape)
    return round_jointly(rows, gram, scale).reshape(task.weights.parts.shape)
