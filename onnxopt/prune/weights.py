"""The passes ``prune-weights`` and ``prune-n-m``: numbers of weights become zero, shapes stay."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir

from onnxopt.context import Context, Missed, Use, Warned
from onnxopt.data.sample import Array
from onnxopt.errors import PassError, UsageError, did_you_mean
from onnxopt.ir.layer_weights import Weights, in_parts, weights_of
from onnxopt.ir.quantized import refuse_quantized
from onnxopt.ir.traverse import all_graphs
from onnxopt.ir.windows import Window
from onnxopt.passes import Pass, option, options
from onnxopt.prune.compensation import lost_alone, lost_compensated, refit, remove_in_rounds
from onnxopt.prune.groups import prepared
from onnxopt.prune.inputs import Read, find_inputs
from onnxopt.prune.masks import block_sums, largest, n_of_m, spread_blocks

_PATTERN = re.compile(r"(\d+)x(\d+)")

_TOLERANCE = 0.03
"""By how much of the weights the share may be missed before that is told."""

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN")

_NO_GAIN = (
    "zeros make neither the file smaller nor ONNX Runtime or OpenVINO faster on a CPU: what gains is the compressed"
    " file, and large products on sparse tensor cores, as by TensorRT, where two of four numbers are zero"
)


@dataclass(frozen=True, eq=False)
class LayerWeight:
    """A weight of a layer.

    Attributes:
        value: The initializer.
        axis: That is summed over.
        outputs: Axis of what it makes.
        layer: The weights of the first layer that reads it, where that is a plain one.
    """

    value: onnx_ir.Value
    axis: int
    outputs: int
    layer: Weights | None

    @property
    def name(self) -> str:
        """Of the initializer."""
        return self.value.name or ""

    @property
    def array(self) -> Array:
        """The numbers."""
        assert self.value.const_value is not None
        return self.value.const_value.numpy()

    def outputs_first(self, array: Array) -> Array:
        """Return an array of the weight's shape with the axis of outputs first."""
        return np.moveaxis(array, self.outputs, 0)

    @property
    def read(self) -> Read | None:
        """What its layer reads, if that can be seen."""
        if self.layer is None or self.value.shape is None:
            return None
        node, parts = self.layer.node, self.layer.parts
        source = node.inputs[0]
        assert source is not None
        window = Window.of(node, self.value.shape.numpy()[2:]) if node.op_type == "Conv" else None
        return Read(source, window, parts.shape[2] * parts.shape[3])

    def rows(self, array: Array) -> Array:
        """Return an array of the weight's shape as [groups, outputs, inputs]."""
        assert self.layer is not None
        parts = in_parts(self.layer.node, array)
        return parts.reshape(*parts.shape[:2], -1)

    def layout(self, rows: Array) -> Array:
        """Return what ``rows`` gives in the layout of the weight."""
        assert self.layer is not None
        return self.layer.layout(rows.reshape(self.layer.parts.shape))


