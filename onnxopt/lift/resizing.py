"""Resize and Upsample. They are linear and treat axes apart: what they make of unit vectors along each says all."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir
import torch

from onnxopt.data.sample import Array
from onnxopt.lift.operator import Operator, Table, Tensor
from onnxopt.lift.single import SingleNode


def _resize(operator: Operator, x: Tensor, roi: Tensor = None, scales: Tensor = None, sizes: Tensor = None) -> Tensor:
    crop = operator.get_string("coordinate_transformation_mode", "") == "tf_crop_and_resize"
    operator.refuse(unless=not crop, why="it crops")
    stretched = operator.get_string("keep_aspect_ratio_policy", "stretch") == "stretch"
    operator.refuse(unless=stretched or sizes is None, why="it keeps the aspect ratio")
    if operator.version < 11:
        scales = roi
    given = sizes if scales is None or not scales.numel() else scales
    axes = operator.get_ints("axes", range(x.ndim)) or []
    for axis, asked in zip(axes, given.tolist(), strict=True):
        if asked != (1.0 if given is scales else x.shape[axis]):
            along = torch.from_numpy(_along(operator, x.shape[axis], asked, by_scale=given is scales))
            x = (x.movedim(axis, -1) @ along.to(x.dtype)).movedim(-1, axis)
    return x


def _upsample(operator: Operator, x: Tensor, scales: Tensor) -> Tensor:
    return _resize(operator, x, None if operator.version >= 11 else scales, scales)


def _along(operator: Operator, size: int, asked: float, *, by_scale: bool) -> Array:
    """Return what the node makes of unit vectors along an axis, [size, made], float32."""
    node = onnx.NodeProto()
    node.CopyFrom(onnx_ir.to_proto(operator.node))
    del node.attribute[:]
    node.attribute.extend(one for one in onnx_ir.to_proto(operator.node).attribute if one.name != "axes")
    units = np.eye(size, dtype=np.float32).reshape(1, size, size, 1)
    whole = np.asarray([1, 1, asked, 1], np.float32) if by_scale else np.asarray([1, size, asked, 1], np.int64)
    names = ["x", "scales"] if operator.version < 11 else ["x", "", "scales"] if by_scale else ["x", "", "", "sizes"]
    node.input[:] = names
    found = SingleNode(node, {"": operator.version}).run([{"x": units, "": None}.get(name, whole) for name in names])
    return np.asarray(found[0][0, :, :, 0])


RESIZING: Table = {"Resize": _resize, "Upsample": _upsample}
