"""How far a model's outputs are from a reference, scaled so that tiny outputs count as much as large ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxopt.errors import VerificationError

Array = np.ndarray[Any, Any]

EXACT_DB = 200.0
"""Reported where nothing differs; double precision holds no more."""

_MOST_PARTS = 4096
_SMALL_RANGE = 1e-3
"""A part of an output whose range is below this share of the output's is not looked at alone: a class that never occurs
has scores near zero, and noise in them does no harm."""


@dataclass(frozen=True, slots=True)
class PartDrift:
    """One slice of an output over all samples: an index along an axis, and its SQNR in dB."""

    axis: int
    index: int
    sqnr_db: float


@dataclass(frozen=True, slots=True)
class OutputDrift:
    """Drift of one output over all samples.

    Attributes:
        name: The output.
        sqnr_db: 10 log10 of the reference's variance over the mean squared error, for float outputs; the mean
            is taken out, because a large constant would hide any error.
        max_error: Largest absolute error divided by the reference's standard deviation, for float outputs.
        cosine: Cosine similarity of all values taken together, for float outputs.
        agreement: Share of equal values (integers, booleans, strings), or of equal argmax over the last axis
            longer than one (floats), None where there is no such axis.
        nonfinite: Values that are NaN or infinite on one side only.
        constant: Whether the reference never varied, so that agreement proves little.
        elements: Values compared.
        decisive: Whether the reference's decisions differ, so that a model that always says the same would show.
        worst_part: Lowest SQNR of a part (a channel, a coordinate, a class), where the output has parts.
    """

    name: str
    sqnr_db: float | None
    max_error: float | None
    cosine: float | None
    agreement: float | None
    nonfinite: int
    constant: bool
    elements: int
    decisive: bool = True
    worst_part: PartDrift | None = None


@dataclass(frozen=True, slots=True)
class Drift:
    """Drift of every output."""

    outputs: tuple[OutputDrift, ...]

    @property
    def sqnr_db(self) -> float | None:
        """The lowest of the float outputs that vary; None if there is none."""
        found = [o.sqnr_db for o in self.outputs if o.sqnr_db is not None and not o.constant]
        return min(found, default=None)

    @property
    def agreement(self) -> float | None:
        """The lowest of all outputs that have one."""
        return min((o.agreement for o in self.outputs if o.agreement is not None), default=None)


class _Parts:
    """Running sums of each slice of an output along one axis; boxes of hundreds would hide scores below one."""

    def __init__(self, axis: int, count: int) -> None:
        self.axis = axis
        self.elements = 0
        self.sums = np.zeros((3, count))
        self.lowest, self.highest = np.full(count, np.inf), np.full(count, -np.inf)

    def add(self, reference: Array, error: Array) -> None:
        a, e = (np.moveaxis(array, self.axis, 0).reshape(len(self.lowest), -1) for array in (reference, error))
        self.elements += a.shape[1]
        self.sums += np.stack([a.sum(1), np.square(a).sum(1), np.square(e).sum(1)])
        self.lowest, self.highest = np.minimum(self.lowest, a.min(1)), np.maximum(self.highest, a.max(1))

    def merge(self, other: _Parts) -> None:
        self.elements += other.elements
        self.sums += other.sums
        self.lowest = np.minimum(self.lowest, other.lowest)
        self.highest = np.maximum(self.highest, other.highest)

    def fits(self, other: _Parts) -> bool:
        return (self.axis, len(self.lowest)) == (other.axis, len(other.lowest))

    def worst(self) -> PartDrift | None:
        total, power, noise = self.sums
        signal = np.maximum(power - total**2 / max(self.elements, 1), 0.0)
        least = _SMALL_RANGE * (self.highest.max() - self.lowest.min())
        told = [i for i, span in enumerate(self.highest - self.lowest) if span > least]
        found = [PartDrift(self.axis, i, _decibel(float(signal[i]), float(noise[i]))) for i in told]
        return min(found, key=lambda part: part.sqnr_db, default=None)


@dataclass(slots=True)
class _Meter:
    """Running sums of one output."""

    name: str
    is_float: bool = True
    elements: int = 0
    total: float = 0.0
    power: float = 0.0
    other_power: float = 0.0
    product: float = 0.0
    noise: float = 0.0
    largest: float = 0.0
    lowest: float = math.inf
    highest: float = -math.inf
    nonfinite: int = 0
    same: int = 0
    decisions: int = 0
    kinds: set[bytes] = field(default_factory=set)
    choices: set[int] = field(default_factory=set)
    parts: _Parts | None = None
    uneven: bool = False

    def add(self, reference: Array, value: Array) -> None:
        if reference.shape != value.shape:
            raise VerificationError(
                f"output {self.name!r} has the shape {list(value.shape)}, it was {list(reference.shape)}",
                hint="the model no longer handles this input size",
            )
        self.is_float = is_float(reference)
        if self.is_float:
            self._add_floats(reference, value)
        else:
            self._add_exact(reference, value)

    def _add_floats(self, reference: Array, value: Array) -> None:
        a, b = reference.astype(np.float64), value.astype(np.float64)
        good = np.isfinite(a) & np.isfinite(b)
        self.nonfinite += int((~good & (a != b) & ~(np.isnan(a) & np.isnan(b))).sum())
        self._count_decisions(a, b)
        if good.all():
            self._add_parts(a, b)
        a, b = a[good], b[good]
        if not a.size:
            return
        error = a - b
        self.elements += a.size
        self.total += float(a.sum())
        self.power += float(a @ a)
        self.other_power += float(b @ b)
        self.product += float(a @ b)
        self.noise += float(error @ error)
        self.largest = max(self.largest, float(np.abs(error).max()))
        self.lowest, self.highest = min(self.lowest, float(a.min())), max(self.highest, float(a.max()))

    def _count_decisions(self, a: Array, b: Array) -> None:
        axis = decision_axis(a.shape)
        if axis is not None and a.size:
            chosen = a.argmax(axis)
            equal = chosen == b.argmax(axis)
            self.same += int(equal.sum())
            self.decisions += equal.size
            if len(self.choices) < 2:
                self.choices.update(np.unique(chosen)[:2].tolist())

    def _add_parts(self, a: Array, b: Array) -> None:
        """Take in slices along the shortest axis longer than one; samples of other sizes end that."""
        axis = part_axis(a.shape)
        if axis is None or not a.size or self.uneven:
            return
        fresh = _Parts(axis, a.shape[axis])
        fresh.add(a, a - b)
        self._merge_parts(fresh)

    def _merge_parts(self, other: _Parts | None) -> None:
        if self.parts is None or other is None:
            self.parts = self.parts or other
        elif self.parts.fits(other):
            self.parts.merge(other)
        else:
            self.parts, self.uneven = None, True

    def _add_exact(self, reference: Array, value: Array) -> None:
        self.elements += reference.size
        self.decisions += reference.size
        self.same += int((reference == value).sum())
        if len(self.kinds) < 2:
            self.kinds.add(reference.tobytes())

    def merge(self, other: _Meter) -> None:
        self.is_float = other.is_float
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.largest = max(self.largest, other.largest)
        self.lowest, self.highest = min(self.lowest, other.lowest), max(self.highest, other.highest)
        self.kinds |= other.kinds
        self.choices |= other.choices
        self.uneven |= other.uneven
        self._merge_parts(other.parts)

    def result(self) -> OutputDrift:
        agreement = self.same / self.decisions if self.decisions else None
        if not self.is_float:
            return OutputDrift(
                self.name, None, None, None, agreement, 0, constant=len(self.kinds) < 2, elements=self.elements
            )
        deviation = self._deviation()
        constant = is_constant(self.lowest, self.highest)
        return OutputDrift(
            self.name,
            _decibel(deviation**2 * self.elements, self.noise),
            self.largest / deviation if deviation else (0.0 if not self.largest else math.inf),
            self._cosine(),
            agreement,
            self.nonfinite,
            constant,
            self.elements,
            decisive=len(self.choices) > 1,
            worst_part=None if self.parts is None or self.uneven else self.parts.worst(),
        )

    def _deviation(self) -> float:
        if not self.elements:
            return 0.0
        mean = self.total / self.elements
        return math.sqrt(max(self.power / self.elements - mean * mean, 0.0))

    def _cosine(self) -> float:
        size = math.sqrt(self.power * self.other_power)
        return self.product / size if size else float(self.power == self.other_power)


_SUMS = ("elements", "total", "power", "other_power", "product", "noise", "nonfinite", "same", "decisions")


def compare_outputs(pairs: Iterable[tuple[Mapping[str, Array], Mapping[str, Array]]]) -> Drift:
    """Return the drift over pairs of (reference outputs, outputs) of the same feeds.

    Raises:
        VerificationError: An output is missing or has another shape.
    """
    meter = DriftMeter()
    for reference, outputs in pairs:
        meter.add(reference, outputs)
    return meter.result()


class DriftMeter:
    """Collects drift sample by sample, in constant memory."""

    def __init__(self) -> None:
        self._meters: dict[str, _Meter] = {}

    def add(self, reference: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Take in one sample's outputs."""
        for name, array in reference.items():
            if name not in outputs:
                raise VerificationError(f"output {name!r} is missing", hint=f"there are: {', '.join(outputs)}")
            if isinstance(array, np.ndarray):
                self._meters.setdefault(name, _Meter(name)).add(array, outputs[name])

    def merge(self, other: DriftMeter) -> None:
        """Take in what another meter collected."""
        for name, meter in other._meters.items():
            self._meters.setdefault(name, _Meter(name)).merge(meter)

    def result(self) -> Drift:
        """Return the drift so far."""
        return Drift(tuple(meter.result() for meter in self._meters.values()))


