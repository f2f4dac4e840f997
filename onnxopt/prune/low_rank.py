"""The pass ``factorise-weights``: a layer as two thin ones, with what it makes on samples in view."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import numpy as np
import onnx_ir

from onnxopt.context import Context, Missed, Use, Warned
from onnxopt.data.sample import Array
from onnxopt.errors import PassError, UsageError
from onnxopt.evaluate.gram import Gram
from onnxopt.ir.cleanup import remove_unused
from onnxopt.ir.layer_weights import add_to_bias, bias_place, is_plain_gemm
from onnxopt.ir.quantized import refuse_quantized
from onnxopt.ir.traverse import refuse_unknown
from onnxopt.ir.weights import add_weight, constant_tensor, weight_value
from onnxopt.ir.windows import Window
from onnxopt.passes import Pass, option, options
from onnxopt.prune.groups import find_groups, prepared
from onnxopt.prune.inputs import Read, find_inputs
from onnxopt.prune.separable import WINDOW
from onnxopt.prune.sizes import find_sizes
from onnxopt.prune.thin import Factorable, Ranked, Thinned, choose_ranks, ranks_of_energy

_KEEP = 0.75
_TOLERANCE = 0.03


@options
class FactoriseWeights(Pass):
    """Write layers as two thin ones where what they make on samples allows it, until a budget is kept (DRONE, 2021).

    A convolution becomes one to fewer channels and a pointwise one behind it (arXiv:1505.06798). Ranks are chosen for
    all layers together: the least energy is lost for the multiply-accumulates that are saved. Without data it is the
    energy of weights (arXiv:1404.0736).
    """

    name: ClassVar[str] = "factorise-weights"
    revision: ClassVar[int] = 2
    exact: ClassVar[bool] = False
    uses: ClassVar[frozenset[Use]] = frozenset({"data", "scratch"})
    libraries: ClassVar[tuple[str, ...]] = ("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript")

    keep: float | None = option(
        "share of the multiply-accumulates that is left, above 0 and below 1; 0.75 if neither this nor energy is given",
        default=None,
        gt=0,
        lt=1,
    )
    energy: float | None = option(
        "in place of keep: least share of each layer's energy that its rank must keep", default=None, gt=0, lt=1
    )
    criterion: Literal["auto", "weights", "outputs"] = option(
        "the energy: of weights, of outputs on samples, or auto: of outputs where there is data", default="auto"
    )
    align: int = option("ranks are multiples of it", default=8, ge=1)
    share: bool = option("layers that read the same may share their thin layer", default=True)
    samples: int = option("samples to look at", default=256, ge=1)
    skip: tuple[str, ...] = option("names of nodes to leave as they are", default=())

    def requires(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Refuse models that are quantized, and two budgets."""
        refuse_quantized(graph)
        if self.keep is not None and self.energy is not None:
            raise UsageError("both keep and energy are given", hint="leave one of them out: each tells the ranks")

    def edit(self, graph: onnx_ir.Model, ctx: Context) -> onnx_ir.Model:
        """Return the model with thinner layers; tell which stay as they are."""
        ready = prepared(graph)
        refuse_unknown(self.skip, ready, "to leave as it is")
        groups = find_groups(ready, find_sizes(ready, ctx.data if ctx.has_data else None))
        nodes = [cost for cost in groups.costs if cost.node.name not in self.skip]
        layers = [layer for cost in nodes for layer in _factorable(cost.node, cost.macs)]
        if not layers:
            raise PassError("there is nothing to factorise: no Conv of one group, Gemm or MatMul has a stored weight")
        others = groups.macs - sum(layer.macs for layer in layers)
        ranked = self._ranked(list(self._ways(ready, layers, ctx)), groups.macs, others)
        for thinned, rank in ranked:
            self._apply(thinned, rank, ctx)
        remove_unused(ready)
        left = (others + sum(float(one.cost(np.asarray(rank))) for one, rank in ranked)) / groups.macs
        if self.energy is None and abs(left - (self.keep or _KEEP)) > _TOLERANCE:
            told = f"{left:.0%} of the multiply-accumulates are left, not {self.keep or _KEEP:.0%}"
            ctx.emit(Warned(f"{told}: ranks are multiples of {self.align}, and some layers save nothing"))
        return ready

    def _ranked(self, ways: Sequence[Sequence[Sequence[Thinned]]], macs: float, others: float) -> list[Ranked]:
        if self.energy is not None:
            return ranks_of_energy(ways, self.energy, self.align)
        return choose_ranks(ways, (self.keep or _KEEP) * macs - others, self.align)

    def _ways(self, graph: onnx_ir.Model, layers: Sequence[Factorable], ctx: Context) -> Iterator[list[list[Thinned]]]:
        """Yield the ways to write each set of layers that read the same."""
        alike: dict[object, list[Factorable]] = {}
        for layer in layers:
            alike.setdefault(_key(layer), []).append(layer)
        reads = {_read(some[0]): None for some in alike.values()}
        sets = list(alike.values())
        for seen in self._seen(graph, list(reads), ctx):
            now, sets = _parted(sets, seen)
            yield from (self._of(some, seen[_read(some[0])]) for some in now)
        yield from (self._of(some, None) for some in sets)

    def _seen(self, graph: onnx_ir.Model, reads: Sequence[Read], ctx: Context) -> Iterator[dict[Read, Gram]]:
        if self.criterion == "outputs" or (self.criterion == "auto" and ctx.has_data):
            for found in find_inputs(graph, reads, ctx.data[: self.samples], ctx):
                yield dict(found)

    def _of(self, some: Sequence[Factorable], seen: Gram | None) -> list[list[Thinned]]:
        alone = [Thinned.of([layer], seen) for layer in some]
        return [alone, [Thinned.of(some, seen)]] if self.share and len(some) > 1 else [alone]

    def _apply(self, thinned: Thinned, rank: int, ctx: Context) -> None:
        if rank:
            _split(thinned, rank)
            return
        for layer in thinned.layers:
            name, reason = layer.node.name or "", "as two layers it saves too little for what it loses"
            ctx.emit(Missed(self.name, name, reason, name))


