"""A node by itself in ONNX Runtime: what gradients do not pass through is computed as it always is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import onnxruntime

from onnxopt.data.sample import Array

_IR_VERSION = 8


class SingleNode:
    """A node, with a session for each combination of dtypes, ranks, and lengths of lists it is given."""

    def __init__(self, node: onnx.NodeProto, opsets: Mapping[str, int]) -> None:
        self._node = node
        self._opsets = opsets
        self._sessions: dict[tuple[Any, ...], onnxruntime.InferenceSession] = {}

    def run(self, inputs: Sequence[Array | None]) -> list[Array]:
        """Return what the node makes of its inputs; None stands for one that is left out."""
        pairs = zip(self._node.input, inputs, strict=True)
        feeds = {name: array for name, array in pairs if name and array is not None}
        key = tuple((array.dtype, *_dims(array)) for array in feeds.values())
        if key not in self._sessions:
            self._sessions[key] = self._session(feeds)
        return list(self._sessions[key].run(None, feeds))

    def _session(self, feeds: Mapping[str, Array]) -> onnxruntime.InferenceSession:
        tensor = onnx.helper.make_tensor_value_info
        to_onnx = onnx.helper.np_dtype_to_tensor_dtype
        given = [tensor(name, to_onnx(array.dtype), _dims(array)) for name, array in feeds.items()]
        made = [onnx.ValueInfoProto(name=name) for name in self._node.output if name]
        opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in self._opsets.items()]
        graph = onnx.helper.make_graph([self._node], "single", given, made)
        model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def _dims(array: Array) -> list[int | None]:
    """Return the dimensions a session has to know: inferring shapes fails on lists of unknown length."""
    return [len(array)] if array.ndim == 1 else [None] * array.ndim
