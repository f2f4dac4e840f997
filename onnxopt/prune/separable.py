"""The pass ``separate-convolutions``: a dense convolution as a depthwise one and a pointwise one behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import onnx_ir

from onnxopt.context import Context, Missed, Use, Warned
from onnxopt.data.sample import Array
from onnxopt.errors import PassError
from onnxopt.ir.cleanup import remove_unused
from onnxopt.ir.quantized import refuse_quantized
from onnxopt.ir.traverse import refuse_unknown
from onnxopt.ir.weights import add_weight, constant_tensor, weight_value
from onnxopt.passes import Pass, option, options
from onnxopt.prune.groups import find_groups, prepared
from onnxopt.prune.sizes import find_sizes

_TOLERANCE = 0.03


@dataclass(frozen=True, eq=False)
class Separable:
    """A convolution that can be written as a depthwise and a pointwise one.

    Attributes:
        node: Conv of one group.
        macs: Multiply-accumulates of one inference.
        slices: Its weight, [inputs, outputs, places of the kernel], float64.
        multiplier: Depthwise channels for each input.
    """

    node: onnx_ir.Node
    macs: float
    slices: Array
    multiplier: int

    @cached_property
    def parts(self) -> tuple[Array, Array, Array]:
        """Singular value decompositions of the slices."""
        left, values, right = np.linalg.svd(self.slices, full_matrices=False)
        return left, values, right

    @property
    def saved(self) -> float:
        """Multiply-accumulates that are saved; not above 0 where it does not pay."""
        outputs, places = self.slices.shape[1:]
        return float(self.macs * (1 - self.multiplier * (outputs + places) / (outputs * places)))

    @property
    def loss(self) -> float:
        """Share of the weight's energy that is lost."""
        energies = np.square(self.parts[1])
        return float(energies[:, self.multiplier :].sum() / max(energies.sum(), 1e-30))

    def weights(self) -> tuple[Array, Array]:
        """Return the depthwise weight, [inputs x multiplier, places], and the pointwise, [outputs, its channels]."""
        left, values, right = self.parts
        root = np.sqrt(values[:, : self.multiplier])
        depthwise = root[:, :, None] * right[:, : self.multiplier]
        pointwise = left[:, :, : self.multiplier] * root[:, None]
        count = root.size
        return depthwise.reshape(count, -1), pointwise.transpose(1, 0, 2).reshape(-1, count)


