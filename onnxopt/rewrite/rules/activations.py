"""Activations that exporters took apart, recognised again."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import onnx_ir

from onnxopt.rewrite.reading import Array, constant, number, only_reader, producer, weight, widens, with_number
from onnxopt.rewrite.rule import Miss, Outcome, Replacement, Rule, replaced_by, same

_CLOSE = 1e-6


class HardSigmoid(Rule):
    """Clip(x + 3, 0, 6) / 6, and Clip(x / 6 + 0.5, 0, 1), are HardSigmoid; x * Clip(x + 3, 0, 6) / 6 has one."""

    name: ClassVar[str] = "hard-sigmoid"
    operators: ClassVar[frozenset[str]] = frozenset({"Clip", "Div", "Mul"})
    since: ClassVar[int] = 6

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if slope and offset are constants and the result goes from 0 to 1."""
        if node.op_type == "Clip":
            return self._clipped(node, node, 1.0)
        found = with_number(node)
        source = producer(found[0], "Clip", "Mul") if found else None
        if found is None or source is None or not found[1]:
            return None
        top = found[1] if node.op_type == "Div" else 1 / found[1]
        return self._read_once(source, node, top) if source.op_type == "Clip" else self._gate(source, node, top)

    def _gate(self, product: onnx_ir.Node, node: onnx_ir.Node, top: float) -> Outcome:
        """Match a product that is divided where its second factor might have been."""
        for slot in (0, 1):
            clip = producer(product.inputs[slot], "Clip")
            found = self._read_once(clip, product, top) if clip is not None else None
            if not isinstance(found, Replacement):
                continue
            if not only_reader(product.outputs[0], node):
                return Miss("the product is read elsewhere before it is divided", product)
            made = onnx_ir.node("Mul", [product.inputs[1 - slot], found.values[0]])
            return Replacement((made.outputs[0],), (*found.nodes, made))
        return None

    def _read_once(self, clip: onnx_ir.Node, reader: onnx_ir.Node, top: float) -> Outcome:
        if not only_reader(clip.outputs[0], reader):
            return Miss("what is clipped is read elsewhere too", clip)
        return self._clipped(reader, clip, top)

    def _clipped(self, node: onnx_ir.Node, clip: onnx_ir.Node, top: float) -> Outcome:
        bounds = _bounds(clip)
        if bounds is None or bounds[0] != 0 or not math.isclose(bounds[1], top, rel_tol=_CLOSE):
            return None
        source = clip.inputs[0]
        add = producer(source, "Add")
        shifted = with_number(add)
        if add is None or shifted is None:
            return None
        value, offset = shifted
        scale = producer(value, "Mul", "Div")
        scaled = with_number(scale)
        slope = 1.0
        if scale is not None and scaled is not None and scaled[1] and only_reader(value, add):
            value, slope = scaled[0], scaled[1] if scale.op_type == "Mul" else 1 / scaled[1]
        if not only_reader(add.outputs[0], clip):
            return Miss("what is clipped is read elsewhere too", add)
        return replaced_by("HardSigmoid", [value], {"alpha": slope / top, "beta": offset / top})


