"""Shapes of everything in one inference: what costs are counted with, and axes followed by."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir

from onnxopt.compile.engine import Feeds
from onnxopt.compile.isolation import Limits, run_isolated
from onnxopt.compile.ort import OnnxRuntime
from onnxopt.data.sample import Samples
from onnxopt.data.synthetic import Synthetic
from onnxopt.errors import DataError, EngineError
from onnxopt.ir.fold import fold
from onnxopt.ir.model import Model, private_copy
from onnxopt.ir.shapes import forget_shapes, infer_shapes, known_shape
from onnxopt.ir.write import write_model
from onnxopt.targets.target import local_target

Sizes = Mapping[str, tuple[int, ...]]
"""Shapes by the name of the value; those that are not known are left out."""

_LIMITS = Limits(seconds=300)


def find_sizes(graph: onnx_ir.Model, samples: Samples | None) -> Sizes:
    """Return the shapes of a graph's values when it runs the first sample, or a made-up one where there is none.

    Shapes are inferred; those that inference cannot tell, the runtime tells, unless it cannot run the model.
    """
    try:
        feeds = (samples or Synthetic(synthetic=1).open(Model(graph), Path())).read(0).feeds
    except DataError:
        feeds = {}
    inferred = _inferred(graph, feeds)
    missing = [value for node in graph.graph for value in node.outputs if value.name and value.name not in inferred]
    return {**inferred, **(_seen(graph, missing, feeds) if feeds and missing else {})}


def shapes_when_run(model: str, feeds: Feeds) -> dict[str, tuple[int, ...]]:
    """Return the shapes of those of a model's outputs that are arrays, not sequences; called in a child."""
    with OnnxRuntime().compile(Path(model), local_target()) as engine:
        made = engine.run(feeds).items()
        return {name: array.shape for name, array in made if isinstance(array, np.ndarray)}


def _inferred(graph: onnx_ir.Model, feeds: Feeds) -> dict[str, tuple[int, ...]]:
    copy = private_copy(graph)
    for value in copy.graph.inputs:
        if value.name is not None and value.name in feeds:
            value.shape = onnx_ir.Shape(feeds[value.name].shape)
    forget_shapes(copy)
    fold(copy, growth=0)  # of shapes that are now known, sizes that were computed follow
    infer_shapes(copy, outputs=True)
    stored = copy.graph.initializers.values()
    values = (*copy.graph.inputs, *stored, *(value for node in copy.graph for value in node.outputs))
    found = ((value.name or "", known_shape(value)) for value in values)
    return {name: shape for name, shape in found if shape is not None}


def _seen(graph: onnx_ir.Model, missing: list[onnx_ir.Value], feeds: Feeds) -> dict[str, tuple[int, ...]]:
    """Return the shapes that values have when the model runs; none if it does not."""
    copy = private_copy(graph)
    names = {value.name for value in missing}
    copy.graph.outputs[:] = [value for node in copy.graph for value in node.outputs if value.name in names]
    known = {name: array for name, array in feeds.items() if name in {value.name for value in copy.graph.inputs}}
    with tempfile.TemporaryDirectory(prefix="onnxopt-") as folder:
        path = write_model(Model(copy), Path(folder) / "model.onnx")[0]
        try:
            found: dict[str, tuple[int, ...]] = run_isolated(
                "onnxopt.prune.sizes:shapes_when_run", str(path), known, limits=_LIMITS
            )
        except EngineError:
            return {}
    return found