@options
class SetToZero(Pass):
    """A pass that sets single weights to zero."""

    exact: ClassVar[bool] = False
    uses: ClassVar[frozenset[Use]] = frozenset({"data", "scratch"})
    revision: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript")

    criterion: Literal["auto", "size", "activation", "reconstruction"] = option(
        "how much a weight matters: its size; what it adds to the output on samples (activation); or what the others of"
        " the output cannot make up for, and then do (reconstruction); auto: the last with samples, size without",
        default="auto",
    )
    samples: int = option("samples to look at", default=256, ge=1)
    skip: tuple[str, ...] = option("names of weights to leave as they are", default=())

    @property
    @abstractmethod
    def share(self) -> float:
        """Share of the weights that are looked at which stays."""

    @abstractmethod
    def stays(self, scores: Mapping[str, Array], found: Mapping[str, LayerWeight]) -> Mapping[str, Array]:
        """Return masks of weights by how much each number matters."""

    @abstractmethod
    def compensated(self, weights: Array, stays: Array, moments: Array) -> Array:
        """Return weights [groups, outputs, inputs] without those that do not stay, the others making up for them."""

    def edit(self, graph: onnx_ir.Model, ctx: Context) -> onnx_ir.Model:
        """Zero what matters least."""
        ready = prepared(graph)
        found = {weight.name: weight for weight in self._weights(ready, ctx)}
        criterion = self.criterion
        if criterion == "auto":
            criterion = "reconstruction" if ctx.has_data else "size"
        stays = self.stays(self._scores(ready, found, criterion, ctx), found)
        kept = sum(int(one.sum()) for one in stays.values()) / max(sum(one.size for one in stays.values()), 1)
        if abs(kept - self.share) > _TOLERANCE:
            ctx.emit(Warned(f"{kept:.0%} of the weights stay, not {self.share:.0%}: what goes together is too large"))
        changed = {name: weight.array * stays[name] for name, weight in found.items() if name in stays}
        if criterion == "reconstruction":
            for weight, moments in self._seen(ready, [found[name] for name in changed], ctx):
                rows = weight.rows(weight.array).astype(np.float64)
                made = self.compensated(rows, weight.rows(stays[weight.name]), moments)
                changed[weight.name] = weight.layout(made)
        for name, array in changed.items():
            _store(found[name].value, array)
        ctx.emit(Warned(_NO_GAIN))
        return ready

    def _scores(
        self, graph: onnx_ir.Model, found: Mapping[str, LayerWeight], criterion: str, ctx: Context
    ) -> dict[str, Array]:
        """Return how much each number matters; of weights nobody sees at work, by its size among them."""
        squares = {name: np.square(weight.array.astype(np.float64)) for name, weight in found.items()}
        if criterion == "size":
            return squares
        scores = {name: one / max(float(one.sum()), 1e-30) for name, one in squares.items()}
        lost = lost_compensated if criterion == "reconstruction" else lost_alone
        unseen = dict(found)
        for weight, moments in self._seen(graph, list(found.values()), ctx):
            del unseen[weight.name]
            scores[weight.name] = weight.layout(lost(weight.rows(weight.array).astype(np.float64), moments))
        for name in unseen:
            ctx.emit(Missed(self.name, name, "what it multiplies is not seen: its size alone counts", name))
        return scores

    def _seen(
        self, graph: onnx_ir.Model, some: Sequence[LayerWeight], ctx: Context
    ) -> Iterator[tuple[LayerWeight, Array]]:
        """Yield weights with the moments of what they multiply, in as many runs over the samples as memory asks for."""
        readers: dict[Read, list[LayerWeight]] = {}
        for weight in some:
            if weight.read is not None:
                readers.setdefault(weight.read, []).append(weight)
        for batch in find_inputs(graph, list(readers), ctx.data[: self.samples], ctx):
            for read, gram in batch.items():
                for weight in readers[read]:
                    yield weight, gram.matrix / gram.rows

    def _weights(self, graph: onnx_ir.Model, ctx: Context) -> Iterator[LayerWeight]:
        """Yield the float weights of layers, each once; tell of layers whose weights are computed.

        Raises:
            UsageError: There is no weight of a name to skip.
            PassError: There are no weights.
        """
        found: dict[onnx_ir.Value, LayerWeight] = {}
        for node in (node for one in all_graphs(graph) for node in one if node.op_type in _LAYERS):
            slots = [slot for slot in _slots(node) if _stored(node, slot)]
            if not slots:
                ctx.emit(Missed(self.name, node.name or "", "its weight is computed", node.name or ""))
            for slot in slots:
                value = node.inputs[slot]
                assert value is not None
                layer = weights_of(node) if slot == 1 and node.graph is graph.graph else None
                found.setdefault(value, LayerWeight(value, *_axes(node, slot), layer))
        known = {value.name for value in found}
        for one in self.skip:
            if one not in known:
                hint = did_you_mean(one, [name for name in known if name])
                raise UsageError(f"there is no weight {one!r} of a layer", hint=hint)
        left = [weight for weight in found.values() if weight.name not in self.skip]
        if not left:
            raise PassError("there is nothing to prune: no layer has float weights")
        yield from left


