"""The pass ``smooth-activations``: what is hard to round in activations moves into weights, which are easier."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir

from onnxopt.context import Context, Missed, Use
from onnxopt.evaluate.collect import collect
from onnxopt.evaluate.kept import Kept
from onnxopt.evaluate.statistic import ChannelMoments
from onnxopt.ir.cleanup import remove_unused
from onnxopt.ir.layer_weights import Weights, replace_constant, weights_of
from onnxopt.ir.model import Model
from onnxopt.ir.quant import Array
from onnxopt.ir.quantized import refuse_quantized
from onnxopt.ir.weights import add_weight, weight_value
from onnxopt.passes import Pass, option, options
from onnxopt.quantize.prepare import prepare, refuse_without
from onnxopt.quantize.scaling import Channels, Obstacle, Place, find_places

_SMALLEST, _LARGEST = 2.0**-16, 2.0**16
"""Of a factor: a channel that is all but unused must not become infinite."""

_ALPHAS = (0.25, 0.5, 0.65, 0.8, 0.9, 1.0)
_STEPS = 255

_WORTH_IT = 0.8
"""Share of the noise: what promises no less is left alone, for the promise is rough."""


@dataclass(frozen=True, eq=False, slots=True)
class _Site:
    """A tensor with the layers that read it."""

    value: onnx_ir.Value
    readers: Sequence[Weights]

    @property
    def channels(self) -> Channels:
        return Channels(self.readers[0].inputs, self.readers[0].axis)

    @property
    def places(self) -> list[Place] | Obstacle:
        return find_places(self.value, self.channels, {reader.node for reader in self.readers})


@options
class SmoothActivations(Pass):
    """Move large channels of activations into the weights that read them (SmoothQuant, arXiv:2211.10438).

    A channel is divided by max|X|^alpha / max|W|^(1 - alpha) in what makes it, and multiplied in the weights. Factors
    are powers of two, so that no result changes, not even in its last bit.
    """

    name: ClassVar[str] = "smooth-activations"
    uses: ClassVar[frozenset[Use]] = frozenset({"data", "scratch"})
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "onnx-ir", "onnxscript", "onnxruntime")

    alpha: float | None = option(
        "how much moves: 0 nothing of the activations, 1 all; not given: for each tensor what promises least noise",
        default=None,
        ge=0,
        le=1,
    )
    samples: int = option("measure activations on at most so many samples", default=64, ge=1)
    insert: bool = option("where nothing before can take the factors, insert a Mul", default=False)

    @classmethod
    def rules(cls) -> Mapping[str, str]:
        """Return the pass itself: it tells of each tensor it leaves as it is, and why."""
        return {cls.name: inspect.getdoc(cls) or ""}

    def requires(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Refuse models that are quantized already, have no layers, or come without samples."""
        refuse_quantized(graph)
        refuse_without(graph, frozenset({"Conv", "Gemm", "MatMul"}))
        assert ctx.data

    def edit(self, graph: onnx_ir.Model, ctx: Context) -> onnx_ir.Model:
        """Return the smoothed model; tell which tensors could not be, and why."""
        graph = prepare(graph)
        sites = list(self._sites(graph, ctx))
        if not sites:
            return graph
        data = ctx.data[: self.samples]
        names = [site.value.name for site in sites]
        kept = Kept.of(ctx.kept, "moments", Model(graph).digest, data.fingerprint, names)
        wanted = {site.value: ChannelMoments(site.channels.axis) for site in sites}
        seen = collect(graph, wanted, data, ctx, kept, "measuring channels")
        for site in sites:
            self._smooth(site, seen[site.value.name or ""], ctx)
        remove_unused(graph)
        return graph

    def _sites(self, graph: onnx_ir.Model, ctx: Context) -> Iterator[_Site]:
        for site in _found(graph):
            places = site.places
            if isinstance(places, Obstacle) and not self.insert:
                ctx.emit(Missed(self.name, site.readers[0].node.name or "", places.reason, places.blamed))
            else:
                yield site

    def _smooth(self, site: _Site, seen: ChannelMoments, ctx: Context) -> None:
        """Smooth a tensor in place, unless that promises too little."""
        if not seen.count:
            name = site.readers[0].node.name or ""
            ctx.emit(Missed(self.name, name, "what it reads had no elements in any sample", name))
            return
        places = site.places
        readers = [one for reader in site.readers if (one := weights_of(reader.node))]
        if self.alpha is not None:
            _apply(site, places, _factor(readers, seen, self.alpha))
            return
        tried = [_factor(readers, seen, alpha) for alpha in _ALPHAS]
        noises = [_noise(readers, seen, factor) for factor in tried]
        share = min(noises) / (_noise(readers, seen, np.ones_like(tried[0])) or 1.0)
        if share < _WORTH_IT:
            _apply(site, places, tried[int(np.argmin(noises))])
        else:
            name = readers[0].node.name or ""
            ctx.emit(Missed(self.name, name, f"noise would be {share:.0%} of what it is: not worth it", name))