def _factorable(node: onnx_ir.Node, macs: float) -> Iterator[Factorable]:
    kernel = node.inputs[1] if len(node.inputs) > 1 else None
    tensor = constant_tensor(kernel)
    if tensor is None or not tensor.dtype.is_floating_point() or not tensor.size:
        return
    array = tensor.numpy().astype(np.float64)
    has_bias = tensor.dtype == onnx_ir.DataType.FLOAT and bias_place(node) is not None
    if node.op_type == "Conv" and node.attributes.get_int("group", 1) == 1:
        window = Window.of(node, array.shape[2:])
        yield Factorable(node, macs, array.reshape(len(array), -1), window, has_bias)
    elif node.op_type == "MatMul" and array.ndim == 2:
        yield Factorable(node, macs, array.T, None, has_bias)
    elif node.op_type == "Gemm" and node.attributes.get_float("alpha", 1.0) == 1.0:
        matrix = array if node.attributes.get_int("transB", 0) else array.T
        yield Factorable(node, macs, matrix, None, has_bias and is_plain_gemm(node))


def _key(layer: Factorable) -> object:
    """Return what layers have in common that may share a thin one."""
    node, kernel = layer.node, layer.node.inputs[1]
    assert kernel is not None
    if _transposes(node):
        return node
    return layer.input, layer.window, node.op_type, kernel.dtype


def _read(layer: Factorable) -> Read:
    """Return what a layer looks at; of one that transposes what it reads, something that cannot be seen."""
    kernel = layer.node.inputs[1]
    assert kernel is not None
    return Read(kernel if _transposes(layer.node) else layer.input, layer.window, layer.matrix.shape[1])


def _transposes(node: onnx_ir.Node) -> bool:
    """Whether a Gemm reads its rows along the other axis."""
    return node.op_type == "Gemm" and bool(node.attributes.get_int("transA", 0))


def _parted(
    sets: Sequence[list[Factorable]], seen: dict[Read, Gram]
) -> tuple[list[list[Factorable]], list[list[Factorable]]]:
    """Return the sets of layers whose inputs were seen, and the others."""
    now = [some for some in sets if _read(some[0]) in seen]
    return now, [some for some in sets if _read(some[0]) not in seen]


def _split(thinned: Thinned, rank: int) -> None:
    """Put a thin layer before layers, which become as thin as it."""
    thin, wide = thinned.parts(rank)
    lost = (thinned.matrix - wide @ thin) @ thinned.means
    before = _thin_layer(thinned.layers[0], thin)
    start = 0
    for layer in thinned.layers:
        own = slice(start, start + len(layer.matrix))
        _widen(layer, before, wide[own])
        if layer.has_bias and lost[own].any():
            add_to_bias(layer.node, lost[own])
        start = own.stop


def _thin_layer(layer: Factorable, thin: Array) -> onnx_ir.Value:
    """Put the thin layer before a layer; return what it makes."""
    node = layer.node
    assert node.graph is not None
    first = _stored(layer, "thin", thin, None if layer.window is None else layer.window.kernel)
    own = [attribute for name, attribute in node.attributes.items() if name not in ("alpha", "beta")]
    before = onnx_ir.Node("", node.op_type, [node.inputs[0], first], own, name=f"{node.name}_thin")
    before.outputs[0].name = f"{node.outputs[0].name}_thin"
    before.outputs[0].type = node.outputs[0].type
    node.graph.insert_before(node, before)
    return before.outputs[0]


def _widen(layer: Factorable, before: onnx_ir.Value, wide: Array) -> None:
    """Let a layer read what the thin layer makes."""
    node = layer.node
    second = _stored(layer, "wide", wide, None if layer.window is None else (1,) * len(layer.window.kernel))
    node.replace_input_with(0, before)
    node.replace_input_with(1, second)
    for name in WINDOW if node.op_type == "Conv" else ("transA",):
        node.attributes.pop(name, None)


def _stored(layer: Factorable, word: str, part: Array, places: tuple[int, ...] | None) -> onnx_ir.Value:
    """Return a part [outputs, inputs] as a weight in the layout of the layer's."""
    node, kernel = layer.node, layer.node.inputs[1]
    assert kernel is not None
    assert kernel.const_value is not None
    if places is not None:
        part = part.reshape(len(part), -1, *places)
    elif node.op_type == "MatMul" or node.attributes.get_int("transB", 0) == 0:
        part = part.T
    array = part.astype(kernel.const_value.numpy().dtype)
    return add_weight(node.graph, weight_value(f"{kernel.name}_{word}", array))
