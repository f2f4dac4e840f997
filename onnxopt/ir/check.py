"""Is this graph a valid model? Structure on reading, onnx's own checker after each pass."""

from __future__ import annotations

import onnx
import onnx_ir
import onnx_ir.passes.common as onnx_ir_passes

from onnxopt.errors import ModelError, did_you_mean
from onnxopt.ir.traverse import all_nodes, subgraphs

_DAMAGED = "the file may be cut short or damaged: export it again"
_STANDARD_DOMAINS = {"": "", "ai.onnx": "", "ai.onnx.ml": "ai.onnx.ml"}


def check_structure(model: onnx_ir.Model, where: str) -> None:
    """Raise ModelError if a value comes from nowhere, an output is missing, or a standard op does not exist."""
    if not model.graph.outputs:
        raise ModelError("the graph has no outputs", where=where, hint=_DAMAGED)
    _check_scope(model.graph, frozenset(), where)
    functions = {(domain, name) for domain, name, _ in model.functions}
    for node in all_nodes(model):
        if node.domain in _STANDARD_DOMAINS and (node.domain, node.op_type) not in functions:
            _check_operator(node, model.opset_imports, where)


def checker_complaint(model: onnx_ir.Model) -> str | None:
    """Return what onnx's checker says against a model, or None. Large tensors are left out of the check."""
    try:
        onnx_ir_passes.CheckerPass()(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        return str(error).strip().splitlines()[0]
    return None


def _check_scope(graph: onnx_ir.Graph, outer: frozenset[onnx_ir.Value], where: str) -> None:
    made = (value for node in graph for value in node.outputs)
    visible = outer.union(graph.inputs, graph.initializers.values(), made)
    for node in graph:
        for value in node.inputs:
            if value is not None and value not in visible:
                raise ModelError(
                    f"node {node.name!r} ({node.op_type}) reads {value.name!r}, which nothing makes",
                    where=where,
                    hint=_DAMAGED,
                )
        for branch in subgraphs(node):
            _check_scope(branch, visible, where)
    for value in graph.outputs:
        if value not in visible:
            raise ModelError(f"the output {value.name!r} is made by nothing", where=where, hint=_DAMAGED)


def _check_operator(node: onnx_ir.Node, imports: dict[str, int], where: str) -> None:
    domain = _STANDARD_DOMAINS[node.domain]
    opset = imports.get(node.domain, imports.get("ai.onnx" if domain == "" else domain))
    place = f"{where}: node {node.name!r}"
    if opset is None:
        raise ModelError(
            f"the model uses domain {node.domain!r} and imports no opset for it", where=place, hint=_DAMAGED
        )
    if not onnx.defs.has(node.op_type, max_inclusive_version=opset, domain=domain):
        known = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == domain}
        raise ModelError(
            f"opset {opset} has no operator {node.op_type!r}", where=place, hint=did_you_mean(node.op_type, known)
        )
