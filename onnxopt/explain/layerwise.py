"""Two models layer by layer: ``compare --layers`` tells where a changed model leaves the one it was made from."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir

from onnxopt.compile.isolation import Child, Limits
from onnxopt.context import Progress
from onnxopt.data.sample import Samples
from onnxopt.errors import ModelError
from onnxopt.evaluate.collect import read_ahead, write_watched
from onnxopt.evaluate.drift import OutputDrift
from onnxopt.evaluate.layer_drift import Paired
from onnxopt.ir.layer_weights import weights_of
from onnxopt.ir.model import Model
from onnxopt.prune.groups import prepared
from onnxopt.prune.lineage import channels_kept, kept_positions, made_by

_LIMITS = Limits(seconds=1800)


@dataclass(frozen=True)
class LayerDrift:
    """What a layer makes in the second model, held against the first's.

    Attributes:
        node: Name of the layer in the second model.
        operator: Its type.
        tensor: What it makes, with its bias, under the same name in both models.
        channels: That it makes in the second model.
        of: That it makes in the first; those a pruned model tells that it keeps are compared.
        sqnr_db: Of it; None where it is not compared, or never varies.
        reason: Why it is not compared, empty if it is.
    """

    node: str
    operator: str
    tensor: str
    channels: int
    of: int
    sqnr_db: float | None
    reason: str = ""


def compare_layers(
    first: Model, second: Model, samples: Samples, tell: Callable[[Progress], None]
) -> tuple[LayerDrift, ...]:
    """Return the layers of the second model that the first has too, in the order of the graph.

    Layers are Conv, Gemm and MatMul with float weights; what they make goes by its name, and its channels by what a
    pruned model tells that it keeps of the original (``prune.lineage``).

    Args:
        first: The reference, such as the original.
        second: The model in question.
        samples: To run.
        tell: Told of progress.

    Raises:
        ModelError: The models have no layer in common.
    """
    before, after = prepared(first.graph), prepared(second.graph)
    layers = dict(_layers(before, after))
    if not layers:
        hint = "compare a model with the one it was made from, before tensors got other names"
        raise ModelError("the two models have no layer that makes a tensor of the same name", hint=hint)
    with tempfile.TemporaryDirectory(prefix="onnxopt-") as folder, Child(_LIMITS) as child:
        files = [_write(graph, layers, Path(folder) / word) for graph, word in ((before, "first"), (after, "second"))]
        paired = {name: layer.paired for name, layer in layers.items()}
        child.make("onnxopt.evaluate.layer_drift:SideBySide", *files, paired)
        for done, batch in enumerate(read_ahead(samples)):
            tell(Progress("comparing layers", done, len(samples)))
            child.call("add", batch)
        drift, odd = child.call("found")
    outputs: Mapping[str, OutputDrift] = {one.name: one for one in drift.outputs}
    return tuple(_told(layer, name, outputs.get(name), odd.get(name, "")) for name, layer in layers.items())


@dataclass(frozen=True)
class _Layer:
    """A layer that both models have, and how many channels it makes in each."""

    node: onnx_ir.Node
    channels: int
    of: int
    paired: Paired


def _layers(before: onnx_ir.Model, after: onnx_ir.Model) -> Iterator[tuple[str, _Layer]]:
    """Yield the layers of a model that another has too, by the name of what they make."""
    known = {made_by(found).name: found for node in before.graph if (found := weights_of(node)) is not None}
    kept = kept_positions(after)
    for node in after.graph:
        weights = weights_of(node)
        if weights is not None and (name := made_by(weights).name) in known:
            paired = Paired(weights.axis, channels_kept(weights, kept))
            yield name or "", _Layer(node, weights.outputs, known[name].outputs, paired)


def _write(graph: onnx_ir.Model, names: Mapping[str, object], folder: Path) -> str:
    folder.mkdir()
    made = [value for node in graph.graph for value in node.outputs if value.name in names]
    return str(write_watched(graph, made, folder))


def _told(layer: _Layer, name: str, drift: OutputDrift | None, reason: str) -> LayerDrift:
    sqnr = None if drift is None or drift.constant or reason else drift.sqnr_db
    return LayerDrift(layer.node.name or "", layer.node.op_type, name, layer.channels, layer.of, sqnr, reason)
