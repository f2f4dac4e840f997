"""The pass ``quantize-weights``: weights of 4 or 8 bits in blocks, activations in float."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import onnx_ir

from onnxopt.context import Context, Missed, Progress, Use
from onnxopt.errors import PassError
from onnxopt.evaluate.gram import find_grams
from onnxopt.ir.cleanup import freeze_weights, lift_constants, merge_equal_weights, remove_unused
from onnxopt.ir.layer_weights import is_plain_gemm
from onnxopt.ir.model import normalise, private_copy
from onnxopt.ir.opset import convert
from onnxopt.ir.quant import Array, Scheme
from onnxopt.ir.quantized import refuse_quantized
from onnxopt.ir.shapes import infer_shapes
from onnxopt.ir.weights import Weight, weights
from onnxopt.passes import Pass, option, options
from onnxopt.quantize.awq import divide, find_scales, scalable
from onnxopt.quantize.block_nodes import CONTRIB, BlockWriter, share_embeddings
from onnxopt.quantize.blocks import block_scheme, padded
from onnxopt.quantize.prepare import refuse_without
from onnxopt.quantize.roundings import USING_SAMPLES, Rounding, to_blocks

_BLOCKED_OPSET = 21
"""The first opset whose DequantizeLinear reads blocks, and that has numbers of 4 bits."""

_WORTH_ELEMENTS = 4096
"""Smaller weights save less than their scales and the node's overhead cost."""

_LAST = frozenset({"Add", "Cast", "Div", "Identity", "LogSoftmax", "Mul", "Softmax", "Tanh"})
"""What may stand between the last product and an output."""


@dataclass(frozen=True)
class _Chosen:
    """A weight that will be rounded, and how."""

    weight: Weight
    scheme: Scheme

    @property
    def node(self) -> onnx_ir.Node:
        """What reads it."""
        return self.weight.consumer

    @cached_property
    def array(self) -> Array:
        """[outputs, inputs]; of an embedding [rows, columns]."""
        return _by_outputs(self.weight)


