"""Another version of the operator set, or the reason why not."""

from __future__ import annotations

import onnx
import onnx_ir
from onnxscript import version_converter

from onnxopt.errors import PassError
from onnxopt.ir.check import checker_complaint
from onnxopt.ir.traverse import all_nodes


def convert(graph: onnx_ir.Model, opset: int) -> onnx_ir.Model:
    """Return the model in another opset.

    Raises:
        PassError: An operator has no conversion; the converter's reason is given.
    """
    have = graph.opset_imports.get("", 0)
    problems = []
    for attempt in (_with_onnxscript, _with_onnx):
        try:
            converted = attempt(graph.clone(), opset)
        except Exception as error:  # noqa: BLE001  (each converter raises what it likes; both reasons are told below)
            problems.append(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
            continue
        problem = _problem(converted, opset)
        if problem is None:
            return converted
        problems.append(problem)
    raise PassError(
        f"the model cannot be converted from opset {have} to {opset}: {'; '.join(problems)}",
        hint="try an opset in between, or export the model again with that opset",
    )


def _problem(converted: onnx_ir.Model, opset: int) -> str | None:
    """Return what is wrong with a converter's result; converters are known to stop early and say nothing."""
    have = converted.opset_imports.get("")
    if have != opset:
        return f"it stayed at opset {have}"
    for node in all_nodes(converted):
        if node.domain in ("", "ai.onnx"):
            _drop_newer_attributes(node, opset)
    return checker_complaint(converted)


def _drop_newer_attributes(node: onnx_ir.Node, opset: int) -> None:
    """Remove attributes the opset does not have yet, where they only say what is so without them."""
    if not onnx.defs.has(node.op_type, max_inclusive_version=opset, domain=""):
        return
    known = onnx.defs.get_schema(node.op_type, opset).attributes
    newest = onnx.defs.get_schema(node.op_type).attributes
    for name in [name for name in node.attributes if name not in known and name in newest]:
        default = newest[name].default_value
        if onnx.helper.get_attribute_value(default) == node.attributes[name].value:
            del node.attributes[name]


def _with_onnxscript(graph: onnx_ir.Model, opset: int) -> onnx_ir.Model:
    version_converter.convert_version(graph, opset, fallback=False)
    return graph


def _with_onnx(graph: onnx_ir.Model, opset: int) -> onnx_ir.Model:
    return onnx_ir.from_proto(onnx.version_converter.convert_version(onnx_ir.to_proto(graph), opset))
