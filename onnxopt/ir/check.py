"""Is this graph a valid model? Structure on reading, onnx's own checker after each pass."""

from __future__ import annotations

from collections import Counter

import onnx
import onnx_ir
import onnx_ir.passes.common as onnx_ir_passes

from onnxopt.errors import ModelError, did_you_mean
from onnxopt.ir.traverse import subgraphs

_DAMAGED = "the file may be cut short or damaged: export it again"
_STANDARD_DOMAINS = {"": "", "ai.onnx": "", "ai.onnx.ml": "ai.onnx.ml"}


def check_structure(model: onnx_ir.Model, where: str) -> None:
    """Raise ModelError if a value comes from nowhere, a name or type is missing, or a standard op does not exist."""
    if not model.graph.outputs:
        raise ModelError("the graph has no outputs", where=where, hint=_DAMAGED)
    _check_inputs(model.graph, where)
    _check_scope(model.graph, frozenset(), where)
    _check_operators(model, model.graph, model.opset_imports, where)
    for function in model.functions.values():
        _check_scope(function.graph, frozenset(), where)
        _check_operators(model, function.graph, function.opset_imports, where)


def checker_complaint(model: onnx_ir.Model) -> str | None:
    """Return what onnx's checker says against a model, or None. Large tensors are left out of the check."""
    try:
        onnx_ir_passes.CheckerPass()(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        return str(error).strip().splitlines()[0]
    return None


def _check_inputs(graph: onnx_ir.Graph, where: str) -> None:
    for name, count in Counter(value.name for value in graph.inputs).items():
        if not name or count > 1:
            what = f"two inputs have the name {name!r}" if name else "an input has no name"
            raise ModelError(what, where=where, hint=_DAMAGED)


def _check_scope(graph: onnx_ir.Graph, outer: frozenset[onnx_ir.Value], where: str) -> None:
    made = (value for node in graph for value in node.outputs)
    visible = outer.union(graph.inputs, graph.initializers.values(), made)
    for node in graph:
        for value in node.inputs:
            if value is not None and value not in visible:
                raise ModelError(
                    f"node {_label(node)} ({node.op_type}) reads {value.name!r}, which nothing makes",
                    where=where,
                    hint=_DAMAGED,
                )
        for branch in subgraphs(node):
            _check_scope(branch, visible, where)
    for value in graph.outputs:
        if value not in visible:
            raise ModelError(f"the output {value.name!r} is made by nothing", where=where, hint=_DAMAGED)


def _check_operators(model: onnx_ir.Model, root: onnx_ir.Graph, imports: dict[str, int], where: str) -> None:
    for node in (node for graph in (root, *root.subgraphs()) for node in graph):
        untyped = [a.name for a in node.attributes.values() if a.type == onnx_ir.AttributeType.UNDEFINED]
        if untyped:
            place = f"{where}: node {_label(node)}"
            raise ModelError(f"the attribute {untyped[0]!r} has no type", where=place, hint=_DAMAGED)
        if node.domain in _STANDARD_DOMAINS and node.op_identifier() not in model.functions:
            _check_operator(node, imports, f"{where}: node {_label(node)}")


def _check_operator(node: onnx_ir.Node, imports: dict[str, int], where: str) -> None:
    domain = _STANDARD_DOMAINS[node.domain]
    opset = imports.get(domain)
    if opset is None:
        raise ModelError(
            f"the model uses domain {node.domain!r} and imports no opset for it", where=where, hint=_DAMAGED
        )
    if onnx.defs.has(node.op_type, max_inclusive_version=opset, domain=domain):
        return
    known = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == domain}
    hint = did_you_mean(node.op_type, known)
    if node.op_type in known:
        hint = f"a later opset has it: export the model with opset {_first_opset(node.op_type, domain)} or above"
    raise ModelError(f"opset {opset} has no operator {node.op_type!r}", where=where, hint=hint)


def _first_opset(operator: str, domain: str) -> int:
    schemas = onnx.defs.get_all_schemas_with_history()
    return min(schema.since_version for schema in schemas if (schema.name, schema.domain) == (operator, domain))


def _label(node: onnx_ir.Node) -> str:
    """Return a node's name, or its outputs' where it has none."""
    return repr(node.name or ", ".join(value.name or "" for value in node.outputs))
