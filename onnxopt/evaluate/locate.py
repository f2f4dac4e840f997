"""Which node of a changed model is the first to compute something else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx_ir

from onnxopt.compile.engine import Array, Feeds, Results
from onnxopt.compile.isolation import PersistentChild
from onnxopt.errors import EngineError
from onnxopt.evaluate.tolerance import check_output
from onnxopt.ir.model import Model, private_copy
from onnxopt.ir.shapes import infer_shapes
from onnxopt.ir.write import write_model


def locate_difference(before: Model, after: Model, feeds: Feeds, folder: Path, child: PersistentChild) -> str | None:
    """Return the first node of ``after`` whose output differs from the value of the same name in ``before``.

    Args:
        before: The model before the change.
        after: The model after it.
        feeds: What both are fed.
        folder: For model files.
        child: Where they are run.

    Returns:
        Its name, operator and output, or None where no value kept its name or the models cannot be compared.
    """
    shared = _shared_values(before.graph.graph, after.graph.graph)
    try:
        old = _intermediate(before, shared, feeds, folder / "before-all-values.onnx", child)
        new = _intermediate(after, shared, feeds, folder / "after-all-values.onnx", child)
    except EngineError:
        return None
    return _first_difference(after.graph.graph, old, new)


def _first_difference(graph: onnx_ir.Graph, old: Results, new: Results) -> str | None:
    for node in graph:
        for value in node.outputs:
            name = value.name or ""
            if name in old and name in new and _differs(old[name], new[name]):
                return f"first differs at node {node.name!r} ({node.op_type}), value {name!r}"
    return None


def _differs(old: Array, new: Array) -> bool:
    return not check_output("", [old], [old], [new]).passed


def _shared_values(before: onnx_ir.Graph, after: onnx_ir.Graph) -> list[str]:
    old = {value.name for node in before for value in node.outputs}
    return [value.name for node in after for value in node.outputs if value.name and value.name in old]


def _intermediate(model: Model, names: Sequence[str], feeds: Feeds, path: Path, child: PersistentChild) -> Results:
    """Return the named values; those whose type is unknown are left out."""
    clone = private_copy(model.graph)
    infer_shapes(clone)
    wanted = set(names) - {value.name for value in clone.graph.outputs}
    for node in clone.graph:
        for value in node.outputs:
            if value.name in wanted and isinstance(value.type, onnx_ir.TensorType):
                clone.graph.outputs.append(value)
    write_model(Model(clone), path)
    place = "onnxopt.evaluate.verify:run_probes"
    results: Results | None = child.function(place, str(path), "disabled", [dict(feeds)])[0]
    return results or {}
