"""Passes that win accuracy back without training: layers are made to make what the original's made.

They go through the model in the order of its layers, so that each sees what the ones before it really make by then.
"""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx_ir

from onnxopt.compile.isolation import Limits, PersistentChild
from onnxopt.context import Context, Missed, Progress, Use
from onnxopt.data.files import write_samples
from onnxopt.data.sample import Array
from onnxopt.errors import DataError, PassError
from onnxopt.evaluate.batches import fitting
from onnxopt.evaluate.collect import write_watched
from onnxopt.ir.layer_weights import Weights, add_to_bias, bias_place, replace_constant, weights_of
from onnxopt.ir.quantized import refuse_quantized
from onnxopt.ir.weights import constant_tensor
from onnxopt.ir.windows import Window
from onnxopt.passes import Pass, option, options
from onnxopt.prune import fits
from onnxopt.prune.groups import prepared
from onnxopt.prune.lineage import channels_kept, kept_since, made_by
from onnxopt.prune.moments import Folds, Watched

_LIMITS = Limits(seconds=1800)

_MOST_INPUTS = 4608
"""Of an output; memory grows with the square and work with the cube."""

_MOST_BYTES = 1 << 30
"""Of sums gathered together."""


@dataclass(frozen=True, eq=False)
class _Layer:
    """A layer to change: its weights, the name of what it makes with its bias, and what to look at."""

    weights: Weights
    watched: Watched

    @property
    def name(self) -> str:
        return self.weights.node.name or ""

    @property
    def size(self) -> int:
        """Bytes of its sums, of both folds."""
        groups, outputs, inputs, places = self.weights.parts.shape
        return int(16 * groups * (inputs * places + 1) * (inputs * places + outputs + 1))


