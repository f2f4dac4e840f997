"""A model in numbers, for ``onnxopt inspect``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnxopt.ir.dtypes import dtype_name
from onnxopt.ir.model import Model
from onnxopt.ir.outputs import classifier_outputs
from onnxopt.ir.shapes import infer_shapes, known_shape
from onnxopt.ir.traverse import all_graphs, all_nodes
from onnxopt.ir.weights import weights
from onnxopt.ir.write import files_size


@dataclass(frozen=True)
class Summary:
    """What a model is made of.

    Attributes:
        path: Its file.
        digest: Of its content.
        size_bytes: Of the file and its external data.
        ir_version: Of the ONNX format.
        opsets: Version by domain.
        producer: What wrote the file.
        inputs: As ``name: dtype[shape]``.
        outputs: Likewise.
        classifiers: Outputs whose argmax is the answer.
        nodes: In all graphs.
        graphs: The main graph, branches and functions.
        operators: Nodes by type.
        parameters: Elements of all weights, each counted once.
        weight_bytes: By dtype.
        stored_as: How many weights are stored how (``initializer``, ``constant > Transpose``).
        weights_as_inputs: Weights that are graph inputs too, which keeps runtimes from fusing them.
        unknown_shapes: Intermediate values whose shape is not fully known after inference.
        metadata: Of the model.
        inference_problem: Why shapes could not be inferred, if they could not.
    """

    path: str
    digest: str
    size_bytes: int
    ir_version: int
    opsets: Mapping[str, int]
    producer: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    classifiers: tuple[str, ...]
    nodes: int
    graphs: int
    operators: Mapping[str, int]
    parameters: int
    weight_bytes: Mapping[str, int]
    stored_as: Mapping[str, int]
    weights_as_inputs: int
    unknown_shapes: int
    metadata: Mapping[str, str]
    inference_problem: str | None


def summarise(model: Model, path: Path) -> Summary:
    """Return the summary of a model that was read from ``path``."""
    found = list(weights(model.graph, overridable=True))
    tensors = {id(weight.tensor): weight.tensor for weight in found}
    sizes: Counter[str] = Counter()
    for tensor in tensors.values():
        sizes[dtype_name(tensor.dtype)] += tensor.nbytes
    unknown, problem = _unknown_shapes(model)
    graph = model.graph
    return Summary(
        path=str(path),
        digest=model.digest,
        size_bytes=files_size(graph, path),
        ir_version=graph.ir_version or 0,
        opsets={domain or "ai.onnx": version for domain, version in graph.opset_imports.items()},
        producer=" ".join(part for part in (graph.producer_name, graph.producer_version) if part),
        inputs=tuple(str(port) for port in model.signature.inputs),
        outputs=tuple(str(port) for port in model.signature.outputs),
        classifiers=tuple(sorted(classifier_outputs(graph.graph))),
        nodes=model.nodes,
        graphs=sum(1 for _ in all_graphs(graph)),
        operators=model.operators,
        parameters=sum(tensor.size for tensor in tensors.values()),
        weight_bytes=dict(sizes.most_common()),
        stored_as=dict(Counter(weight.stored_as for weight in found).most_common()),
        weights_as_inputs=sum(value.is_initializer() for value in graph.graph.inputs),
        unknown_shapes=unknown,
        metadata={key: _shortened(value) for key, value in graph.metadata_props.items()},
        inference_problem=problem,
    )


def _unknown_shapes(model: Model) -> tuple[int, str | None]:
    clone = model.graph.clone()
    problem = infer_shapes(clone)
    values = (value for node in all_nodes(clone) for value in node.outputs)
    return sum(known_shape(value) is None for value in values), problem


def _shortened(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"
