"""The pass ``fold-constants``."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir

from onnxopt.context import Context
from onnxopt.ir.fold import fold
from onnxopt.passes import Pass, option, options


@options
class FoldConstants(Pass):
    """Replace nodes whose inputs are all constant by their result, unless that makes the file much larger."""

    name: ClassVar[str] = "fold-constants"
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "onnx-ir", "onnxscript")

    growth: int = option("bytes one folded tensor may add to the file", default=65536, ge=0)

    def edit(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Fold, propagating shapes on the way."""
        fold(graph, self.growth)
