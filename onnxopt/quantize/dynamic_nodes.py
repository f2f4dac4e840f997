"""Writing 8-bit nodes that round activations as they come, in place.

What is written is what ONNX Runtime fuses: DynamicQuantizeLinear, MatMulInteger, Cast and two Mul become one
MatMulIntegerToFloat, an Add of a constant vector in its second input becomes that node's bias, and where nobody else
reads the rounded activation all of it becomes one DynamicQuantizeMatMul (its matmul_integer_to_float and
dynamic_quantize_matmul_fusion; both want the product's scale computed by a node of its own).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir

from onnxopt.ir.quant import Array
from onnxopt.ir.weights import add_weight, constant_tensor, weight_value
from onnxopt.quantize.dynamic_layers import DynamicLayer, Matrix, Rounded

CONTRIB = "com.microsoft"
_FLOAT = int(onnx_ir.DataType.FLOAT)
_LSTM_INPUTS = 8
_Given = Sequence[onnx_ir.Value | None]


@dataclass(frozen=True, slots=True)
class _Activation:
    """A tensor rounded as it comes: uint8 numbers, their scale and their zero point."""

    numbers: onnx_ir.Value
    scale: onnx_ir.Value
    zero_point: onnx_ir.Value


@dataclass(slots=True)
class DynamicWriter:
    """Puts 8-bit nodes in the place of float ones; each activation is rounded once for all its readers in a graph."""

    _activations: dict[tuple[onnx_ir.Graph, onnx_ir.Value], _Activation] = field(default_factory=dict)

    def write(self, layer: DynamicLayer, weights: Sequence[Rounded]) -> None:
        """Replace a layer by 8-bit nodes; layers come in the order of their graph."""
        match layer.node.op_type:
            case "Attention":
                nodes = self._attention(layer, weights[0])
            case "Gather":
                nodes = _embedding(layer, weights[0])
            case "LSTM":
                nodes = _recurrent(layer, weights)
            case _:
                nodes = self._product(layer, weights[0])
        _replace(layer.node, nodes)
        _put_bias_second(nodes[-1].outputs[0])

    def _product(self, layer: DynamicLayer, weight: Rounded) -> list[onnx_ir.Node]:
        node, given, source = layer.node, self._activation(layer.node), layer.matrices[0]
        numbers, scales = _stored(source, "quantized", weight.stored), _stored(source, "scale", weight.scale)
        product = _made(node, "MatMulInteger", [given.numbers, numbers, given.zero_point])
        scale = _made(node, "Mul", [given.scale, scales], what="scale")
        cast = _made(node, "Cast", [product.outputs[0]], {"to": _FLOAT})
        scaled = _made(node, "Mul", [cast.outputs[0], scale.outputs[0]])
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        added = [] if bias is None else [_made(node, "Add", [scaled.outputs[0], bias])]
        return [product, scale, cast, scaled, *added]

    def _attention(self, layer: DynamicLayer, weight: Rounded) -> list[onnx_ir.Node]:
        """Return ONNX Runtime's QAttention in the place of its Attention."""
        node, given, source = layer.node, self._activation(layer.node), layer.matrices[0]
        numbers, scales = _stored(source, "quantized", weight.stored), _stored(source, "scale", weight.scale)
        zeros = _stored(source, "zero_point", np.zeros(weight.scale.shape, np.int8))
        mask, past = (node.inputs[slot] if len(node.inputs) > slot else None for slot in (3, 4))
        inputs = [given.numbers, numbers, node.inputs[2], given.scale, scales, mask, given.zero_point, zeros, past]
        return [_made(node, "QAttention", inputs, node.attributes, domain=CONTRIB)]

    def _activation(self, node: onnx_ir.Node) -> _Activation:
        """Return what a node reads, rounded by a node before its first reader."""
        value = node.inputs[0]
        assert value is not None
        assert isinstance(node.graph, onnx_ir.Graph)
        key = (node.graph, value)
        if key not in self._activations:
            name = f"{value.name}_quantize"
            down = onnx_ir.node("DynamicQuantizeLinear", [value], num_outputs=3, name=name)
            for output, what in zip(down.outputs, ("quantized", "scale", "zero_point"), strict=True):
                output.name = f"{value.name}_{what}"
            node.graph.insert_before(node, down)
            self._activations[key] = _Activation(*down.outputs)
        return self._activations[key]