def _found(graph: onnx_ir.Model) -> Iterator[_Site]:
    """Yield the tensors layers read, with the layers."""
    readers: dict[onnx_ir.Value, list[Weights]] = {}
    for node in graph.graph:
        weights = weights_of(node)
        if weights is not None and node.inputs[0] is not None:
            readers.setdefault(node.inputs[0], []).append(weights)
    for value, found in readers.items():
        if len({(one.inputs, one.axis) for one in found}) == 1:
            yield _Site(value, found)


def _factor(readers: Sequence[Weights], seen: ChannelMoments, alpha: float) -> Array:
    """Return powers of two that channels are multiplied by, float32 [channels]; 1 for what is always zero."""
    read = np.max([one.input_peaks for one in readers], 0)
    used = (seen.peaks > 0) & (read > 0)
    peaks, read = np.where(used, seen.peaks, 1.0), np.where(used, read, 1.0)
    wanted = np.clip(read ** (1 - alpha) / peaks**alpha, _SMALLEST, _LARGEST)
    wanted /= np.exp2(np.rint(np.log2(np.median(wanted[used])))) if used.any() else 1.0
    return np.asarray(np.exp2(np.rint(np.log2(np.where(used, wanted, 1.0)))), np.float32)


def _noise(readers: Sequence[Weights], seen: ChannelMoments, factor: Array) -> float:
    """Return the power of the noise that rounding to 8 bits adds to what layers make, by a twelfth of a step squared.

    Activations have one scale for all channels, weights one for each output.
    """
    step = ((seen.highs * factor).max() - (seen.lows * factor).min()) / _STEPS
    power = seen.powers * np.square(factor, dtype=np.float64)
    total = 0.0
    for reader in readers:
        groups, _, inputs, places = reader.parts.shape
        parts = reader.parts / factor.reshape(groups, 1, inputs, 1)
        steps = np.abs(parts).max((2, 3)) / (_STEPS // 2)
        by_group = power.reshape(groups, inputs).sum(1) * places
        total += float(np.square(step) * np.square(parts, dtype=np.float64).sum() + np.square(steps).sum(1) @ by_group)
    return total / 12


def _apply(site: _Site, places: list[Place] | Obstacle, factor: Array) -> None:
    """Multiply a tensor's channels where it is made, and divide them in the weights, in place."""
    if (factor == 1).all():
        return
    if isinstance(places, Obstacle):
        _insert(site, factor)
    else:
        for place in places:
            place.multiply(factor)
    for reader in site.readers:
        now = weights_of(reader.node)
        assert now is not None
        replace_constant(reader.node, 1, now.with_inputs_times(1 / factor))


def _insert(site: _Site, factor: Array) -> None:
    """Insert a Mul between a tensor and the layers that read it."""
    first = site.readers[0].node
    graph, name = first.graph, f"{site.value.name}_smoothed"
    assert isinstance(graph, onnx_ir.Graph)
    weight = first.inputs[1]
    assert weight is not None
    assert weight.shape is not None
    wide = factor if site.channels.axis == -1 else factor.reshape(-1, *[1] * (len(weight.shape) - 2))
    constant = add_weight(graph, weight_value(f"{name}_factor", wide))
    made = onnx_ir.node("Mul", [site.value, constant], name=f"{name}_node")
    made.outputs[0].name, made.outputs[0].type, made.outputs[0].shape = name, site.value.type, site.value.shape
    graph.insert_before(first, made)
    for reader in site.readers:
        reader.node.replace_input_with(0, made.outputs[0])