class HardSwish(Rule):
    """x * HardSigmoid(x) with slope 1/6 and offset 1/2 is HardSwish (Howard et al. 2019)."""

    name: ClassVar[str] = "hard-swish"
    operators: ClassVar[frozenset[str]] = frozenset({"Mul"})
    since: ClassVar[int] = 14

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if both factors come from the same value."""
        for slot in (0, 1):
            gate = producer(node.inputs[slot], "HardSigmoid")
            if gate is None or gate.inputs[0] is not node.inputs[1 - slot]:
                continue
            slope, offset = gate.attributes.get_float("alpha", 0.2), gate.attributes.get_float("beta", 0.5)
            if not (math.isclose(slope, 1 / 6, rel_tol=_CLOSE) and math.isclose(offset, 0.5, rel_tol=_CLOSE)):
                return Miss(f"its slope {slope:.4g} and offset {offset:.4g} are not 1/6 and 1/2", gate)
            return replaced_by("HardSwish", [gate.inputs[0]])
        return None


class LeakyRelu(Rule):
    """Max(x, a * x) with a between 0 and 1 is LeakyRelu."""

    name: ClassVar[str] = "leaky-relu"
    operators: ClassVar[frozenset[str]] = frozenset({"Max"})
    since: ClassVar[int] = 6

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if both come from the same value and the slope is a constant below 1."""
        if len(node.inputs) != 2:
            return None
        for slot in (0, 1):
            scale = producer(node.inputs[slot], "Mul")
            found = with_number(scale)
            if scale is None or found is None or found[0] is not node.inputs[1 - slot]:
                continue
            if not 0 <= found[1] <= 1:
                return Miss(f"the slope {found[1]:g} is not between 0 and 1", scale)
            return replaced_by("LeakyRelu", [found[0]], {"alpha": found[1]})
        return None


class ClipChain(Rule):
    """Relu and Clip, one after the other, are one Clip; two Relus are one."""

    name: ClassVar[str] = "clip-chain"
    operators: ClassVar[frozenset[str]] = frozenset({"Clip", "Relu"})
    since: ClassVar[int] = 11

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if all bounds are constant."""
        first = producer(node.inputs[0], "Clip", "Relu")
        if first is None:
            return None
        if node.op_type == first.op_type == "Relu":
            return same(first.outputs[0], node)
        before, then = _bounds(first), _bounds(node)
        if before is None or then is None:
            return Miss("a bound is not constant", first if before is None else node)
        if not only_reader(first.outputs[0], node):
            return Miss("what is clipped first is read elsewhere too", first)
        low, high = (min(max(bound, then[0]), then[1]) for bound in before)
        return _clip(first, low, high, node)


class Gelu(Rule):
    """x * 0.5 * (1 + Erf(x / sqrt(2))), and the same with its tanh, is Gelu (Hendrycks and Gimpel 2016)."""

    name: ClassVar[str] = "gelu"
    operators: ClassVar[frozenset[str]] = frozenset({"Mul"})
    since: ClassVar[int] = 20

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire in whatever order the three factors are multiplied."""
        found = gelu_input(node)
        if found is None:
            return None
        value, how = found
        return replaced_by("Gelu", [value], {"approximate": how} if how != "none" else None)


def gelu_input(node: onnx_ir.Node) -> tuple[onnx_ir.Value, str] | None:
    """Return what a Mul is the Gelu of, and the approximation Gelu's attribute names; None if it is none."""
    factors = _factors(node)
    halves = [value for value in factors if number(value) is not None]
    rest = [value for value in factors if number(value) is None]
    if len(rest) != 2 or len(halves) != 1 or widens(halves[0], rest[0]):
        return None
    if not math.isclose(number(halves[0]) or 0.0, 0.5, rel_tol=_CLOSE):
        return None
    for value, other in (rest, rest[::-1]):
        for source, how in ((_erf_source(other), "none"), (_tanh_source(other), "tanh")):
            if source is not None and source is value:
                return value, how
    return None


class Mish(Rule):
    """x * Tanh(Softplus(x)) is Mish (Misra 2019)."""

    name: ClassVar[str] = "mish"
    operators: ClassVar[frozenset[str]] = frozenset({"Mul"})
    since: ClassVar[int] = 18

    def match(self, node: onnx_ir.Node) -> Outcome:
        """Fire if both factors come from the same value."""
        for value, other in (node.inputs, node.inputs[::-1]):
            tanh = producer(other, "Tanh")
            soft = producer(tanh.inputs[0], "Softplus") if tanh is not None else None
            if soft is not None and value is not None and soft.inputs[0] is value:
                return replaced_by("Mish", [value])
        return None


def _factors(node: onnx_ir.Node) -> list[onnx_ir.Value]:
    """Return what a Mul, and a Mul or half that only it reads, multiply."""
    found: list[onnx_ir.Value] = []
    for value in node.inputs:
        inner = producer(value, "Mul")
        if inner is not None and value is not None and only_reader(value, node) and len(found) < 2:
            found += [one for one in inner.inputs if one is not None]
        elif value is not None:
            found.append(value)
    return found


