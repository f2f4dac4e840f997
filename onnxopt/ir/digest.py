"""A content hash of a model, equal for equal models whatever file they came from.

What counts: structure, names, types, attributes, tensors, metadata, opsets. What does not: doc strings, the
producer's name, how a tensor is stored (inline, raw, external), and the order of initializers.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx_ir

from onnxopt.ir.dtypes import type_name

_MEMO = "onnxopt.sha256"


def model_digest(model: onnx_ir.Model) -> str:
    """Return the SHA-256, in hex, of a model whose nodes are sorted and whose names are unique."""
    sha = _Hasher()
    sha.text("onnxopt-digest-1", model.ir_version, *_pairs(model.opset_imports), *_pairs(model.metadata_props))
    sha.graph(model.graph)
    for identifier in sorted(model.functions):
        function = model.functions[identifier]
        sha.text("function", *identifier, *_pairs(function.opset_imports))
        sha.attributes(function.attributes.values())
        sha.graph(function.graph)
    return sha.hexdigest()


def tensor_digest(tensor: onnx_ir.TensorProtocol) -> str:
    """Return the SHA-256 of a tensor's dtype, shape and content; remembered on the tensor, which never changes."""
    known = tensor.meta.get(_MEMO)
    if isinstance(known, str):
        return known
    sha = hashlib.sha256(f"{tensor.dtype.name}{tuple(tensor.shape.numpy())}".encode())
    if tensor.dtype == onnx_ir.DataType.STRING:
        for item in tensor.numpy().reshape(-1):
            sha.update(_framed(item if isinstance(item, bytes) else str(item).encode()))
    else:
        array = np.ascontiguousarray(tensor.numpy())
        sha.update(array.reshape(-1).view(np.uint8).data)
        _let_go(tensor)
    tensor.meta[_MEMO] = sha.hexdigest()
    return sha.hexdigest()


def _let_go(tensor: onnx_ir.TensorProtocol) -> None:
    """Give the pages of a mapped file back: the map stays, what was read no longer counts as memory of this process."""
    if isinstance(tensor, onnx_ir.ExternalTensor) and isinstance(tensor.raw, mmap.mmap) and sys.platform == "linux":
        tensor.raw.madvise(mmap.MADV_DONTNEED)


class _Hasher:
    """Feeds a SHA-256 with length-framed parts, so that no two structures give the same bytes."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()

    def hexdigest(self) -> str:
        return self._sha.hexdigest()

    def text(self, *parts: object) -> None:
        for part in parts:
            self._sha.update(_framed(str(part).encode()))

    def graph(self, graph: onnx_ir.Graph) -> None:
        self.text("graph", len(graph.inputs), len(graph.outputs), len(graph))
        self.values(graph.inputs)
        for name in sorted(graph.initializers):
            tensor = graph.initializers[name].const_value
            self.text("initializer", name, "none" if tensor is None else tensor_digest(tensor))
        for node in graph:
            self.node(node)
        self.values(graph.outputs)

    def node(self, node: onnx_ir.Node) -> None:
        self.text("node", node.domain, node.op_type, node.overload, node.name)
        self.text(len(node.inputs), *("" if value is None else value.name for value in node.inputs))
        self.text(len(node.outputs), *(value.name for value in node.outputs))
        self.attributes(node.attributes.values())

    def values(self, values: Iterable[onnx_ir.Value]) -> None:
        for value in values:
            self.text("value", value.name, type_name(value), value.shape if value.type else None)

    def attributes(self, attributes: Iterable[onnx_ir.Attr]) -> None:
        for attribute in sorted(attributes, key=lambda a: a.name):
            self.text("attribute", attribute.name, attribute.type.name, attribute.ref_attr_name)
            self.attribute_value(attribute.type, attribute.value)

    def attribute_value(self, kind: onnx_ir.AttributeType, value: Any) -> None:
        types = onnx_ir.AttributeType
        if value is None:
            self.text("none")
        elif kind == types.GRAPH:
            self.graph(value)
        elif kind == types.TENSOR:
            self.text(tensor_digest(value))
        elif kind == types.FLOAT:
            self._sha.update(struct.pack("<f", value))
        elif kind in (types.GRAPHS, types.TENSORS, types.FLOATS):
            self.text(len(value))
            for item in value:
                self.attribute_value(types[kind.name.removesuffix("S")], item)
        else:
            self.text(repr(value))


def _pairs(mapping: Mapping[str, object]) -> list[object]:
    return [len(mapping), *(part for key in sorted(mapping) for part in (key, mapping[key]))]


def _framed(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data
