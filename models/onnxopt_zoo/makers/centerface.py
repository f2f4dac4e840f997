"""CenterFace as its package has it, with sizes that may vary: its file declares a batch of 10 images of 32 x 32."""

from __future__ import annotations

from pathlib import Path

import onnx

from onnxopt_zoo.taken import Taken


def make(taken: Taken, out: Path) -> None:
    """Write the model: input.1 float32 [batch, 3, h, w] to four maps [batch, c, h / 4, w / 4]."""
    model = onnx.load(taken.file)
    # weights are inputs too in this old file; the image is the one without a value
    weights = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name not in weights:
            _rename(value, ("batch", None, "h", "w"))
    for value in model.graph.output:
        _rename(value, ("batch", None, "h/4", "w/4"))
    del model.graph.value_info[:]
    onnx.save(model, out)


def _rename(value: onnx.ValueInfoProto, names: tuple[str | None, ...]) -> None:
    """Give the axes of ``value`` names instead of sizes, except those without one."""
    for axis, name in zip(value.type.tensor_type.shape.dim, names, strict=True):
        if name is not None:
            axis.dim_param = name
