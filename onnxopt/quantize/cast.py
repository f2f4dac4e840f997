"""The passes ``cast-float16`` and ``cast-bfloat16``: sixteen bits for weights alone, or for computing as well."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import numpy as np
import onnx
import onnx_ir

from onnxopt.context import Context
from onnxopt.errors import PassError
from onnxopt.ir.cleanup import freeze_weights, lift_constants, remove_unused
from onnxopt.ir.shapes import infer_shapes
from onnxopt.ir.traverse import all_graphs, subgraphs
from onnxopt.passes import Pass, option, options
from onnxopt.quantize.prepare import refuse_quantized

FRAGILE = ("Resize", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Range", "Upsample")
"""Operators whose results depend on exact coordinates or seeds, so that sixteen bits change more than rounding."""

_WORTH_BYTES = 1024
"""Smaller weights stay as they are in storage mode: a Cast node costs more than it saves."""


@options
class _Cast(Pass):
    revision: ClassVar[int] = 2
    exact: ClassVar[bool] = False

    mode: Literal["storage", "compute"] = option(
        "storage: weights only, the runtime computes in float32; compute: operators too, where ONNX defines them",
        default="storage",
    )
    keep: tuple[str, ...] = option("operator types or node names that stay in float32", default=FRAGILE)

    @property
    @abstractmethod
    def target(self) -> onnx_ir.DataType:
        """The sixteen-bit type."""

    def requires(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Refuse quantized models, and models without float32 weights."""
        refuse_quantized(graph)
        weights = [value.const_value for one in all_graphs(graph) for value in one.initializers.values()]
        constants = any(node.op_type == "Constant" for one in all_graphs(graph) for node in one)
        if not constants and not any(w is not None and w.dtype == onnx_ir.DataType.FLOAT for w in weights):
            raise PassError("there is nothing to cast: the model has no float32 weights")

    def edit(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Cast weights, or weights and operators."""
        freeze_weights(graph)
        lift_constants(graph)
        if self.mode == "storage":
            store_weights(graph, self.target)
        else:
            infer_shapes(graph)
            _Caster(graph, self.target, frozenset(self.keep)).run()
        remove_unused(graph)


@options
class CastFloat16(_Cast):
    """Halve the weights, and optionally the work, with float16: 11 significant bits, largest value 65504."""

    name: ClassVar[str] = "cast-float16"

    @property
    def target(self) -> onnx_ir.DataType:
        """Float16."""
        return onnx_ir.DataType.FLOAT16


@options
class CastBfloat16(_Cast):
    """Halve the weights, and optionally the work, with bfloat16: 8 significant bits, float32's range."""

    name: ClassVar[str] = "cast-bfloat16"

    @property
    def target(self) -> onnx_ir.DataType:
        """Bfloat16."""
        return onnx_ir.DataType.BFLOAT16


def store_weights(graph: onnx_ir.Model, target: onnx_ir.DataType) -> None:
    """Store float32 initializers in ``target`` with a Cast behind each, in place."""
    for one in all_graphs(graph):
        for value in list(one.initializers.values()):
            tensor = value.const_value
            if tensor is None or tensor.dtype != onnx_ir.DataType.FLOAT or tensor.nbytes < _WORTH_BYTES:
                continue
            if _fits(tensor, target) and not value.is_graph_output():
                stored = _register(one, f"{value.name}_{target.name.lower()}", tensor, target)
                cast = onnx_ir.node("Cast", [stored], {"to": int(onnx_ir.DataType.FLOAT)}, name=f"{value.name}_cast")
                _insert_first(one, cast)
                value.replace_all_uses_with(cast.outputs[0])


class _Caster:
    """Moves every operator that ONNX defines for the target type to it, with Casts where types meet."""

    def __init__(self, graph: onnx_ir.Model, target: onnx_ir.DataType, keep: frozenset[str]) -> None:
        self._graph = graph.graph
        self._opset = graph.opset_imports.get("", 0)
        self._target = target
        self._keep = keep
        self._lowered: dict[onnx_ir.Value, onnx_ir.Value] = {}
        self._raised: dict[onnx_ir.Value, onnx_ir.Value] = {}

    def run(self) -> None:
        chosen = [node for node in self._graph if self._can_move(node)]
        made = dict.fromkeys(value for node in chosen for value in node.outputs if _is_float32(value))
        outputs = {value: i for i, value in enumerate(self._graph.outputs)}
        for node in chosen:
            for slot, value in enumerate(node.inputs):
                if value is not None and value not in made and _is_float32(value):
                    node.replace_input_with(slot, self._lower(value))
        moved = set(chosen)
        for value in made:
            readers = [(node, slot) for node, slot in value.uses() if node not in moved]
            if readers or value in outputs:
                self._raise(value, readers, outputs.get(value))
            value.dtype = self._target

    def _can_move(self, node: onnx_ir.Node) -> bool:
        if node.op_type in self._keep or node.name in self._keep or node.domain not in ("", "ai.onnx"):
            return False
        if list(subgraphs(node)):
            return False  # its branches compute in float32, and so must what they return
        floats = [value for value in (*node.inputs, *node.outputs) if value is not None and _is_float32(value)]
        known = all(value is None or value.dtype is not None for value in (*node.inputs, *node.outputs))
        tensors = [value.const_value for value in floats if value.const_value is not None]
        return bool(floats) and known and self._defined(node) and all(_fits(t, self._target) for t in tensors)

    def _defined(self, node: onnx_ir.Node) -> bool:
        """Whether the operator's schema allows the target wherever the node has float32."""
        schema = onnx.defs.get_schema(node.op_type, self._opset)
        allowed = {rule.type_param_str: set(rule.allowed_type_strs) for rule in schema.type_constraints}
        wanted = f"tensor({self._target.name.lower()})"
        for values, formals in ((node.inputs, schema.inputs), (node.outputs, schema.outputs)):
            for index, value in enumerate(values):
                formal = formals[min(index, len(formals) - 1)]
                types = allowed.get(formal.type_str, {formal.type_str})
                if value is not None and _is_float32(value) and wanted not in types:
                    return False
        return True

    def _lower(self, value: onnx_ir.Value) -> onnx_ir.Value:
        """Return ``value`` in the target type: a converted weight, or a Cast right behind what makes it."""
        if value not in self._lowered:
            name = f"{value.name}_{self._target.name.lower()}"
            if value.const_value is not None and value.is_initializer():
                self._lowered[value] = _register(self._graph, name, value.const_value, self._target)
            else:
                self._lowered[value] = self._cast(value, self._target, name)
        return self._lowered[value]

    def _raise(self, value: onnx_ir.Value, readers: list[tuple[onnx_ir.Node, int]], output: int | None) -> None:
        """Give readers that stay in float32, and the graph's output, a Cast back."""
        back = self._cast(value, onnx_ir.DataType.FLOAT, f"{value.name}_float32")
        for node, slot in readers:
            node.replace_input_with(slot, back)
        if output is not None:
            self._graph.outputs[output] = back
            back.shape = value.shape
            name, value.name = value.name, f"{value.name}_{self._target.name.lower()}_made"
            back.name = name

    def _cast(self, value: onnx_ir.Value, dtype: onnx_ir.DataType, name: str) -> onnx_ir.Value:
        cast = onnx_ir.node("Cast", [value], {"to": int(dtype)}, name=f"{name}_cast")
        cast.outputs[0].name = name
        cast.outputs[0].dtype = dtype
        producer = value.producer()
        if producer is None:
            _insert_first(self._graph, cast)
        else:
            self._graph.insert_after(producer, cast)
        return cast.outputs[0]


def _is_float32(value: onnx_ir.Value) -> bool:
    return value.dtype == onnx_ir.DataType.FLOAT


def _fits(tensor: onnx_ir.TensorProtocol, target: onnx_ir.DataType) -> bool:
    """Whether the largest value neither becomes infinite nor, as an epsilon may, zero."""
    if tensor.dtype != onnx_ir.DataType.FLOAT or target != onnx_ir.DataType.FLOAT16:
        return True
    limits = np.finfo(np.float16)
    largest = float(np.abs(tensor.numpy()).max(initial=0.0))
    return largest == 0 or float(limits.smallest_subnormal) <= largest <= float(limits.max)


def _register(
    graph: onnx_ir.Graph, name: str, tensor: onnx_ir.TensorProtocol, target: onnx_ir.DataType
) -> onnx_ir.Value:
    converted = onnx_ir.tensor(tensor.numpy().astype(target.numpy()), dtype=target, name=name)
    shape = onnx_ir.Shape(tensor.shape.numpy())
    value = onnx_ir.Value(name=name, type=onnx_ir.TensorType(target), shape=shape, const_value=converted)
    graph.register_initializer(value)
    return value


def _insert_first(graph: onnx_ir.Graph, node: onnx_ir.Node) -> None:
    graph.insert_before(graph[0], node)