@options
class PruneWeights(SetToZero):
    """Set the weights of layers that matter least to zero, one by one or in blocks (Han et al., arXiv:1506.02626).

    The file compresses better; no runtime on a CPU is faster for it.
    """

    name: ClassVar[str] = "prune-weights"

    keep: float = option("share of the weights that stays, above 0 and below 1", default=0.5, gt=0, lt=1)
    together: Literal["model", "layer", "output"] = option(
        "model: what matters least in all layers together; layer, output: the same share of each", default="model"
    )
    block: str = option("height x width of what is zeroed as a whole, outputs x inputs", default="1x1")

    @property
    def share(self) -> float:
        """The share that was asked for."""
        return self.keep

    def requires(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Refuse a block that is none, and models that are quantized."""
        refuse_quantized(graph)
        _block(self.block)

    def stays(self, scores: Mapping[str, Array], found: Mapping[str, LayerWeight]) -> Mapping[str, Array]:
        """Return masks that keep the share."""
        size = _block(self.block)
        first = {name: found[name].outputs_first(one) for name, one in scores.items()}
        sums = {name: block_sums(one, *size) for name, one in first.items()}
        return {
            name: np.moveaxis(spread_blocks(one, first[name].shape, *size), 0, found[name].outputs)
            for name, one in self._blocks(sums).items()
        }

    def _blocks(self, sums: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return which blocks stay."""
        if self.together == "model":
            return largest(sums, self.keep)
        if self.together == "layer":
            return {name: largest({name: one}, self.keep)[name] for name, one in sums.items()}
        return {name: n_of_m(one, round(self.keep * one.shape[1]), one.shape[1], 1) for name, one in sums.items()}

    def compensated(self, weights: Array, stays: Array, moments: Array) -> Array:
        """Return weights refitted; single ones go in rounds, each output keeping as many."""
        if _block(self.block) == (1, 1):
            return remove_in_rounds(weights, stays.sum(-1), moments)
        return refit(weights, stays, moments)


@options
class PruneNOfM(SetToZero):
    """Keep n of every m weights that are summed over, as sparse tensor cores want (arXiv:2104.08378)."""

    name: ClassVar[str] = "prune-n-m"

    n: int = option("weights that stay of each m", default=2, ge=1)
    m: int = option("neighbours along what is summed over", default=4, ge=2)

    @property
    def share(self) -> float:
        """As many as the pattern leaves."""
        return self.n / self.m

    def requires(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Refuse a pattern that removes nothing, and models that are quantized."""
        refuse_quantized(graph)
        if self.n >= self.m:
            raise UsageError(f"{self.n} of {self.m} removes nothing", hint="n is smaller than m, such as 2 of 4")

    def _weights(self, graph: onnx_ir.Model, ctx: Context) -> Iterator[LayerWeight]:
        """Yield the weights that sum over enough; tell of the others."""
        for weight in super()._weights(graph, ctx):
            summed = weight.array.shape[weight.axis]
            if summed < self.m:
                reason = f"only {summed} of its weights are summed over"
                ctx.emit(Missed(self.name, weight.name, reason, weight.name))
            else:
                yield weight

    def stays(self, scores: Mapping[str, Array], found: Mapping[str, LayerWeight]) -> Mapping[str, Array]:
        """Return masks that keep the largest of each few."""
        return {name: n_of_m(one, self.n, self.m, found[name].axis) for name, one in scores.items()}

    def compensated(self, weights: Array, stays: Array, moments: Array) -> Array:
        """Return weights refitted."""
        return refit(weights, stays, moments)


def _slots(node: onnx_ir.Node) -> Sequence[int]:
    """Return the inputs of a layer that may be weights."""
    if node.op_type in ("LSTM", "GRU", "RNN"):
        return (1, 2)
    return (1, 0) if node.op_type == "MatMul" else (1,)


def _stored(node: onnx_ir.Node, slot: int) -> bool:
    """Whether an input is a stored float weight."""
    value = node.inputs[slot] if slot < len(node.inputs) else None
    if value is None or value.const_value is None or value.is_graph_input():
        return False
    return value.const_value.dtype.is_floating_point() and len(value.const_value.shape) > 1


def _axes(node: onnx_ir.Node, slot: int) -> tuple[int, int]:
    """Return the axes of a layer's weight that are summed over and made."""
    value = node.inputs[slot]
    assert value is not None
    assert value.const_value is not None
    rank = len(value.const_value.shape)
    match node.op_type:
        case "MatMul":
            return (rank - 2, rank - 1) if slot == 1 else (rank - 1, rank - 2)
        case "Gemm":
            return (1, 0) if node.attributes.get_int("transB", 0) else (0, 1)
        case "ConvTranspose":
            return 0, 1
        case "Conv":
            return 1, 0
        case _:
            return 2, 1


def _store(value: onnx_ir.Value, array: Array) -> None:
    assert value.const_value is not None
    kept = np.ascontiguousarray(array.astype(value.const_value.numpy().dtype))
    value.const_value = onnx_ir.tensor(kept, dtype=value.const_value.dtype, name=value.name)


def _block(text: str) -> tuple[int, int]:
    """Return the height and width of a block.

    Raises:
        UsageError: It is none.
    """
    match = _PATTERN.fullmatch(text.strip())
    if match is None or "0" in match.groups():
        raise UsageError(f"{text!r} is no block", hint="write height x width, such as 1x4 or 4x1")
    return int(match.group(1)), int(match.group(2))