@options
class QuantizeWeights(Pass):
    """Store the weights of MatMul, Gemm and Gather in 4 or 8 bits, a scale a block: for large language models."""

    name: ClassVar[str] = "quantize-weights"
    revision: ClassVar[int] = 2
    uses: ClassVar[frozenset[Use]] = frozenset({"data", "scratch"})
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "onnx-ir", "onnxscript", "onnxruntime", "scipy")
    exact: ClassVar[bool] = False

    runtime: Literal["ort", "openvino"] = option(
        "ort: its own MatMulNBits and GatherBlockQuantized; openvino: the standard DequantizeLinear of opset 21",
        default="ort",
    )
    bits: Literal[4, 8] = option("of a weight", default=4)
    head_bits: Literal[4, 8] = option("of the weights that outputs come from, which suffer most", default=8)
    embedding_bits: Literal[4, 8] = option("of an embedding's numbers", default=8)
    block: Literal[16, 32, 64, 128] = option("inputs that share a scale", default=32)
    symmetric: bool = option(
        "zero in the middle of each block's range, so that no zero points are stored", default=False
    )
    rounding: Literal["auto", "nearest", "clipped", "hqq", "gptq", "awq"] = option(
        "of 4 bits. nearest: to the nearest number; clipped: after cutting off what costs less than it disturbs; hqq:"
        " outliers left out of account; gptq, awq: by what weights multiply on the calibration samples; auto: gptq"
        " where there are samples, hqq where there are none",
        default="auto",
    )
    samples: int = option("calibrate on at most so many samples", default=128, ge=1)
    accuracy_level: Literal[0, 4] = option(
        "of MatMulNBits. 4: activations in 8 bits by block, several times faster on CPUs with VNNI; 0: in float",
        default=4,
    )
    skip: tuple[str, ...] = option("names of nodes to leave in float", default=())

    @classmethod
    def rules(cls) -> Mapping[str, str]:
        """Return the pass itself: it tells of each weight it leaves in float, and why."""
        return {cls.name: inspect.getdoc(cls) or ""}

    def requires(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Refuse models that are quantized already, or have nothing to quantize."""
        refuse_quantized(graph)
        refuse_without(graph, frozenset({"MatMul", "Gemm", "Gather"}))

    def edit(self, graph: onnx_ir.Model, ctx: Context) -> onnx_ir.Model:
        """Return the model with its large weights in blocks; tell which stay as they are, and why."""
        freeze_weights(graph)
        if self.runtime == "openvino" and graph.opset_imports.get("", 0) < _BLOCKED_OPSET:
            graph = convert(graph, _BLOCKED_OPSET)
        lift_constants(graph)
        infer_shapes(graph)
        normalise(graph)
        chosen = list(self._chosen(graph, ctx))
        if not chosen:
            raise PassError("there is nothing to quantize: no MatMul, Gemm or Gather reads a large float weight")
        self._round_all(graph, chosen, ctx)
        if self.runtime == "ort":
            graph.opset_imports[CONTRIB] = 1
            share_embeddings(graph)
        merge_equal_weights(graph)
        remove_unused(graph)
        return graph

    def _chosen(self, graph: onnx_ir.Model, ctx: Context) -> Iterable[_Chosen]:
        """Yield the weights to round; tell which stay as they are, and why."""
        reachable = {graph.graph, *graph.graph.subgraphs()}
        for weight in list(weights(graph)):
            reason = _obstacle(weight) or self._refusal(weight)
            if reason is None and weight.consumer.graph not in reachable:
                reason = "it is in a function; rewrite the model first"
            if reason is None:
                scheme = block_scheme(self._bits(weight.consumer), self.block, symmetric=self.symmetric)
                yield _Chosen(weight, scheme)
            elif reason != _NO_WEIGHT:
                ctx.emit(Missed(self.name, weight.consumer.name or "", reason, weight.consumer.name or ""))

    def _bits(self, node: onnx_ir.Node) -> int:
        if node.op_type == "Gather":
            return self.embedding_bits
        return self.head_bits if self.bits == 4 and _makes_an_output(node) else self.bits

    def _rounding(self, ctx: Context) -> Rounding:
        if self.rounding == "auto":
            return "gptq" if ctx.has_data and not ctx.data.synthetic else "hqq"
        return self.rounding

    def _round_all(self, graph: onnx_ir.Model, chosen: Sequence[_Chosen], ctx: Context) -> None:
        """Round weights in place: those that samples decide over by what they multiply, the others as they are."""
        rounding = self._rounding(ctx)
        groups = _by_input(graph, chosen) if rounding in USING_SAMPLES else {}
        before = private_copy(graph) if groups else graph
        watched = {one.node for group in groups.values() for one in group}
        for one in chosen:
            if one.node not in watched:
                self._write(one, one.array, rounding)
                if groups and one.scheme.dtype == "uint4":
                    ctx.emit(Missed(self.name, one.node.name or "", _UNSEEN, one.node.name or ""))
        if groups:
            self._round_groups(before, groups, rounding, ctx)

    def _round_groups(
        self, before: onnx_ir.Model, groups: Mapping[str, Sequence[_Chosen]], rounding: Rounding, ctx: Context
    ) -> None:
        """Round weights by what they multiply in the float model."""
        made = (value for node in before.graph for value in node.outputs)
        known = {value.name: value for value in (*before.graph.inputs, *made)}
        tensors = [(known[name], group[0].array.shape[1]) for name, group in groups.items()]
        done = 0
        for grams in find_grams(before, tensors, ctx.data[: self.samples], ctx):
            for name, gram in grams.items():
                self._round_group(groups[name], rounding, gram, ctx)
                done += 1
                ctx.emit(Progress("rounding", done, len(groups)))

    def _round_group(self, group: Sequence[_Chosen], rounding: Rounding, gram: Array, ctx: Context) -> None:
        """Round the weights that multiply a tensor."""
        value = group[0].node.inputs[0]
        assert value is not None
        scales = np.ones(len(gram), np.float32)
        reason = scalable(value, [one.node for one in group]) if rounding == "awq" else None
        if reason is not None:
            ctx.emit(Missed(self.name, group[0].node.name or "", reason, group[0].node.name or ""))
        elif rounding == "awq":
            arrays = [padded(one.array, self.block) for one in group]
            scales = find_scales(arrays, group[0].scheme, np.pad(gram, (0, -len(gram) % self.block)))[: len(gram)]
            divide(value, scales)
        for one in group:
            self._write(one, one.array * scales, rounding, gram / np.outer(scales, scales))

    def _refusal(self, weight: Weight) -> str | None:
        """Return why these options leave a weight as it is."""
        if weight.consumer.name in self.skip:
            return "it was asked to be left"
        whole = self.runtime == "openvino" or weight.consumer.op_type == "Gather"
        if whole and _by_outputs(weight).shape[1] % self.block:
            return f"its {_by_outputs(weight).shape[1]} columns are no whole blocks of {self.block}"
        return None

    def _write(self, one: _Chosen, array: Array, rounding: Rounding, gram: Array | None = None) -> None:
        blocks = to_blocks(array, one.scheme, rounding, gram)
        writer = BlockWriter(one.node, self.accuracy_level)
        if self.runtime == "openvino":
            writer.standard(blocks, one.weight.slot, turned=_is_turned(one.node))
        elif one.node.op_type == "Gather":
            writer.embedding(blocks)
        else:
            writer.product(blocks, array.shape[1])


_NO_WEIGHT = "it is no weight"
_UNSEEN = "it is rounded without samples: what it multiplies is not seen outside a branch, or it is an embedding"


def _obstacle(weight: Weight) -> str | None:
    """Return why a weight stays as it is."""
    node, tensor = weight.consumer, weight.tensor
    slots = {"MatMul": 1, "Gemm": 1, "Gather": 0}
    if node.domain not in ("", "ai.onnx") or slots.get(node.op_type) != weight.slot:
        return _NO_WEIGHT
    if tensor.dtype != onnx_ir.DataType.FLOAT or len(tensor.shape) != 2:
        return f"its weight is {tensor.dtype.name.lower()} of rank {len(tensor.shape)}"
    if tensor.size < _WORTH_ELEMENTS:
        return f"its weight has {tensor.size} elements: too few to be worth it"
    if any(view.op_type not in ("Transpose", "Identity") for view in weight.views):
        return f"its weight lies behind {weight.views[-1].op_type}"
    if node.op_type == "Gather" and node.attributes.get_int("axis", 0) != 0:
        return "it gathers along another axis than the first"
    if node.op_type == "Gemm" and not is_plain_gemm(node):
        return "its product or its bias is scaled"
    return None


def _by_outputs(weight: Weight) -> Array:
    """Return a weight, as it is behind Transpose nodes, as [outputs, inputs]; an embedding as [rows, columns]."""
    array = weight.tensor.numpy()
    for view in weight.views:
        if view.op_type == "Transpose":
            order = view.attributes.get("perm")
            array = array.transpose(None if order is None else order.as_ints())
    return array.T if _is_turned(weight.consumer) else array


def _is_turned(node: onnx_ir.Node) -> bool:
    """Whether a node reads its weight as [inputs, outputs]."""
    return node.op_type == "MatMul" or (node.op_type == "Gemm" and not node.attributes.get_int("transB", 0))


def _makes_an_output(node: onnx_ir.Node) -> bool:
    """Whether a product is the last before an output, but for a bias and the like."""
    value = node.outputs[0]
    while not value.is_graph_output():
        readers = [use.node for use in value.uses()]
        if len(readers) != 1 or readers[0].op_type not in _LAST:
            return False
        value = readers[0].outputs[0]
    return True


def _by_input(graph: onnx_ir.Model, chosen: Iterable[_Chosen]) -> dict[str, list[_Chosen]]:
    """Return the products of 4 bits of the main graph, whose inputs can be watched, by what they multiply.

    That is told by its name, which outlives its being made by another node.
    """
    groups: dict[str, list[_Chosen]] = {}
    for one in chosen:
        value = one.node.inputs[0]
        watched = one.node.op_type != "Gather" and one.node.graph is graph.graph and one.scheme.dtype == "uint4"
        if watched and value is not None and (value.producer() is not None or value.is_graph_input()):
            groups.setdefault(value.name or "", []).append(one)
    return groups
