"""The passes ``cast-float16`` and ``cast-bfloat16``: sixteen bits for weights alone, or for computing as well."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

import onnx_ir

from onnxopt.context import Context, Missed, Use
from onnxopt.errors import PassError
from onnxopt.ir.cleanup import freeze_weights, lift_constants, remove_unused
from onnxopt.ir.quantized import refuse_quantized
from onnxopt.ir.shapes import infer_shapes
from onnxopt.ir.traverse import all_graphs
from onnxopt.passes import Pass, option, options
from onnxopt.quantize.cast_nodes import Caster, fits, insert_first, obstacles, register
from onnxopt.quantize.cast_ranges import REACH, find_extremes, float_tensors
from onnxopt.quantize.masks import soften_masks

COORDINATES = ("Range", "Resize", "Upsample")
"""Operators whose results depend on exact coordinates, so that sixteen bits change more than rounding."""

SEEDED = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
"""Operators whose results are others in another type."""

SUMS = (
    "CumSum",
    "InstanceNormalization",
    "LogSoftmax",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMean",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "Softmax",
)
"""Operators that add up many numbers: past 2048 a float16 sum takes in no 1 more, past 256 a bfloat16 one.

Micikevicius et al., Mixed Precision Training (arXiv:1710.03740, section 3.3) do large reductions in float32, and so
does PyTorch's autocast with softmax, the norms, sum, prod and cumsum. LayerNormalization is not here, because ONNX
makes it compute mean and deviation in float32 (stash_type, opset 17), nor are products, whose sums runtimes keep in
float32."""

KEPT = (*COORDINATES, *SEEDED, *SUMS)

_WORTH_BYTES = 1024
"""Smaller weights stay as they are in storage mode: a Cast node costs more than it saves."""


@options
class _Cast(Pass):
    revision: ClassVar[int] = 3
    uses: ClassVar[frozenset[Use]] = frozenset({"data", "scratch"})
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "onnx-ir", "onnxruntime")
    exact: ClassVar[bool] = False

    mode: Literal["storage", "compute"] = option(
        "storage: weights only, the runtime computes in float32; compute: operators too, where ONNX defines them",
        default="storage",
    )
    keep: tuple[str, ...] = option("operator types or node names that stay in float32", default=KEPT)
    samples: int = option(
        "look for numbers that do not fit on at most so many samples, where there are any", default=64, ge=1
    )

    @classmethod
    def rules(cls) -> Mapping[str, str]:
        """Return the pass itself: it tells of each node it leaves in float32, and why."""
        return {cls.name: inspect.getdoc(cls) or ""}

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
            self._compute(graph, ctx)
        remove_unused(graph)

    def _compute(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Move what the type is defined for and holds the numbers of; tell of the rest."""
        soften_masks(graph, REACH[self.target].largest)
        infer_shapes(graph)
        left = obstacles(graph, self.target, self.keep)
        chosen = [node for node in graph.graph if float_tensors(node) and node not in left]
        if ctx.has_data and not ctx.data.synthetic and chosen:
            left |= find_extremes(graph, chosen, self.target, ctx.data[: self.samples], ctx)
        for node, reason in left.items():
            ctx.emit(Missed(self.name, node.name or "", reason, node.name or ""))
        Caster(graph.graph, self.target).move([node for node in chosen if node not in left])


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
            if fits(tensor, target) and not value.is_graph_output():
                stored = register(one, f"{value.name}_{target.name.lower()}", tensor, target)
                cast = onnx_ir.node("Cast", [stored], {"to": int(onnx_ir.DataType.FLOAT)}, name=f"{value.name}_cast")
                insert_first(one, cast)
                value.replace_all_uses_with(cast.outputs[0])
