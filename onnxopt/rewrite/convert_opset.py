"""The pass ``convert-opset``."""

from __future__ import annotations

from typing import ClassVar

import onnx
import onnx_ir

from onnxopt.context import Context
from onnxopt.errors import PassError
from onnxopt.ir.opset import convert
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
