"""Layers with stored weights: which of them ONNX Runtime computes in 8 bits with activations rounded as they come."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir

from onnxopt.ir.quant import Array, Scheme, dequantize, fit_array, quantize
from onnxopt.ir.shapes import known_shape
from onnxopt.ir.traverse import all_graphs
from onnxopt.ir.weights import Weight, constant_tensor, weights
from onnxopt.quantize.placement import Left

LEAST_INPUTS = 32
"""A matrix of fewer rows: rounding what comes in takes as long as the 8-bit product saves. Measured in ONNX Runtime
1.32 on an AVX-512 VNNI CPU, one thread, 24 products: 16 x 512 is 0.40 times as fast as float32 at 1 row of activations
and 1.00 at 512; 8 x 256 is 0.34 and 1.08, 32 x 512 is 0.53 and 1.98."""

LEAST_ELEMENTS = 4096
"""Of a matrix, where there are many rows of activations. Measured likewise at 64 rows: 64 x 16 is 0.76 times as fast
and 32 x 32 is 0.75, 64 x 64 is 1.41 and 128 x 32 is 1.12. An embedding of fewer is not worth three nodes more."""

FEW_ROWS = 16
"""Fewer rows of activations do not make up for the time a node takes to start. See LEAST_ELEMENTS_FEW_ROWS."""

LEAST_ELEMENTS_FEW_ROWS = 1 << 14
"""Of a matrix, where there are few rows. Measured likewise at 1 row: 128 x 64 is 0.76 times as fast, 128 x 128 is 0.83,
512 x 32 is 1.04, 1024 x 16 is 1.06, 128 x 256 is 1.05, 256 x 128 is 1.23, 256 x 256 is 1.42, 384 x 384 is 2.13; at 8
rows 128 x 64 is 1.03 and 128 x 128 is 1.09."""

_CONTRIB = "com.microsoft"
_TURNING = frozenset({"Identity", "Transpose"})
_NEVER: Mapping[str, str] = {
    "Conv": "ONNX Runtime's ConvInteger is several times slower than float32 on x86",
    "GRU": "ONNX Runtime has no 8-bit kernel for it",
    "LSTM": "it costs much accuracy in speech models; name LSTM among the operators to have it nonetheless",
}
"""Why operators with weights stay in float that nobody asked for; what is not here needs no reason."""


@dataclass(frozen=True, eq=False, slots=True)
class Rounded:
    """A weight in 8 bits.

    Attributes:
        stored: int8, of the weight's shape.
        scale: float32, [] or [channels].
        sqnr_db: 10 log10 of the weight's power over that of what rounding changes; infinite where it changes nothing.
    """

    stored: Array
    scale: Array
    sqnr_db: float


@dataclass(frozen=True, eq=False, slots=True)
class Matrix:
    """A stored weight as a layer computes with it.

    Attributes:
        source: The value that holds it, which other nodes may read too.
        array: [inputs, outputs] of a product, [rows, columns] of an embedding, [scales, ...] of a recurrent layer.
        axis: Of its channels.
        scheme: How it is stored.
        inputs: Numbers each output depends on.
    """

    source: onnx_ir.Value
    array: Array
    axis: int
    scheme: Scheme
    inputs: int

    def rounded(self) -> Rounded:
        """Return it in 8 bits."""
        how = fit_array(self.array, self.scheme, self.axis)
        stored = quantize(self.array, how)
        noise = float(np.square(dequantize(stored, how) - self.array, dtype=np.float64).sum())
        power = float(np.square(self.array, dtype=np.float64).sum())
        return Rounded(stored, how.scale, 10 * float(np.log10(power / noise)) if noise else float("inf"))


@dataclass(frozen=True, eq=False, slots=True)
class DynamicLayer:
    """A node that computes with stored weights, and these."""

    node: onnx_ir.Node
    matrices: tuple[Matrix, ...]


def find_dynamic_layers(
    model: onnx_ir.Model, scheme: Scheme, ops: Collection[str], skip: Collection[str] = ()
) -> tuple[list[DynamicLayer], list[Left]]:
    """Return the layers that gain from 8 bits, in branches as well, and those left in float, with the reason.

    Args:
        model: Prepared.
        scheme: Of weights.
        ops: Operators asked for: MatMul (and with it Gemm), Attention, LSTM, Gather.
        skip: Names of nodes that stay as they are.
    """
    finder = _Finder(model, scheme, frozenset({*ops, *(("Gemm",) if "MatMul" in ops else ())}), frozenset(skip))
    layers, left = [], []
    for graph in all_graphs(model):
        for node in graph:
            found = finder.look(node)
            if isinstance(found, DynamicLayer):
                layers.append(found)
            elif found is not None:
                left.append(Left(node.name or "", node.op_type, found))
    return layers, left


class _Finder:
    def __init__(self, model: onnx_ir.Model, scheme: Scheme, ops: frozenset[str], skip: frozenset[str]) -> None:
        self._stored = {(weight.consumer, weight.slot): weight for weight in weights(model)}
        self._main = {model.graph, *model.graph.subgraphs()}
        self._scheme = scheme
        self._by_channel = replace(scheme, granularity="channel")
        self._ops = ops
        self._skip = skip

    def look(self, node: onnx_ir.Node) -> DynamicLayer | str | None:
        """Return a layer, why it stays in float, or None where there is nothing to say of a node."""
        if node.domain != (_CONTRIB if node.op_type == "Attention" else ""):
            return None
        if node.op_type not in self._ops:
            return _NEVER.get(node.op_type)
        if node.op_type == "Gather" and not self._is_embedding(node):
            return None
        if node.name in self._skip:
            return "it was asked to be left"
        if node.graph not in self._main:
            return "it is in a function; rewrite the model first"
        kinds: Mapping[str, Callable[[onnx_ir.Node], DynamicLayer | str]] = {
            "Attention": self._attention,
            "Gather": self._embedding,
            "LSTM": self._recurrent,
        }
        return kinds.get(node.op_type, self._product)(node)

    def _product(self, node: onnx_ir.Node) -> DynamicLayer | str:
        if constant_tensor(node.inputs[0]) is not None:
            return "its first input is a weight"
        if node.op_type == "Gemm" and (node.attributes.get_int("transA", 0) != 0 or _is_scaled(node)):
            return "its first input is turned, or its product or its bias is scaled"
        array = self._array(node, 1)
        if isinstance(array, str):
            return array
        if node.op_type == "Gemm" and node.attributes.get_int("transB", 0) != 0:
            array = array.T
        return _too_small(node, *array.shape) or self._alone(node, 1, array, 1, self._scheme)

    def _attention(self, node: onnx_ir.Node) -> DynamicLayer | str:
        given = [slot for slot, value in enumerate(node.inputs) if value is not None]
        if 2 not in given or given[-1] > 4 or {"qkv_hidden_sizes", "rotary_embedding_dim"} & set(node.attributes):
            return "QAttention takes no bias on scores, no sizes of its own for keys, and always a bias on products"
        array = self._array(node, 1)
        return array if isinstance(array, str) else self._alone(node, 1, array, 1, self._scheme)

    def _embedding(self, node: onnx_ir.Node) -> DynamicLayer | str:
        array = self._array(node, 0)
        if isinstance(array, str):
            return array
        if array.size < LEAST_ELEMENTS:
            return f"its weight has {array.size} elements: too few to be worth it"
        return self._alone(node, 0, array, 0, self._by_channel)

    def _recurrent(self, node: onnx_ir.Node) -> DynamicLayer | str:
        if node.attributes.get_int("layout", 0):
            return "DynamicQuantizeLSTM knows no layout with the batch first"
        matrices = []
        for slot in (1, 2):
            array = self._array(node, slot, rank=3)
            if isinstance(array, str):
                return array
            groups = len(array) * (array.shape[1] if self._scheme.granularity == "channel" else 1)
            source, scales = self._stored[node, slot].source, array.reshape(groups, -1)
            matrices.append(Matrix(source, scales, 0, self._by_channel, array.shape[2]))
        return DynamicLayer(node, tuple(matrices))

    def _is_embedding(self, node: onnx_ir.Node) -> bool:
        """Whether a Gather takes rows of a float matrix."""
        weight = self._stored.get((node, 0))
        along_rows = node.attributes.get_int("axis", 0) == 0
        return weight is not None and along_rows and len(weight.tensor.shape) == 2 and _is_float(weight)

    def _array(self, node: onnx_ir.Node, slot: int, rank: int = 2) -> Array | str:
        """Return a weight as it is behind Transpose nodes, or why it cannot be used."""
        weight = self._stored.get((node, slot))
        if weight is None:
            return "its weight is computed"
        if not _is_float(weight) or len(weight.tensor.shape) != rank:
            return f"its weight is {weight.tensor.dtype.name.lower()} of rank {len(weight.tensor.shape)}"
        other = next((view.op_type for view in weight.views if view.op_type not in _TURNING), None)
        if other is not None:
            return f"its weight lies behind {other}"
        array = weight.tensor.numpy()
        return (
            _behind_views(array, weight) if np.isfinite(array).all() else "its weight has infinite or undefined numbers"
        )

    def _alone(self, node: onnx_ir.Node, slot: int, array: Array, axis: int, scheme: Scheme) -> DynamicLayer:
        return DynamicLayer(node, (Matrix(self._stored[node, slot].source, array, axis, scheme, len(array)),))


def _too_small(node: onnx_ir.Node, inputs: int, outputs: int) -> str | None:
    """Return why 8 bits make a product no faster."""
    size = f"its weight is {inputs} x {outputs}"
    if inputs < LEAST_INPUTS or inputs * outputs < LEAST_ELEMENTS:
        return f"{size}: too small to be faster in 8 bits"
    if inputs * outputs < LEAST_ELEMENTS_FEW_ROWS and _has_few_rows(node.inputs[0]):
        return f"{size}: too small to be faster in 8 bits for less than {FEW_ROWS} rows"
    return None


def _has_few_rows(value: onnx_ir.Value | None) -> bool:
    """Whether an activation has few rows; where they are not known, one of rank 2 has only those of a batch."""
    shape = known_shape(value)
    if shape is not None:
        return int(np.prod(shape[:-1])) < FEW_ROWS
    return value is not None and value.shape is not None and len(value.shape) <= 2


def _is_scaled(node: onnx_ir.Node) -> bool:
    has_bias = len(node.inputs) > 2 and node.inputs[2] is not None
    scales = [node.attributes.get_float(name, 1.0) for name in ("alpha", *(("beta",) if has_bias else ()))]
    return any(scale != 1.0 for scale in scales)


def _is_float(weight: Weight) -> bool:
    return weight.tensor.dtype == onnx_ir.DataType.FLOAT


def _behind_views(array: Array, weight: Weight) -> Array:
    for view in weight.views:
        if view.op_type == "Transpose":
            order = view.attributes.get("perm")
            array = array.transpose(None if order is None else order.as_ints())
    return array
