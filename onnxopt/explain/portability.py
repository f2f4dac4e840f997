"""Which layers of an 8-bit model compute something else on x86 CPUs without VNNI, whose sums of products saturate.

The model runs on samples in a child, in float between the numbers it rounds to, so that the answer is the same on every
machine; see ``saturation`` for what is simulated on those numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx_ir

from onnxopt.compile.engine import Feeds
from onnxopt.compile.isolation import Child, Limits
from onnxopt.compile.ort import OnnxRuntime
from onnxopt.context import Context, Missed, Progress
from onnxopt.data.sample import Samples
from onnxopt.errors import PassError
from onnxopt.evaluate.collect import write_watched
from onnxopt.explain.saturation import Product, Tally
from onnxopt.ir.model import Model, private_copy
from onnxopt.ir.quant import Array
from onnxopt.ir.weights import constant_tensor
from onnxopt.ir.windows import Window
from onnxopt.targets.machine import processor
from onnxopt.targets.target import local_target

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_SAMPLES = 8
_WORK = 1 << 25
"""Products of a layer that are simulated for a sample, in rows drawn at random."""

_FEWEST_ROWS = 8
_MOST_ROWS = 1024
_LARGEST = 1 << 23
"""Weights of a layer that are looked at: those of some outputs, drawn at random, where there are more."""

_SEED = 0
_LIMITS = Limits(seconds=1800)


@dataclass(frozen=True)
class Saturation:
    """What saturating sums do to a layer.

    Attributes:
        layer: Name of the node.
        operator: Its type.
        share: Of its sums of two products that are cut off.
        sqnr_db: Of the layer's output with them cut off, against without.
        narrow_db: Of the layer's output with 7-bit weights, which never saturate, against 8-bit ones.
        could: Share of its output channels in which some two weights saturate with inputs of 255, in some order.
    """

    layer: str
    operator: str
    share: float
    sqnr_db: float
    narrow_db: float
    could: float


@dataclass(frozen=True)
class Portability:
    """What an 8-bit model does on x86 CPUs without VNNI.

    Attributes:
        layers: Those that multiply uint8 by int8 in pairs, the most disturbed first.
        left: Layers that were not simulated, each with the reason.
        narrow: Names of the layers whose outputs 7-bit weights disturb less than saturation does.
        samples: That were run.
    """

    layers: tuple[Saturation, ...]
    left: tuple[Missed, ...]
    narrow: tuple[str, ...]
    samples: int

    @property
    def saturating(self) -> tuple[Saturation, ...]:
        """The layers in which sums were cut off."""
        return tuple(layer for layer in self.layers if layer.share)


@dataclass(frozen=True, eq=False)
class Multiplied:
    """A layer that multiplies uint8 by int8.

    Attributes:
        node: Its name.
        operator: Its type.
        tensor: Name of the uint8 tensor.
        zero: Its zero point.
        products: One for each group of channels.
        window: Of a convolution; None where rows are multiplied as they lie.
        turned: Whether the tensor is [inputs, rows].
    """

    node: str
    operator: str
    tensor: str
    zero: int
    products: tuple[Product, ...]
    window: Window | None = None
    turned: bool = False

    def tally(self, array: Array, random: np.random.Generator) -> Tally:
        """Return what a tensor of this layer does, or what rows drawn of it do."""
        if not array.size:
            return Tally()
        work = sum(product.weight.size for product in self.products)
        most = min(max(_WORK // max(work, 1), _FEWEST_ROWS), _MOST_ROWS)
        rows = self._rows(array, most, random)
        groups = np.array_split(rows, len(self.products), axis=-1)
        flat = (group.reshape(len(group), -1) for group in groups)
        return sum((p.tally(part, self.zero) for p, part in zip(self.products, flat, strict=True)), Tally())

    def _rows(self, array: Array, most: int, random: np.random.Generator) -> Array:
        if self.window is not None:
            return self.window.rows(array, self.zero, lambda count: _drawn(count, most, random))
        rows = (array.T if self.turned else array).reshape(-1, len(self.products[0].weight))
        return rows[_drawn(len(rows), most, random)]


def find_saturation(model: Model, samples: Samples, ctx: Context) -> Portability:
    """Return which layers of a QDQ model saturate on samples, how much that costs, and what 7-bit weights would.

    Of large layers some rows and some outputs are looked at, drawn with a fixed seed.

    Args:
        model: With QuantizeLinear and DequantizeLinear around what computes in 8 bits.
        samples: The first few are run.
        ctx: Gives ``scratch``; told of progress.

    Raises:
        PassError: No layer reads rounded numbers and a rounded weight.
    """
    graph = private_copy(model.graph)
    layers, left = _find(graph.graph)
    if not layers and not left:
        raise PassError(
            "no layer computes in 8 bits: none reads both its inputs from DequantizeLinear",
            hint="the check is for QDQ models, such as quantize-static makes",
        )
    chosen = samples[:_SAMPLES]
    tallies = _run(graph, layers, chosen, ctx) if layers else []
    found = sorted(map(_judged, layers, tallies), key=lambda one: one.sqnr_db)
    narrow = tuple(one.layer for one in found if one.share and one.sqnr_db < one.narrow_db)
    return Portability(tuple(found), tuple(left), narrow, len(chosen))


@dataclass
class Observer:
    """The child's side: runs samples and tallies each layer."""

    model: str
    layers: list[Multiplied]
    tallies: list[Tally] = field(default_factory=list)

    def __post_init__(self) -> None:
        exact = OnnxRuntime(graph_optimization="basic")  # above it, the runtime's own 8-bit kernels would saturate
        self._engine = exact.compile(Path(self.model), local_target().with_threads(processor().cores))
        self._random = np.random.default_rng(_SEED)
        self.tallies = [Tally() for _ in self.layers]

    def add(self, feeds: Feeds) -> None:
        """Run one sample and tally it."""
        results = {**feeds, **self._engine.run(feeds)}
        for index, layer in enumerate(self.layers):
            self.tallies[index] += layer.tally(results[layer.tensor], self._random)