def _erf_source(value: onnx_ir.Value) -> onnx_ir.Value | None:
    """Return x if a value is 1 + Erf(x / sqrt(2)) and nothing else reads the way there."""
    add = producer(value, "Add")
    found = with_number(add)
    erf = producer(found[0], "Erf") if found and math.isclose(found[1], 1.0) else None
    scale = producer(erf.inputs[0], "Div", "Mul") if erf is not None else None
    scaled = with_number(scale)
    if scale is None or scaled is None or not scaled[1]:
        return None
    factor = scaled[1] if scale.op_type == "Mul" else 1 / scaled[1]
    return scaled[0] if math.isclose(factor, math.sqrt(0.5), rel_tol=1e-4) else None


def _tanh_source(value: onnx_ir.Value) -> onnx_ir.Value | None:
    """Return x if a value is 1 + Tanh(sqrt(2 / pi) * (x + 0.044715 * x³))."""
    shifted = with_number(producer(value, "Add"))
    tanh = producer(shifted[0], "Tanh") if shifted and math.isclose(shifted[1], 1.0) else None
    scaled = with_number(producer(tanh.inputs[0], "Mul")) if tanh is not None else None
    if scaled is None or not math.isclose(scaled[1], math.sqrt(2 / math.pi), rel_tol=1e-4):
        return None
    total = producer(scaled[0], "Add")
    for source, other in (total.inputs, total.inputs[::-1]) if total is not None else ():
        cubed = with_number(producer(other, "Mul"))
        if cubed and math.isclose(cubed[1], 0.044715, rel_tol=1e-4) and _is_cube(cubed[0], source):
            return source
    return None


def _is_cube(value: onnx_ir.Value, of: onnx_ir.Value | None) -> bool:
    power = producer(value, "Mul", "Pow")
    if power is None or of is None:
        return False
    if power.op_type == "Pow":
        return with_number(power) == (of, 3.0)
    for one, square in (power.inputs, power.inputs[::-1]):
        inner = producer(square, "Mul")
        if one is of and inner is not None and all(each is of for each in inner.inputs):
            return True
    return False


def _bounds(node: onnx_ir.Node) -> tuple[float, float] | None:
    """Return what a Clip or Relu clips to, infinite where it has no bound; None where one is computed."""
    if node.op_type == "Relu":
        return 0.0, math.inf
    if "min" in node.attributes or "max" in node.attributes:
        return node.attributes.get_float("min", -math.inf), node.attributes.get_float("max", math.inf)
    found = []
    for slot, missing in ((1, -math.inf), (2, math.inf)):
        given = node.inputs[slot] if len(node.inputs) > slot else None
        found.append(missing if given is None else number(given))
    low, high = found
    return None if low is None or high is None else (low, high)


def _clip(first: onnx_ir.Node, low: float, high: float, node: onnx_ir.Node) -> Outcome:
    """Return the Clip, or Relu, that does both."""
    source = first.inputs[0]
    if (low, high) == (0.0, math.inf):
        return replaced_by("Relu", [source])
    like = _like(source)
    if like is None:
        return Miss("the type of what is clipped is not known", first)
    bounds = [
        None if math.isinf(b) else weight(f"{node.name}_{word}", np.array(b), like)
        for b, word in ((low, "min"), (high, "max"))
    ]
    return replaced_by("Clip", [source, *bounds], weights=tuple(bound for bound in bounds if bound is not None))


def _like(value: onnx_ir.Value | None) -> Array | None:
    if value is None or value.dtype is None:
        return None
    held = constant(value)
    return np.empty(0, value.dtype.numpy()) if held is None else held


ACTIVATIONS: tuple[Rule, ...] = (ClipChain(), LeakyRelu(), HardSigmoid(), HardSwish(), Mish(), Gelu())