def _recurrent(layer: DynamicLayer, weights: Sequence[Rounded]) -> list[onnx_ir.Node]:
    """Return ONNX Runtime's DynamicQuantizeLSTM, whose weights are [directions, inputs, 4 hidden]."""
    node, numbers = layer.node, list[onnx_ir.Value]()
    inputs = [*node.inputs, *[None] * (_LSTM_INPUTS - len(node.inputs))]
    directions = 2 if node.attributes.get_string("direction", "forward") == "bidirectional" else 1
    for slot, source, weight in zip((1, 2), layer.matrices, weights, strict=True):
        turned = weight.stored.reshape(directions, -1, source.inputs).transpose(0, 2, 1)
        by_direction = (directions, -1) if len(weight.scale) > directions else (directions,)
        scale = weight.scale.reshape(by_direction)
        inputs[slot] = _stored(source, "quantized", turned)
        numbers += [_stored(source, "scale", scale), _stored(source, "zero_point", np.zeros(scale.shape, np.int8))]
    attributes = {name: value for name, value in node.attributes.items() if name != "layout"}
    return [_made(node, "DynamicQuantizeLSTM", [*inputs, *numbers], attributes, domain=CONTRIB)]


def _embedding(layer: DynamicLayer, weight: Rounded) -> list[onnx_ir.Node]:
    """Return a Gather of rows in 8 bits and one of their scales.

    In ONNX Runtime they take as long as the Gather of floats on long inputs; GatherBlockQuantized takes 1.3 times as
    long, and cannot take rows that are no whole blocks.
    """
    node, source, places = layer.node, layer.matrices[0], layer.node.inputs[1]
    rows = _made(node, "Gather", [_stored(source, "quantized", weight.stored), places])
    scales = _made(node, "Gather", [_stored(source, "scale", weight.scale.reshape(-1, 1)), places], what="scale")
    cast = _made(node, "Cast", [rows.outputs[0]], {"to": _FLOAT})
    return [rows, scales, cast, _made(node, "Mul", [cast.outputs[0], scales.outputs[0]])]


def _stored(matrix: Matrix, what: str, array: Array) -> onnx_ir.Value:
    """Return part of a weight as a constant beside what it was made of."""
    return add_weight(matrix.source.graph, weight_value(f"{matrix.source.name}_{what}", array))


def _made(
    node: onnx_ir.Node,
    operator: str,
    inputs: _Given,
    attributes: Mapping[str, onnx_ir.Attr | int] | None = None,
    *,
    what: str = "",
    domain: str = "",
) -> onnx_ir.Node:
    """Return a node that does part of the work of another, or all of it if it is of ONNX Runtime's own."""
    part = f"{operator}.{what}" if what else operator
    count, name = len(node.outputs) if domain else 1, f"{node.name}.{part}"
    made = onnx_ir.node(operator, inputs, dict(attributes or {}), domain=domain, num_outputs=count, name=name)
    for old, new in zip(node.outputs, made.outputs, strict=False):
        new.name = f"{old.name}.{part}"
    return made


def _replace(node: onnx_ir.Node, nodes: Sequence[onnx_ir.Node]) -> None:
    """Put nodes in the place of one, the last of them giving its outputs."""
    graph = node.graph
    assert graph is not None
    graph.insert_before(node, nodes)
    for old, new in zip(node.outputs, nodes[-1].outputs, strict=True):
        new.type, new.shape = old.type, old.shape
        name, old.name = old.name, None
        new.name = name
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _put_bias_second(value: onnx_ir.Value) -> None:
    """Let an Add of a constant to a product read the constant second, where it is taken in as a bias."""
    readers = [reader for reader, _ in value.uses()]
    if len(readers) != 1 or readers[0].op_type != "Add" or readers[0].domain or readers[0].inputs[1] is not value:
        return
    bias = readers[0].inputs[0]
    if constant_tensor(bias) is not None:
        readers[0].replace_input_with(0, value)
        readers[0].replace_input_with(1, bias)