def _run(graph: onnx_ir.Model, layers: list[Multiplied], samples: Samples, ctx: Context) -> list[Tally]:
    wanted = {layer.tensor for layer in layers}
    watched = [value for node in graph.graph for value in node.outputs if value.name in wanted]
    model = write_watched(graph, watched, ctx.scratch)
    with Child(_LIMITS) as child:
        child.make("onnxopt.explain.portability:Observer", str(model), layers)
        for index, sample in enumerate(samples):
            child.call("add", dict(sample.feeds))
            ctx.emit(Progress("looking for sums that saturate", index + 1, len(samples)))
        tallies: list[Tally] = child.attribute("tallies")
    return tallies


def _judged(layer: Multiplied, tally: Tally) -> Saturation:
    outputs = sum(product.weight.shape[1] for product in layer.products)
    could = sum(product.could for product in layer.products) / max(outputs, 1)
    decibels = (tally.sqnr_db(tally.cut_noise), tally.sqnr_db(tally.narrow_noise))
    return Saturation(layer.node, layer.operator, tally.share, *decibels, could)


def _find(graph: onnx_ir.Graph) -> tuple[list[Multiplied], list[Missed]]:
    """Return the layers that multiply uint8 by int8, and those that read rounded numbers and are not simulated."""
    layers, left, random = [], [], np.random.default_rng(_SEED)
    for node in graph:
        if node.op_type not in _LAYERS or node.domain not in ("", "ai.onnx"):
            continue
        ups = [value.producer() if value is not None else None for value in node.inputs[:2]]
        numbers, weight = (up if up is not None and up.op_type == "DequantizeLinear" else None for up in ups)
        if numbers is None or weight is None:
            continue
        reason = _obstacle(node, numbers, weight)
        if reason is None:
            layers.append(_multiplied(node, numbers, weight, random))
        else:
            left.append(Missed("saturation", node.name or "", reason, node.name or ""))
    return layers, left


