"""The pass ``convert-opset``: another version of the operator set, or the reason why not."""

from __future__ import annotations

from typing import ClassVar

import onnx
import onnx_ir
from onnxscript import version_converter

from onnxopt.context import Context
from onnxopt.errors import PassError
from onnxopt.passes import Pass, option, options


@options
class ConvertOpset(Pass):
    """Convert the model to another opset of the default domain."""

    name: ClassVar[str] = "convert-opset"
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "onnx-ir", "onnxscript")

    opset: int = option("the opset to convert to", default=21, ge=7)

    def requires(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Refuse an opset this onnx does not know."""
        newest = onnx.defs.onnx_opset_version()
        if self.opset > newest:
            raise PassError(f"opset {self.opset} is not known, the newest here is {newest}", hint="choose a lower one")

    def edit(self, graph: onnx_ir.Model, ctx: Context) -> onnx_ir.Model:
        """Return the converted model, or the graph itself if it has that opset."""
        have = graph.opset_imports.get("", 0)
        return graph if have == self.opset else convert(graph, self.opset)


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
        if converted.opset_imports.get("") == opset:
            return converted
        problems.append(f"it stayed at opset {converted.opset_imports.get('')}")
    raise PassError(
        f"the model cannot be converted from opset {have} to {opset}: {'; '.join(problems)}",
        hint="try an opset in between, or export the model again with that opset",
    )


def _with_onnxscript(graph: onnx_ir.Model, opset: int) -> onnx_ir.Model:
    version_converter.convert_version(graph, opset, fallback=False)
    return graph


def _with_onnx(graph: onnx_ir.Model, opset: int) -> onnx_ir.Model:
    return onnx_ir.from_proto(onnx.version_converter.convert_version(onnx_ir.to_proto(graph), opset))
