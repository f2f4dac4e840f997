"""How far one output may move under a change that should not move it.

How much rounding is innocent is measured, not assumed: the model before the change is run with and without the
runtime's own graph optimisations, and the change may move the output a small multiple of what those do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxopt.evaluate.drift import is_constant, is_float

Array = np.ndarray[Any, Any]

ALLOWANCE = 10.0
"""How many times the runtime's own rounding noise a change may cause."""
FLOORS = {"float64": 1e-8, "float32": 5e-5, "float16": 0.015, "bfloat16": 0.05}
"""Share of the standard deviation allowed even where the runtime's noise is nil: some ten roundings of sixteen bits,
and more of the types whose rounding cannot be mistaken for a mistake."""
_ROUNDINGS = 4.0
"""Roundings of the largest value that are innocent; they outgrow ``FLOORS`` where values vary little around it."""
CEILING = 0.05
"""Where the runtime's own noise is above this share of the standard deviation, the output tells nothing."""
_EPSILON = {"float64": 2**-52, "float32": 2**-23, "float16": 2**-10, "bfloat16": 2**-7}


@dataclass(frozen=True, slots=True)
class OutputCheck:
    """One output, over all probes.

    Attributes:
        name: The output.
        error: Largest difference on the worst probe, as a share of the output's standard deviation, or of its largest
            value where it does not vary; the share of values that differ where the output is not floating point;
            inf where shape, dtype or the place of a NaN or infinity differs.
        tolerance: What rounding explains on the worst probe.
        informative: Indices of probes on which a wrong answer would show.
        worst: Index of the probe whose error is furthest above what rounding explains there.
    """

    name: str
    error: float
    tolerance: float
    informative: tuple[int, ...]
    worst: int

    @property
    def passed(self) -> bool:
        """Whether the error is within what rounding explains."""
        return self.error <= self.tolerance


def check_output(
    name: str, before: Sequence[Array], noisy: Sequence[Array], after: Sequence[Array | None]
) -> OutputCheck:
    """Compare one output on every probe.

    Args:
        name: The output.
        before: Its values before the change, one array a probe.
        noisy: The same, computed another way by the same runtime.
        after: Its values after the change; None where it is gone.
    """
    scales = _scales(before)
    noise = [_difference(a, b, scale) for a, b, scale in zip(before, noisy, scales, strict=True)]
    errors = [_difference(a, c, scale) for a, c, scale in zip(before, after, scales, strict=True)]
    steady = [i for i, n in enumerate(noise) if n <= CEILING]
    informative = tuple(i for i in steady if scales[i])
    usual = float(np.median([noise[i] for i in steady])) if steady else 0.0
    allowed = [_allowed(array, scale, max(n, usual)) for array, scale, n in zip(before, scales, noise, strict=True)]
    counted = {i: e for i, e in enumerate(errors) if i in steady or (math.isinf(e) and noise[i] < math.inf)}
    worst = max(counted, key=lambda i: counted[i] / allowed[i] if allowed[i] else counted[i], default=0)
    return OutputCheck(name, counted.get(worst, 0.0), allowed[worst] if allowed else 0.0, informative, worst)


def _allowed(array: Array, scale: float, noise: float) -> float:
    """Return the error rounding explains on one probe; what is allowed on one says nothing of another."""
    return min(max(_floor(array, scale), ALLOWANCE * noise if noise <= CEILING else 0.0), CEILING)


def _scales(arrays: Sequence[Array]) -> list[float]:
    """Return what an error on each probe is measured in; 0 where the output does not vary at all.

    A single number a probe, such as one score, is held against how it varies from probe to probe.
    """
    if not all(is_float(array) for array in arrays):
        values = np.concatenate([array.reshape(-1) for array in arrays])
        varies = bool((values != values[:1]).any())
        return [float(varies and array.size > 0) for array in arrays]
    pooled = _deviation(np.concatenate([array.astype(np.float64).reshape(-1) for array in arrays]))
    return [_deviation(array.astype(np.float64)) or pooled for array in arrays]


def _deviation(values: Array) -> float:
    finite = values[np.isfinite(values)]
    if not finite.size or is_constant(float(finite.min()), float(finite.max())):
        return 0.0
    return float(finite.std())


def _difference(reference: Array, value: Array | None, scale: float) -> float:
    if value is None or reference.shape != value.shape or reference.dtype != value.dtype:
        return math.inf
    if not is_float(reference):
        return float((reference != value).mean()) if reference.size else 0.0
    a, b = reference.astype(np.float64), value.astype(np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(b[finite]).all():
        return math.inf
    largest = _largest(a[finite] - b[finite])
    unit = scale or _largest(a)
    return largest / unit if unit else (math.inf if largest else 0.0)


def _floor(array: Array, scale: float) -> float:
    offset = _largest(array) / scale if scale else 0.0
    return max(FLOORS.get(array.dtype.name, 0.0), _ROUNDINGS * _EPSILON.get(array.dtype.name, 0.0) * offset)


def _largest(array: Array) -> float:
    """Return the largest absolute value, infinities and NaN aside."""
    finite = np.abs(array[np.isfinite(array)]) if is_float(array) else np.empty(0)
    return float(finite.max(initial=0.0))
