"""The pass ``equalize-layers``: channels of one range between layers that follow each other. Needs no data."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import onnx_ir

from onnxopt.context import Context, Missed
from onnxopt.ir.cleanup import remove_unused
from onnxopt.ir.layer_weights import Weights, replace_constant, weights_of
from onnxopt.ir.quant import Array
from onnxopt.ir.quantized import refuse_quantized
from onnxopt.passes import Pass, option, options
from onnxopt.quantize.prepare import prepare, refuse_without
from onnxopt.quantize.scaling import Channels, Obstacle, Place, find_places

_SMALLEST, _LARGEST = 2.0**-16, 2.0**16
"""Of a factor: a channel that is all but unused must not become infinite."""


@options
class EqualizeLayers(Pass):
    """Give every channel between two layers the same range (cross-layer equalisation, arXiv:1906.04721, section 4.1).

    Channels are multiplied by powers of two in the layer before and divided in the one behind, so that no result
    changes, not even in its last bit. In between may stand what gives a multiple for a multiple: Relu, but no Clip,
    whose bounds would have to be multiplied channel by channel.
    """

    name: ClassVar[str] = "equalize-layers"
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "onnx-ir", "onnxscript")

    rounds: int = option("go over all pairs at most so often; it ends when nothing moves", default=20, ge=1)

    @classmethod
    def rules(cls) -> Mapping[str, str]:
        """Return the pass itself: it tells of each layer it leaves as it is, and why."""
        return {cls.name: inspect.getdoc(cls) or ""}

    def requires(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Refuse models that are quantized already, or have no layers."""
        refuse_quantized(graph)
        refuse_without(graph, frozenset({"Conv", "Gemm", "MatMul"}))

    def edit(self, graph: onnx_ir.Model, ctx: Context) -> onnx_ir.Model:
        """Return the model with equal ranges of channels; tell where that cannot be."""
        graph = prepare(graph)
        layers = [node for node in graph.graph if weights_of(node) is not None]
        for _ in range(self.rounds):
            if not sum(_equalized(node) for node in layers):
                break
        for node in layers:
            found = _places(node)
            if isinstance(found, Obstacle):
                ctx.emit(Missed(self.name, node.name or "", found.reason, found.blamed))
        remove_unused(graph)
        return graph


def _equalized(node: onnx_ir.Node) -> bool:
    """Equalise what a layer reads, in place; return whether anything changed."""
    places = _places(node)
    behind = weights_of(node)
    before = None if isinstance(places, Obstacle) else _maker(places)
    if isinstance(places, Obstacle) or behind is None or before is None:
        return False
    factor = _factor(before.output_peaks, behind.input_peaks)
    if (factor == 1).all():
        return False
    replace_constant(node, 1, behind.with_inputs_times(1 / factor))
    for place in places:
        place.multiply(factor)
    return True


def _places(node: onnx_ir.Node) -> list[Place] | Obstacle:
    weights, value = weights_of(node), node.inputs[0]
    assert weights is not None
    assert value is not None
    found = find_places(value, Channels(weights.inputs, weights.axis), {node})
    if not isinstance(found, Obstacle) and _maker(found) is None:
        return Obstacle("what it reads is made by no layer", found[0].node.name or "")
    return found


def _maker(places: Sequence[Place]) -> Weights | None:
    """Return the weights of the layer among what takes factors; the others are its bias."""
    return next((one for place in places if (one := weights_of(place.node))), None)


def _factor(made: Array, read: Array) -> Array:
    """Return powers of two that bring the ranges of the weights that make and that read a channel together."""
    used = (made > 0) & (read > 0)
    wanted = np.sqrt(np.divide(read, made, out=np.ones_like(made), where=used))
    return np.asarray(np.exp2(np.rint(np.log2(np.clip(wanted, _SMALLEST, _LARGEST)))), np.float32)
