"""Numbers with units, as people write them: ``1%``, ``5ms``, ``10MB``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from onnxopt.errors import UsageError

_NUMBER = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([A-Za-zµ%]*)\s*")
_SECONDS: Mapping[str, float] = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
_BYTES: Mapping[str, float] = {
    "B": 1,
    "KB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "KIB": 2.0**10,
    "MIB": 2.0**20,
    "GIB": 2.0**30,
}
_SHARE: Mapping[str, float] = {"%": 0.01, "": 1.0}


def share(text: str | float) -> float:
    """Return ``1%`` or ``0.01`` as 0.01.

    Raises:
        UsageError: It is no share between 0 and 1.
    """
    value = _quantity(str(text), _SHARE, "a share such as 1% or 0.01")
    if value > 1:
        raise UsageError(f"{text!r} is more than all of it", hint="write 1% or 0.01")
    return value


def seconds(text: str) -> float:
    """Return ``5ms`` as 0.005.

    Raises:
        UsageError: It is no time.
    """
    return _quantity(text, _SECONDS, "a time such as 5ms")


def size(text: str) -> int:
    """Return ``10MB`` as 10,000,000.

    Raises:
        UsageError: It is no size.
    """
    return int(_quantity(text, {**_BYTES, **{unit.lower(): n for unit, n in _BYTES.items()}}, "a size such as 10MB"))


def _quantity(text: str, units: Mapping[str, float], form: str) -> float:
    match = _NUMBER.fullmatch(text)
    unit = match.group(2) if match else ""
    factor = units.get(unit, units.get(unit.upper()))
    if match is None or factor is None:
        raise UsageError(f"{text!r} is not {form}", hint=f"units: {', '.join(dict.fromkeys(u for u in units if u))}")
    value = float(match.group(1)) * factor
    if not math.isfinite(value):
        raise UsageError(f"{text!r} is more than a number holds", hint=f"write {form}")
    return value