def merged(meters: Iterable[DriftMeter]) -> Drift:
    """Return the drift over everything several meters collected."""
    total = DriftMeter()
    for meter in meters:
        total.merge(meter)
    return total.result()


def is_float(array: Array) -> bool:
    """Whether an array holds floating point numbers, bfloat16 included."""
    return array.dtype.kind == "f" or array.dtype.name in ("bfloat16", "float8_e4m3fn", "float8_e5m2")


def is_constant(lowest: float, highest: float) -> bool:
    """Whether values between these bounds vary by less than float32 can resolve."""
    return highest - lowest <= 1e-6 * max(abs(lowest), abs(highest))


def decision_axis(shape: tuple[int, ...]) -> int | None:
    """Return the axis an argmax decides over: the last one longer than 1, but never the batch.

    Of a map [batch, classes, height, width] it is the second, unless that is longer than the last, as in
    [batch, height, width, classes].
    """
    if len(shape) >= 4 and 1 < shape[1] <= shape[-1]:
        return 1
    return next((axis for axis in range(len(shape) - 1, 0, -1) if shape[axis] > 1), None)


def part_axis(shape: tuple[int, ...]) -> int | None:
    """Return the axis whose slices mean different things: the shortest longer than 1, but never the batch."""
    axes = [axis for axis in range(1, len(shape)) if 1 < shape[axis] <= _MOST_PARTS]
    return min(axes, key=lambda axis: shape[axis], default=None)


def _decibel(signal: float, noise: float) -> float:
    if noise == 0:
        return EXACT_DB
    if signal == 0:
        return -EXACT_DB
    return min(10 * math.log10(signal / noise), EXACT_DB)
