"""Writing a plan into a graph: QuantizeLinear and DequantizeLinear around what computes in eight bits, in place."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import onnx_ir

from onnxopt.ir.quant import SMALLEST_SCALE, Array, Quantization, Scheme, fit, fit_array, quantize
from onnxopt.ir.weights import add_weight, constant_tensor, weight_value
from onnxopt.quantize.placement import Layer, Plan, gate_bounds, number_slots
from onnxopt.quantize.ranges import Range
from onnxopt.targets.kernels import JOINING, NARROW_BITS, Kernels

_BIAS = Scheme("int32", symmetric=True)
_LARGEST_BIAS = 2.0**30
"""A bias is at most half of what int32 holds, so that the sum it starts has room."""

Part = Literal["weights", "activations"]


def insert(
    graph: onnx_ir.Graph,
    plan: Plan,
    ranges: Mapping[str, Range],
    kernels: Kernels,
    only: Part | None = None,
    narrow: Collection[str] = (),
) -> None:
    """Round what a plan says, in place.

    Args:
        graph: The graph the plan was made for.
        plan: What to round.
        ranges: Of each tensor of ``plan.ranges``, by name.
        kernels: How the runtime wants numbers; its schemes are used.
        only: To see what does the damage: weights alone, or activations alone.
        narrow: Names of the layers whose weights get 7 bits.
    """
    inserter = _Inserter(graph, plan, ranges, kernels, narrow)
    if only != "activations":
        inserter.round_constants()
    if only != "weights":
        inserter.round_activations()


def weight_grids(
    graph: onnx_ir.Graph, plan: Plan, ranges: Mapping[str, Range], kernels: Kernels, narrow: Collection[str]
) -> dict[str, Quantization]:
    """Return how ``insert`` stores the weight of each layer that has one, by the layer's name."""
    inserter = _Inserter(graph, plan, ranges, kernels, narrow)
    found = {layer: constant_tensor(layer.node.inputs[1]) for layer in plan.layers if 1 not in layer.activations}
    return {layer.name: inserter.grid(layer, one.numpy())[0] for layer, one in found.items() if one is not None}