@options
class Recover(Pass):
    """A pass that holds each layer to what the original's made, on samples."""

    exact: ClassVar[bool] = False
    uses: ClassVar[frozenset[Use]] = frozenset({"data", "original", "scratch"})
    libraries: ClassVar[tuple[str, ...]] = ("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript")

    samples: int = option("samples to look at; every other one judges what the ones between suggest", default=256, ge=2)

    @abstractmethod
    def fit(self, weights: Array, biases: Array, folds: Folds) -> Array:
        """Return what to add to weights [groups, outputs, inputs] and biases [groups, outputs]; see ``fits``."""

    def requires(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Refuse models that are quantized, and too few samples."""
        refuse_quantized(graph)
        if len(ctx.data) < 2:
            hint = "give a hundred; or leave this pass out, as prune --no-recover does"
            raise DataError("there is one sample only: half of them judge the others", hint=hint)

    def edit(self, graph: onnx_ir.Model, ctx: Context) -> onnx_ir.Model:
        """Return the model with other weights; tell which layers stay as they are, and why."""
        _refuse_other_inputs(graph, ctx.original.graph)
        graph, original = prepared(graph), prepared(ctx.original.graph)
        weighted = [weights for node in graph.graph if (weights := weights_of(node)) is not None]
        layers = list(self._layers(weighted, kept_since(original, graph), original, ctx))
        if weighted and not layers:
            raise PassError("no layer of the model is one of the original's", hint="recover right behind pruning")
        folder = Path(tempfile.mkdtemp(dir=ctx.scratch))
        write_samples(ctx.data[: self.samples], folder / "samples")
        with closing(PersistentChild(_LIMITS)) as child:
            stages = list(_stages(graph, layers))
            for done, stage in enumerate(stages):
                ctx.emit(Progress("fitting layers to the original's", done, len(stages)))
                self._fit(_moments(child, graph, original, stage, folder), stage, ctx)
        return graph

    def _fit(self, found: Mapping[str, Folds], stage: Sequence[_Layer], ctx: Context) -> None:
        for layer in stage:
            if layer.name in found:
                self._change(layer, found[layer.name], ctx)
            else:
                reason = "what it makes has another shape than in the original"
                ctx.emit(Missed(self.name, layer.name, reason, layer.name))

    def _change(self, layer: _Layer, folds: Folds, ctx: Context) -> None:
        """Change a layer that is not yet what it was, unless that leaves more error."""
        if fits.is_exact(folds):
            return
        node, parts = layer.weights.node, layer.weights.parts
        weights = parts.reshape(*parts.shape[:2], -1).astype(np.float64)
        place = bias_place(node)
        seen = folds if place else fits.without_bias(folds)
        change = self.fit(weights, _biases(node, weights), seen)
        if place is None:
            change[:, :, -1] = 0
        left = fits.error_left(change, folds)
        if not left < 1:
            ctx.emit(Missed(self.name, layer.name, "no change of it brings it nearer to the original", layer.name))
            return
        replace_constant(node, 1, layer.weights.layout((weights + change[:, :, :-1]).reshape(parts.shape)))
        if place is not None:
            add_to_bias(node, change[:, :, -1].reshape(-1))

    def _layers(
        self,
        weighted: Sequence[Weights],
        kept: Mapping[str, Mapping[int, Array]],
        original: onnx_ir.Model,
        ctx: Context,
    ) -> Iterator[_Layer]:
        known = {value.name for node in original.graph for value in node.outputs}
        for weights in weighted:
            watched = _watched(weights, kept)
            reason = _obstacle(weights, watched, known)
            if reason:
                name = weights.node.name or ""
                ctx.emit(Missed(self.name, name, reason, name))
            else:
                yield _Layer(weights, watched)


@options
class ReconstructWeights(Recover):
    """Refit each layer's weights and bias to what the original's made, by least squares (arXiv:1707.06168)."""

    name: ClassVar[str] = "reconstruct-weights"

    def fit(self, weights: Array, biases: Array, folds: Folds) -> Array:
        """Return the change that leaves the least squared error."""
        return fits.least_squares(folds)


@options
class MatchStatistics(Recover):
    """Give each channel the mean and variance it had in the original, as estimating batch norms anew would."""

    name: ClassVar[str] = "match-statistics"

    def fit(self, weights: Array, biases: Array, folds: Folds) -> Array:
        """Return the change of scale and bias."""
        return fits.statistics(folds, weights, biases)


@options
class CorrectMeans(Recover):
    """Give each channel the mean it had in the original, by its bias alone (arXiv:1906.04721, section 4.2)."""

    name: ClassVar[str] = "correct-means"

    def fit(self, weights: Array, biases: Array, folds: Folds) -> Array:
        """Return the change of bias."""
        return fits.means(folds)


def _refuse_other_inputs(graph: onnx_ir.Model, original: onnx_ir.Model) -> None:
    mine, theirs = ({value.name or "" for value in one.graph.inputs} for one in (graph, original))
    if not mine <= theirs:
        raise PassError(
            f"the original has no input {', '.join(sorted(mine - theirs))}",
            hint="give the model that this one was made from",
        )


def _watched(weights: Weights, kept: Mapping[str, Mapping[int, Array]]) -> Watched:
    node = weights.node
    source, value = node.inputs[0], node.inputs[1]
    assert source is not None
    assert value is not None
    assert value.shape is not None
    window = Window.of(node, value.shape.numpy()[2:]) if node.op_type == "Conv" else None
    made = made_by(weights).name or ""
    return Watched(source.name or "", made, weights.axis, channels_kept(weights, kept), window)


def _obstacle(weights: Weights, watched: Watched, known: set[str | None]) -> str:
    """Return why a layer is left as it is, nothing if it need not be."""
    value = weights.node.inputs[1]
    if watched.made not in known:
        return "the original has no tensor of the name of what it makes"
    if watched.kept is not None and (watched.kept < 0).any():
        return "it keeps channels that the original does not have"
    if value is not None and len(value.uses()) > 1:
        return "its weight is read by other layers too"
    if weights.parts.shape[2] * weights.parts.shape[3] > _MOST_INPUTS:
        return f"an output is a product with more than {_MOST_INPUTS} numbers: it would take too long"
    return ""


def _stages(graph: onnx_ir.Model, layers: Sequence[_Layer]) -> Iterator[list[_Layer]]:
    """Yield layers in order, those together of which none depends on another and whose sums fit in memory."""
    nodes = {layer.weights.node for layer in layers}
    depths: dict[onnx_ir.Value | None, int] = {}
    by_depth: dict[int, list[_Layer]] = {}
    reached: dict[onnx_ir.Node, int] = {}
    for node in graph.graph:
        reached[node] = max((depths.get(value, 0) for value in node.inputs), default=0)
        depths.update(dict.fromkeys(node.outputs, reached[node] + (node in nodes)))
    for layer in layers:
        by_depth.setdefault(reached[layer.weights.node], []).append(layer)
    for depth in sorted(by_depth):
        yield from fitting(by_depth[depth], lambda layer: layer.size, _MOST_BYTES)


def _moments(
    child: PersistentChild, graph: onnx_ir.Model, original: onnx_ir.Model, stage: Sequence[_Layer], folder: Path
) -> Mapping[str, Folds]:
    """Return the moments of the layers of a stage, by name, as the model is by now."""
    watched = {layer.name: layer.watched for layer in stage}
    places = {"original": [one.made for one in watched.values()]}
    places["changed"] = [name for one in watched.values() for name in (one.read, one.made)]
    files = [_write(model, places[word], folder / word) for word, model in (("original", original), ("changed", graph))]
    function = "onnxopt.prune.moments:find_moments"
    found: Mapping[str, Folds] = child.function(function, *files, str(folder / "samples"), watched)
    return found


def _write(graph: onnx_ir.Model, names: Sequence[str], folder: Path) -> str:
    """Write a model with tensors of these names as its outputs; return the file."""
    folder.mkdir(exist_ok=True)
    values = {value.name: value for node in graph.graph for value in node.outputs}
    return str(write_watched(graph, [values[name] for name in dict.fromkeys(names) if name in values], folder))


def _biases(node: onnx_ir.Node, weights: Array) -> Array:
    """Return the bias of each output, [groups, outputs], float64."""
    place = bias_place(node)
    tensor = constant_tensor(place[0].inputs[place[1]]) if place and place[1] < len(place[0].inputs) else None
    found = np.zeros(weights.shape[:2]) if tensor is None else tensor.numpy().astype(np.float64)
    return np.broadcast_to(found.reshape(-1), (weights[:, :, 0].size,)).reshape(weights.shape[:2])