def _obstacle(node: onnx_ir.Node, numbers: onnx_ir.Node, weight: onnx_ir.Node) -> str | None:
    """Return why a layer is not simulated."""
    stored = constant_tensor(weight.inputs[0])
    if constant_tensor(numbers.inputs[0]) is not None or stored is None:
        return "only products with a weight on the right are simulated"
    kinds = _kind(numbers), _kind(weight)
    if kinds != ("uint8", "int8"):
        return f"it multiplies {kinds[0]} by {kinds[1]}: only uint8 by int8 is added in an int16"
    if node.op_type == "ConvTranspose" or (node.op_type != "Conv" and len(stored.shape) != 2):
        return f"{node.op_type} with a weight of rank {len(stored.shape)} is not simulated"
    if node.op_type == "Conv" and stored.shape[1] == 1 and stored.shape[0] == _groups(node):
        return "it looks at each channel alone, which kernels add in an int32"
    scale = constant_tensor(weight.inputs[1])
    if scale is None or scale.size not in (1, _outputs(node, stored.numpy()).shape[0]):
        return "its weight has other scales than one for each output"
    return None


def _groups(node: onnx_ir.Node) -> int:
    return int(node.attributes.get_int("group", 1)) if node.op_type == "Conv" else 1


def _kind(up: onnx_ir.Node) -> str:
    """Return the stored type of what a DequantizeLinear reads; without a zero point it is what the tensor says."""
    zero = constant_tensor(up.inputs[2]) if len(up.inputs) > 2 else None
    own = constant_tensor(up.inputs[0])
    if zero is not None or own is not None:
        return (zero or own).dtype.name.lower()  # type: ignore[union-attr]
    dtype = up.inputs[0].dtype if up.inputs[0] is not None else None
    return "uint8" if dtype is None else dtype.name.lower()


def _outputs(node: onnx_ir.Node, weight: Array) -> Array:
    """Return a weight as [outputs, inputs...], what a kernel goes along last."""
    if node.op_type == "Conv":
        return np.moveaxis(weight, 1, -1)
    return weight if node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1 else weight.T


def _multiplied(
    node: onnx_ir.Node, numbers: onnx_ir.Node, weight: onnx_ir.Node, random: np.random.Generator
) -> Multiplied:
    stored = constant_tensor(weight.inputs[0])
    value, zero = numbers.inputs[0], constant_tensor(numbers.inputs[2]) if len(numbers.inputs) > 2 else None
    assert stored is not None
    assert value is not None
    value.dtype = onnx_ir.DataType.UINT8  # an output of a model has a type
    rows = _outputs(node, stored.numpy())
    scale, middle = (np.broadcast_to(part, len(rows)) for part in _numbers(weight))
    groups = _groups(node)
    products = tuple(
        _product(*part, most=_LARGEST // groups, random=random)
        for part in zip(*(np.array_split(one, groups) for one in (rows, scale, middle)), strict=True)
    )
    made = Multiplied(
        node.name or "", node.op_type, value.name or "", int(zero.numpy().item()) if zero is not None else 0, products
    )
    if node.op_type == "Conv":
        return replace(made, window=Window.of(node, stored.shape.numpy()[2:]))
    return replace(made, turned=node.op_type == "Gemm" and node.attributes.get_int("transA", 0) == 1)


def _numbers(up: onnx_ir.Node) -> Iterator[Array]:
    """Yield scale and zero point of a weight, each of one number or one for each output."""
    scale, zero = constant_tensor(up.inputs[1]), constant_tensor(up.inputs[2]) if len(up.inputs) > 2 else None
    assert scale is not None
    yield scale.numpy().astype(np.float32).reshape(-1)
    yield np.zeros(1, np.int8) if zero is None else zero.numpy().reshape(-1)


def _product(rows: Array, scale: Array, zero: Array, *, most: int, random: np.random.Generator) -> Product:
    """Return the product with [outputs, inputs...] weights, or with as many of them as may be looked at."""
    flat = rows.reshape(len(rows), -1)
    kept = _drawn(len(flat), max(1, most // max(flat.shape[1], 1)), random)
    return Product(np.ascontiguousarray(flat[kept].T), scale[kept], zero[kept])


def _drawn(count: int, most: int, random: np.random.Generator) -> Array:
    """Return the numbers below a count, or as many of them as may be, drawn at random, in order."""
    if count <= most:
        return np.arange(count)
    return np.sort(random.choice(count, most, replace=False, shuffle=False))