@options
class SeparateConvolutions(Pass):
    """Write dense convolutions as depthwise and pointwise ones where that loses least, until a budget is kept.

    Each input channel's slice of the weight, outputs by places, becomes a product of as few kernels as the
    multiplier says: Xception's layer (arXiv:1610.02357) nearest to the one that is there (arXiv:1802.09488).
    """

    name: ClassVar[str] = "separate-convolutions"
    exact: ClassVar[bool] = False
    uses: ClassVar[frozenset[Use]] = frozenset({"data"})
    libraries: ClassVar[tuple[str, ...]] = ("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript")

    keep: float = option(
        "share of the multiply-accumulates that is left, above 0 and below 1", default=0.75, gt=0, lt=1
    )
    multiplier: int = option("depthwise channels for each input channel", default=1, ge=1)
    skip: tuple[str, ...] = option("names of nodes to leave as they are", default=())

    def requires(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Refuse models that are quantized."""
        refuse_quantized(graph)

    def edit(self, graph: onnx_ir.Model, ctx: Context) -> onnx_ir.Model:
        """Return the model with separated convolutions; tell which stay as they are."""
        ready = prepared(graph)
        refuse_unknown(self.skip, ready, "to leave as it is")
        groups = find_groups(ready, find_sizes(ready, ctx.data if ctx.has_data else None))
        nodes = [cost for cost in groups.costs if cost.node.name not in self.skip]
        layers = [layer for cost in nodes for layer in _separable(cost.node, cost.macs, self.multiplier)]
        if not any(layer.saved > 0 for layer in layers):
            hint = f"multiplier {self.multiplier} may be too large; factorise-weights writes other layers as two"
            raise PassError(
                "there is no Conv of one group that is cheaper as a depthwise and a pointwise one", hint=hint
            )
        chosen = choose_layers(layers, (1 - self.keep) * groups.macs)
        for layer in layers:
            if layer in chosen:
                _separate(layer)
            else:
                reason = "separated it saves too little for what it loses"
                ctx.emit(Missed(self.name, layer.node.name or "", reason, layer.node.name or ""))
        remove_unused(ready)
        left = 1 - sum(layer.saved for layer in chosen) / groups.macs
        if abs(left - self.keep) > _TOLERANCE:
            why = "convolutions change as a whole" if left < self.keep else "the others cannot be separated"
            ctx.emit(Warned(f"{left:.0%} of the multiply-accumulates are left, not {self.keep:.0%}: {why}"))
        return ready


def choose_layers(layers: Sequence[Separable], macs: float) -> list[Separable]:
    """Return layers that together save at least ``macs``, all that save anything if they do not, for little loss.

    They are taken by loss for what they save; what the last one makes needless is left out again.
    """
    chosen: list[Separable] = []
    missing = macs
    for layer in sorted((one for one in layers if one.saved > 0), key=lambda one: one.loss / one.saved):
        if missing <= 0:
            break
        chosen.append(layer)
        missing -= layer.saved
    for layer in sorted(chosen, key=lambda one: -one.loss):
        if missing + layer.saved <= 0:
            chosen.remove(layer)
            missing += layer.saved
    return chosen


def _separable(node: onnx_ir.Node, macs: float, multiplier: int) -> Iterator[Separable]:
    """Yield a dense convolution with a stored kernel of several places."""
    kernel = node.inputs[1] if len(node.inputs) > 1 else None
    tensor = constant_tensor(kernel)
    if node.op_type != "Conv" or tensor is None or not tensor.dtype.is_floating_point():
        return
    array = tensor.numpy()
    places = int(np.prod(array.shape[2:]))
    if node.attributes.get_int("group", 1) == 1 and array.shape[1] > 1 and places > 1:
        slices = array.reshape(*array.shape[:2], places).transpose(1, 0, 2).astype(np.float64)
        yield Separable(node, macs, slices, min(multiplier, *slices.shape[1:]))


def _separate(layer: Separable) -> None:
    """Put a depthwise convolution before a node, which becomes pointwise and keeps bias, name and output."""
    node, kernel = layer.node, layer.node.inputs[1]
    assert kernel is not None
    assert kernel.const_value is not None
    assert node.graph is not None
    old = kernel.const_value.numpy()
    depthwise, pointwise = layer.weights()
    shapes = (len(depthwise), 1, *old.shape[2:]), (*pointwise.shape, *(1 for _ in old.shape[2:]))
    first, second = (
        add_weight(node.graph, weight_value(f"{kernel.name}_{word}", part.reshape(shape).astype(old.dtype)))
        for word, part, shape in zip(("depthwise", "pointwise"), (depthwise, pointwise), shapes, strict=True)
    )
    own = [attribute for name, attribute in node.attributes.items() if name != "group"]
    own.append(onnx_ir.AttrInt64("group", old.shape[1]))
    before = onnx_ir.Node("", "Conv", [node.inputs[0], first], own, name=f"{node.name}_depthwise")
    before.outputs[0].name = f"{node.outputs[0].name}_depthwise"
    before.outputs[0].type = node.outputs[0].type
    node.graph.insert_before(node, before)
    node.replace_input_with(0, before.outputs[0])
    node.replace_input_with(1, second)
    for name in WINDOW:
        node.attributes.pop(name, None)


WINDOW = ("kernel_shape", "strides", "pads", "dilations", "auto_pad")
"""What a pointwise convolution behind another has the defaults of."""
