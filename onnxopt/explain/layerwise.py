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
from onnxopt.explain.measured import LayerDrift
from onnxopt.ir.layer_weights import LAYERS, weights_of
from onnxopt.ir.model import Model
from onnxopt.prune.groups import prepared
from onnxopt.prune.lineage import channels_kept, kept_since, made_by

_LIMITS = Limits(seconds=1800)


def compare_layers(
    first: Model, second: Model, samples: Samples, tell: Callable[[Progress], None]
) -> tuple[LayerDrift, ...]:
    """Return the layers of the second model in the order of the graph, compared where the first has them too.

    Layers are Conv, Gemm and MatMul; what they make goes by its name, and its channels by what a pruned model tells
    that it keeps (``prune.lineage``).

    Args:
        first: The reference, such as the original.
        second: The model in question.
        samples: To run.
        tell: Told of progress.

    Raises:
        ModelError: The models have no layer in common.
    """
    before, after = prepared(first.graph), prepared(second.graph)
    layers = list(_layers(before, after))
    paired = {one.tensor: one.paired for one in layers if not one.reason}
    if not paired:
        hint = "compare a model with the one it was made from, before tensors got other names"
        raise ModelError("the two models have no layer that makes a tensor of the same name", hint=hint)
    with tempfile.TemporaryDirectory(prefix="onnxopt-") as folder, Child(_LIMITS) as child:
        files = [_write(graph, paired, Path(folder) / word) for graph, word in ((before, "first"), (after, "second"))]
        child.make("onnxopt.evaluate.layer_drift:SideBySide", *files, paired)
        for done, batch in enumerate(read_ahead(samples)):
            tell(Progress("comparing layers", done, len(samples)))
            child.call("add", batch)
        drift, odd = child.call("found")
    outputs: Mapping[str, OutputDrift] = {one.name: one for one in drift.outputs}
    return tuple(_told(layer, outputs.get(layer.tensor), odd.get(layer.tensor, "")) for layer in layers)


@dataclass(frozen=True)
class _Layer:
    """A layer of the second model: what it makes, how many channels in each model, and why it cannot be compared."""

    node: onnx_ir.Node
    tensor: str
    channels: int | None
    of: int | None
    paired: Paired
    reason: str


def _layers(before: onnx_ir.Model, after: onnx_ir.Model) -> Iterator[_Layer]:
    made = {value.name for node in before.graph for value in node.outputs}
    channels = {_made_by(node): _channels(node) for node in before.graph if node.op_type in LAYERS}
    kept = kept_since(before, after)
    for node in (node for node in after.graph if node.op_type in LAYERS):
        tensor, weights = _made_by(node), weights_of(node)
        places = None if weights is None else channels_kept(weights, kept)
        paired = Paired(1 if node.op_type == "Conv" else -1, places)
        yield _Layer(node, tensor, _channels(node), channels.get(tensor), paired, _obstacle(tensor in made, paired))


def _obstacle(known: bool, paired: Paired) -> str:
    if not known:
        return "the first has no tensor of the name of what it makes"
    if paired.kept is not None and (paired.kept < 0).any():
        return "it keeps channels that the first does not have"
    return ""


def _made_by(node: onnx_ir.Node) -> str:
    weights = weights_of(node)
    return (node.outputs[0] if weights is None else made_by(weights)).name or ""


def _channels(node: onnx_ir.Node) -> int | None:
    weights = weights_of(node)
    return None if weights is None else weights.outputs


def _write(graph: onnx_ir.Model, names: Mapping[str, object], folder: Path) -> str:
    folder.mkdir()
    made = [value for node in graph.graph for value in node.outputs if value.name in names]
    return str(write_watched(graph, made, folder))


def _told(layer: _Layer, drift: OutputDrift | None, odd: str) -> LayerDrift:
    never = "it never varies on the samples" if drift is not None and drift.constant else ""
    reason = layer.reason or odd or never
    sqnr = None if drift is None or reason else drift.sqnr_db
    return LayerDrift(layer.node.name or "", layer.node.op_type, layer.tensor, layer.channels, layer.of, sqnr, reason)
