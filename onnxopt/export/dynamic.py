"""Dynamic dimensions as people write them: ``batch=1..64``, ``seq@input_ids.1,mask.1=1..512``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnxopt.errors import UsageError, did_you_mean

_FORM = re.compile(r"(?P<name>[A-Za-z_]\w*)(@(?P<axes>[^=]+))?=(?P<low>\d+)\.\.(?P<high>\d+)")
_HINT = "write NAME=MIN..MAX for the first axis of every input, or NAME@INPUT.AXIS,INPUT.AXIS=MIN..MAX"


@dataclass(frozen=True, slots=True)
class DynamicDim:
    """A dimension that may vary.

    Attributes:
        name: What the ONNX model calls it.
        low: Smallest size.
        high: Largest size.
        axes: Pairs (input, axis); an input of ``*`` is every input.
    """

    name: str
    low: int
    high: int
    axes: tuple[tuple[str, int], ...]

    def axis_of(self, input_name: str) -> int | None:
        """Return which axis of an input it is, None if none."""
        return next((axis for name, axis in self.axes if name in ("*", input_name)), None)

    def untraced(self, traced: int) -> tuple[int, ...]:
        """Return sizes to check that were not traced: the smallest, the largest that is cheap, and one between."""
        sizes = (self.low, min(self.high, traced + 1), min(self.high, 2 * traced + 1))
        return tuple(size for size in dict.fromkeys(sizes) if size != traced)


def parse_dynamic(texts: Sequence[str] | Mapping[str, str]) -> tuple[DynamicDim, ...]:
    """Return the dimensions of ``--dynamic`` options, or of a recipe's ``dynamic`` mapping.

    Raises:
        UsageError: A text has another form, or its range is empty.
    """
    if isinstance(texts, Mapping):
        texts = [f"{name}={bounds}" for name, bounds in texts.items()]
    return tuple(_parse(text) for text in texts)


def check_inputs(dims: Sequence[DynamicDim], inputs: Sequence[str]) -> None:
    """Raise UsageError if a dimension names an input there is not."""
    for dim in dims:
        for name, _ in dim.axes:
            if name != "*" and name not in inputs:
                raise UsageError(f"--dynamic {dim.name}: there is no input {name!r}", hint=did_you_mean(name, inputs))


def _parse(text: str) -> DynamicDim:
    match = _FORM.fullmatch(text.replace(" ", ""))
    if match is None:
        raise UsageError(f"--dynamic {text!r} cannot be read", hint=_HINT)
    low, high = int(match["low"]), int(match["high"])
    if not 1 <= low < high:
        raise UsageError(f"--dynamic {text!r} has no range", hint="MIN is at least 1 and below MAX")
    axes = tuple(_axis(part, text) for part in (match["axes"] or "*.0").split(","))
    return DynamicDim(match["name"], low, high, axes)


def _axis(part: str, text: str) -> tuple[str, int]:
    name, _, axis = part.rpartition(".")
    if not name or not axis.isdigit():
        raise UsageError(f"--dynamic {text!r}: {part!r} is no INPUT.AXIS", hint=_HINT)
    return name, int(axis)
