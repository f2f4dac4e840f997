"""What reads weights in blocks: nodes of ONNX Runtime's own, or the standard DequantizeLinear."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir

from onnxopt.ir.quant import Array
from onnxopt.ir.weights import add_weight, constant_tensor, weight_value
from onnxopt.quantize.blocks import Blocks, packed

CONTRIB = "com.microsoft"


class BlockWriter:
    """Puts what reads a weight in blocks in the place of a node, in place."""

    def __init__(self, node: onnx_ir.Node, accuracy_level: int = 4) -> None:
        self._node = node
        self._accuracy_level = accuracy_level

    def product(self, blocks: Blocks, inputs: int) -> None:
        """Replace a MatMul or Gemm by MatMulNBits; ``inputs`` is the number of columns before padding."""
        outputs, count = blocks.scale.shape
        numbers = packed(blocks.stored.reshape(outputs, count, blocks.block), blocks.bits)
        given = [self._node.inputs[0], self._constant("quantized", numbers), self._constant("scales", blocks.scale)]
        if blocks.zero_point is not None:
            given.append(self._constant("zero_points", packed(blocks.zero_point, blocks.bits)))
        how = {"K": inputs, "N": outputs, "bits": blocks.bits, "block_size": blocks.block}
        made = self._made("MatMulNBits", given, {**how, "accuracy_level": self._accuracy_level}, CONTRIB)
        bias = self._node.inputs[2] if self._node.op_type == "Gemm" and len(self._node.inputs) > 2 else None
        self._replace([made] if bias is None else [made, self._made("Add", [made.outputs[0], bias], {})])

    def embedding(self, blocks: Blocks) -> None:
        """Replace a Gather of rows by GatherBlockQuantized."""
        numbers = packed(blocks.stored, blocks.bits)
        given = [self._constant("quantized", numbers), self._node.inputs[1], self._constant("scales", blocks.scale)]
        if blocks.zero_point is not None:
            given.append(self._constant("zero_points", packed(blocks.zero_point, blocks.bits)))
        how = {"gather_axis": 0, "quantize_axis": 1, "block_size": blocks.block, "bits": blocks.bits}
        self._replace([self._made("GatherBlockQuantized", given, how, CONTRIB)])

    def standard(self, blocks: Blocks, slot: int, *, turned: bool) -> None:
        """Let the node read the weight from a DequantizeLinear, behind a Transpose where it wants it turned."""
        kind = onnx_ir.DataType.UINT4 if blocks.bits == 4 else onnx_ir.DataType.UINT8
        given = [
            self._constant("quantized", blocks.stored.astype(kind.numpy())),
            self._constant("scales", blocks.scale),
        ]
        middle = np.full(blocks.scale.shape, 1 << blocks.bits - 1)
        zero = middle if blocks.zero_point is None else blocks.zero_point
        given.append(self._constant("zero_points", zero.astype(kind.numpy())))
        up = self._made("DequantizeLinear", given, {"axis": 1, "block_size": blocks.block})
        made = [up, self._made("Transpose", [up.outputs[0]], {"perm": [1, 0]})] if turned else [up]
        assert self._node.graph is not None
        self._node.graph.insert_before(self._node, made)
        self._node.replace_input_with(slot, made[-1].outputs[0])

    def _made(self, operator: str, inputs: Any, attributes: dict[str, Any], domain: str = "") -> onnx_ir.Node:
        return onnx_ir.node(operator, inputs, attributes, domain=domain, name=f"{self._node.name}.{operator}")

    def _replace(self, nodes: list[onnx_ir.Node]) -> None:
        graph, old = self._node.graph, self._node.outputs[0]
        assert graph is not None
        new = nodes[-1].outputs[0]
        graph.insert_before(self._node, nodes)
        new.type, new.shape = old.type, old.shape
        name, old.name = old.name, None
        new.name = name
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        graph.remove(self._node, safe=True)

    def _constant(self, what: str, array: Array) -> onnx_ir.Value:
        return add_weight(self._node.graph, weight_value(f"{self._node.name}.{what}", np.ascontiguousarray(array)))


def share_embeddings(graph: onnx_ir.Model) -> None:
    """Let embeddings read the numbers of products that store the same ones, as of a head tied to its embedding.

    The two operators want them in other shapes, so that a Reshape stands between, which runtimes fold on loading.
    """
    products = list(_stored(graph, "MatMulNBits", 1))
    for node, numbers in _stored(graph, "GatherBlockQuantized", 0):
        for product, same in products:
            if same.size == numbers.size and np.array_equal(same.reshape(-1), numbers.reshape(-1)):
                _read_reshaped(node, product.inputs[1], numbers.shape)
                break


def _stored(graph: onnx_ir.Model, operator: str, slot: int) -> Iterator[tuple[onnx_ir.Node, Array]]:
    for node in list(graph.graph):
        tensor = constant_tensor(node.inputs[slot]) if node.op_type == operator else None
        if tensor is not None:
            yield node, tensor.numpy()


def _read_reshaped(node: onnx_ir.Node, value: onnx_ir.Value | None, shape: tuple[int, ...]) -> None:
    assert node.graph is not None
    wanted = add_weight(node.graph, weight_value(f"{node.name}.shape", np.asarray(shape, np.int64)))
    made = onnx_ir.node("Reshape", [value, wanted], name=f"{node.name}.Reshape")
    made.outputs[0].type = onnx_ir.TensorType(onnx_ir.DataType.UINT8)
    made.outputs[0].shape = onnx_ir.Shape(shape)
    node.graph.insert_before(node, made)
    node.replace_input_with(0, made.outputs[0])