class _Inserter:
    def __init__(
        self,
        graph: onnx_ir.Graph,
        plan: Plan,
        ranges: Mapping[str, Range],
        kernels: Kernels,
        narrow: Collection[str],
    ) -> None:
        self._graph = graph
        self._plan = plan
        self._kernels = kernels
        self._narrow = narrow
        self._how = {value: fit(*_used(value, ranges[value.name or ""]), kernels.activations) for value in plan.ranges}
        self._nothing = weight_value("nothing", np.zeros((), np.float32))
        self._constants: dict[tuple[onnx_ir.Value, Scheme, int | None, bytes], onnx_ir.Value] = {}

    def round_constants(self) -> None:
        for layer in self._plan.layers:
            self._round_weight(layer)
        for node in self._plan.around:
            if node.op_type in JOINING:
                self._round_operands(node)

    def round_activations(self) -> None:
        wanted = self._readers()
        gates = {node.outputs[0]: node for node in self._plan.around if node.op_type == "HardSigmoid"}
        for value, source in self._plan.rounded.items():
            if value in gates:
                self._scale_and_cut(gates[value])
            else:
                self._round(value, self._how[source], wanted.get(value, []))

    def _readers(self) -> dict[onnx_ir.Value, list[tuple[onnx_ir.Node, int]]]:
        """Return for each tensor the places where it is wanted rounded."""
        places: dict[onnx_ir.Value, list[tuple[onnx_ir.Node, int]]] = {}
        slots = [(layer.node, slot) for layer in self._plan.layers for slot in layer.activations]
        slots += [(node, slot) for node in self._plan.around for slot in number_slots(node)]
        for node, slot in slots:
            value = node.inputs[slot]
            if value is not None:
                places.setdefault(value, []).append((node, slot))
        return places

    def _round(self, value: onnx_ir.Value, how: Quantization, wanted: list[tuple[onnx_ir.Node, int]]) -> None:
        """Round a tensor for those who want it so, or for all that read it."""
        everywhere = value in self._plan.everywhere
        places = list(value.uses()) if everywhere else wanted
        back = self._pair(value, how)
        for node, slot in places:
            node.replace_input_with(slot, back)
        if everywhere and value.is_graph_output():
            hand_over(self._graph, value, back)

    def _pair(self, value: onnx_ir.Value, how: Quantization, read: Quantization | None = None) -> onnx_ir.Value:
        """Insert both nodes right behind what makes a tensor; return what is read back, in another scale if given."""
        numbers = self._numbers(f"{value.name}", how)
        down = onnx_ir.node("QuantizeLinear", [value, *numbers], name=f"{value.name}_quantize")
        down.outputs[0].name = f"{value.name}_quantized"
        if read is not None:
            numbers = self._numbers(f"{value.name}_read", read)
        up = self._read_back(down.outputs[0], numbers, f"{value.name}_dequantized", {})
        maker = value.producer()
        if maker is None:
            self._graph.insert_before(self._graph[0], [down, up])
        else:
            self._graph.insert_after(maker, [down, up])
        return up.outputs[0]

    def _scale_and_cut(self, gate: onnx_ir.Node) -> None:
        """Let stored numbers be a HardSigmoid: in steps of its rise they saturate where it does, and read 0 to 1.

        Adding zero makes it one operation on stored numbers: runtimes have none that only changes the scale.
        """
        bounds = gate_bounds(gate)
        assert bounds is not None
        low, high = bounds
        scheme = self._kernels.activations
        steps = scheme.highest - scheme.lowest
        stored = Quantization(scheme, np.asarray((high - low) / steps, np.float32), _point(scheme, -low / (high - low)))
        read = Quantization(scheme, np.asarray(1 / steps, np.float32), _point(scheme, 0.0))
        nothing = self._constant(self._nothing, np.zeros((), np.float32), fit(0.0, 0.0, scheme))
        adding = onnx_ir.node("Add", [gate.inputs[0], nothing], name=f"{gate.name}_scaled")
        adding.outputs[0].name = f"{gate.outputs[0].name}_scaled"
        self._graph.insert_before(gate, adding)
        gate.outputs[0].replace_all_uses_with(self._pair(adding.outputs[0], stored, read))
        self._graph.remove(gate, safe=True)

    def _round_weight(self, layer: Layer) -> None:
        node = layer.node
        if 1 in layer.activations:
            return
        tensor = constant_tensor(node.inputs[1])
        value = node.inputs[1]
        assert tensor is not None
        assert value is not None
        how, bias = self.grid(layer, tensor.numpy())
        node.replace_input_with(1, self._constant(value, tensor.numpy(), how))
        if bias is not None:
            adding, slot = _bias_place(layer)
            source = adding.inputs[slot]
            assert source is not None
            adding.replace_input_with(slot, self._constant(source, bias, self._bias_scale(how, layer)))

    def grid(self, layer: Layer, weight: Array) -> tuple[Quantization, Array | None]:
        """Return how a layer's weight is stored, and its bias where that is stored as int32."""
        scheme = self._kernels.weights
        if layer.channel_axis is None:
            scheme = replace(scheme, granularity="tensor")
        if layer.name in self._narrow:
            scheme = replace(scheme, bits=NARROW_BITS)
        how = fit_array(weight, scheme, layer.channel_axis or 0)
        bias = self._bias(layer, how)
        return (how if bias is None else self._with_room(how, weight, bias, layer)), bias

    def _bias(self, layer: Layer, how: Quantization) -> Array | None:
        """Return a bias of one number a channel, where it is stored as int32."""
        node, slot = _bias_place(layer)
        if not self._kernels.quantized_bias or len(node.inputs) <= slot or node in self._plan.around:
            return None
        tensor = constant_tensor(node.inputs[slot])
        if tensor is None or len(tensor.shape) != 1 or (how.axis is not None and tensor.size != how.scale.size):
            return None
        return tensor.numpy()

    def _with_room(self, how: Quantization, weight: Array, bias: Array, layer: Layer) -> Quantization:
        """Return a weight's quantization with scales so large that its bias fits an int32; no larger for no weights."""
        least = np.abs(bias) / (_LARGEST_BIAS * self._input_scale(layer))
        if how.axis is None:
            return replace(how, scale=np.maximum(how.scale, least.max(initial=0.0)).astype(np.float32))
        others = tuple(axis for axis in range(weight.ndim) if axis != how.axis)
        own = np.where(weight.any(others), how.scale, SMALLEST_SCALE)
        return replace(how, scale=np.maximum(own, least).astype(np.float32))

    def _bias_scale(self, how: Quantization, layer: Layer) -> Quantization:
        scale = (how.scale * self._input_scale(layer)).astype(np.float32)
        scheme = replace(_BIAS, granularity=how.scheme.granularity)
        return Quantization(scheme, scale, np.zeros(scale.shape, np.int32), None if how.axis is None else 0)

    def _input_scale(self, layer: Layer) -> Array:
        value = layer.node.inputs[0]
        assert value is not None
        return self._how[self._plan.rounded[value]].scale

    def _round_operands(self, node: onnx_ir.Node) -> None:
        """Round the constants an operator between layers computes with."""
        scheme = self._kernels.activations
        for slot, value in enumerate(node.inputs):
            tensor = constant_tensor(value)
            if value is not None and tensor is not None and tensor.dtype == onnx_ir.DataType.FLOAT:
                how = fit_array(tensor.numpy(), scheme)
                node.replace_input_with(slot, self._constant(value, tensor.numpy(), how))

    def _constant(self, value: onnx_ir.Value, array: Array, how: Quantization) -> onnx_ir.Value:
        """Return a constant as it is read back; readers that want it alike share what is stored."""
        key = (value, how.scheme, how.axis, how.scale.tobytes())
        if key not in self._constants:
            name = f"{value.name}" if not any(known[0] is value for known in self._constants) else f"{value.name}_again"
            stored = add_weight(self._graph, weight_value(f"{name}_quantized", quantize(array, how)))
            axis = {} if how.axis is None else {"axis": how.axis}
            up = self._read_back(stored, self._numbers(name, how), f"{name}_dequantized", axis)
            self._graph.insert_before(self._graph[0], up)
            self._constants[key] = up.outputs[0]
        return self._constants[key]

    def _numbers(self, name: str, how: Quantization) -> list[onnx_ir.Value]:
        scale = add_weight(self._graph, weight_value(f"{name}_scale", how.scale))
        return [scale, add_weight(self._graph, weight_value(f"{name}_zero_point", how.zero_point))]

    def _read_back(
        self, stored: onnx_ir.Value, numbers: list[onnx_ir.Value], name: str, attributes: Mapping[str, int]
    ) -> onnx_ir.Node:
        up = onnx_ir.node("DequantizeLinear", [stored, *numbers], dict(attributes), name=f"{name}_node")
        up.outputs[0].name = name
        up.outputs[0].dtype = onnx_ir.DataType.FLOAT
        return up


