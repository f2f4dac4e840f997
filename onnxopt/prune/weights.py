"""The passes ``prune-weights`` and ``prune-n-m``: numbers of weights become zero, shapes stay."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir

from onnxopt.context import Context, Missed, Warned
from onnxopt.data.sample import Array
from onnxopt.errors import PassError, UsageError
from onnxopt.ir.quantized import refuse_quantized
from onnxopt.ir.traverse import all_graphs
from onnxopt.passes import Pass, option, options
from onnxopt.prune.masks import block_sums, largest, n_of_m, spread_blocks

_PATTERN = re.compile(r"(\d+)x(\d+)")

_AXES: Mapping[str, tuple[int, int]] = {"Conv": (1, 0), "ConvTranspose": (0, 1), "Gemm": (0, 1)}
"""Axes of a layer's weight that are summed over and made; of a Gemm with transB the other way round."""

_LAYERS = (*_AXES, "MatMul")

_NO_GAIN = (
    "zeros make neither the file smaller nor ONNX Runtime or OpenVINO faster on a CPU: what gains is the compressed"
    " file, and TensorRT where two of four numbers are zero"
)


@dataclass(frozen=True)
class LayerWeight:
    """A weight of a layer.

    Attributes:
        value: The initializer.
        axis: That is summed over.
        outputs: Axis of what it makes.
    """

    value: onnx_ir.Value
    axis: int
    outputs: int

    @property
    def array(self) -> Array:
        """The numbers."""
        assert self.value.const_value is not None
        return self.value.const_value.numpy()

    @property
    def outputs_first(self) -> Array:
        """The numbers with the axis of outputs first."""
        return np.moveaxis(self.array, self.outputs, 0)


@options
class PruneWeights(Pass):
    """Set the smallest weights of layers to zero, one by one or in blocks (Han et al., arXiv:1506.02626).

    The file compresses better; no runtime on a CPU is faster for it.
    """

    name: ClassVar[str] = "prune-weights"
    exact: ClassVar[bool] = False

    keep: float = option("share of the weights that stays, above 0 and below 1", default=0.5, gt=0, lt=1)
    together: Literal["model", "layer"] = option(
        "model: the smallest of all layers together; layer: the same share of each", default="model"
    )
    block: str = option("height x width of what is zeroed as a whole, outputs x inputs", default="1x1")
    skip: tuple[str, ...] = option("names of weights to leave as they are", default=())

    def requires(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Refuse a block that is none, and models that are quantized."""
        refuse_quantized(graph)
        _block(self.block)

    def edit(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Zero what is smallest."""
        found = {weight.value.name or "": weight for weight in _layer_weights(graph, self.skip, self.name, ctx)}
        rows, columns = _block(self.block)
        scores = {
            name: block_sums(np.square(weight.outputs_first.astype(np.float64)), rows, columns)
            for name, weight in found.items()
        }
        if self.together == "layer":
            stays = {name: one for part in scores for name, one in largest({part: scores[part]}, self.keep).items()}
        else:
            stays = largest(scores, self.keep)
        for name, weight in found.items():
            mask = spread_blocks(stays[name], weight.outputs_first.shape, rows, columns)
            _apply_mask(weight.value, np.moveaxis(mask, 0, weight.outputs))
        ctx.emit(Warned(_NO_GAIN))


@options
class PruneNOfM(Pass):
    """Keep the n largest of every m weights that are summed over, as sparse tensor cores want (arXiv:2104.08378)."""

    name: ClassVar[str] = "prune-n-m"
    exact: ClassVar[bool] = False

    n: int = option("weights that stay of each m", default=2, ge=1)
    m: int = option("neighbours along what is summed over", default=4, ge=2)
    skip: tuple[str, ...] = option("names of weights to leave as they are", default=())

    def requires(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Refuse a pattern that removes nothing, and models that are quantized."""
        refuse_quantized(graph)
        if self.n >= self.m:
            raise UsageError(f"{self.n} of {self.m} removes nothing", hint="n is smaller than m, such as 2 of 4")

    def edit(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Zero the others."""
        for weight in list(_layer_weights(graph, self.skip, self.name, ctx)):
            if weight.array.shape[weight.axis] < self.m:
                reason = f"only {weight.array.shape[weight.axis]} of its weights are summed over"
                ctx.emit(Missed(self.name, weight.value.name or "", reason, weight.value.name or ""))
                continue
            _apply_mask(weight.value, n_of_m(np.abs(weight.array), self.n, self.m, weight.axis))
        ctx.emit(Warned(_NO_GAIN))


def _layer_weights(graph: onnx_ir.Model, skip: tuple[str, ...], name: str, ctx: Context) -> Iterator[LayerWeight]:
    """Yield the float weights of layers, each once; tell of layers whose weights are computed.

    Raises:
        UsageError: There is no weight of a name to skip.
        PassError: There are no weights.
    """
    found: dict[onnx_ir.Value, LayerWeight] = {}
    for node in (node for one in all_graphs(graph) for node in one if node.op_type in _LAYERS):
        value = node.inputs[1] if len(node.inputs) > 1 else None
        if value is None or value.const_value is None or value.is_graph_input():
            ctx.emit(Missed(name, node.name or "", "its weight is computed", node.name or ""))
        elif value.const_value.dtype.is_floating_point() and len(value.const_value.shape) > 1:
            found.setdefault(value, LayerWeight(value, *_axes(node, len(value.const_value.shape))))
    known = {value.name for value in found}
    for one in skip:
        if one not in known:
            raise UsageError(f"there is no weight {one!r} of a layer")
    left = [weight for value, weight in found.items() if value.name not in skip]
    if not left:
        raise PassError("there is nothing to prune: no layer has float weights")
    yield from left


def _axes(node: onnx_ir.Node, rank: int) -> tuple[int, int]:
    """Return the axes of a layer's weight that are summed over and made."""
    if node.op_type == "MatMul":
        return rank - 2, rank - 1
    summed, made = _AXES[node.op_type]
    turned = node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1
    return (made, summed) if turned else (summed, made)


def _apply_mask(value: onnx_ir.Value, mask: Array) -> None:
    assert value.const_value is not None
    array = value.const_value.numpy()
    kept = np.ascontiguousarray(np.where(mask, array, np.zeros((), array.dtype)))
    value.const_value = onnx_ir.tensor(kept, dtype=value.const_value.dtype, name=value.name)


def _block(text: str) -> tuple[int, int]:
    """Return the height and width of a block.

    Raises:
        UsageError: It is none.
    """
    match = _PATTERN.fullmatch(text.strip())
    if match is None or "0" in match.groups():
        raise UsageError(f"{text!r} is no block", hint="write height x width, such as 1x4 or 4x1")
    return int(match.group(1)), int(match.group(2))