def _point(scheme: Scheme, share: float) -> Array:
    """Return the zero point that lies at a share of what a scheme stores."""
    steps = scheme.highest - scheme.lowest
    return np.array(scheme.lowest + round(share * steps), scheme.ir_type.numpy())


def _used(value: onnx_ir.Value, seen: Range) -> Range:
    """Return the part of a range that matters: what a HardSigmoid gates to zero may as well be cut off."""
    readers = {reader for reader, _ in value.uses()}
    gates = [reader for reader in readers if reader.op_type == "HardSigmoid"]
    bounds = gate_bounds(gates[0]) if len(gates) == 1 else None
    if bounds is None or value.is_graph_output():
        return seen
    products = {reader for reader, _ in gates[0].outputs[0].uses() if reader.op_type == "Mul"}
    return (max(seen[0], bounds[0]), seen[1]) if readers <= {gates[0], *products} else seen


def _bias_place(layer: Layer) -> tuple[onnx_ir.Node, int]:
    """Return the node and the slot that read a layer's bias: its own third, or those of an Add it is fused with.

    ONNX Runtime makes one Gemm of a MatMul and an Add where it knows the sizes, and computes that in 8 bits only if the
    bias is stored as for a Gemm; otherwise it reads the weight back on every run.
    """
    node, result = layer.node, layer.node.outputs[0]
    readers = [reader for reader, _ in result.uses()]
    known = result.shape is not None and (len(result.shape) == 2 or result.shape.is_static())
    if node.op_type != "MatMul" or not known or len(readers) != 1 or readers[0].op_type != "Add":
        return node, 2
    return readers[0], 1 if readers[0].inputs[0] is result else 0


def hand_over(graph: onnx_ir.Graph, value: onnx_ir.Value, back: onnx_ir.Value) -> None:
    """Let what is read back be the graph's output, under its name."""
    name, back.type, back.shape = value.name, value.type, value.shape
    for index, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[index] = back
    value.name, back.name = f"{name}_made", name
