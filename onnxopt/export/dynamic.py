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

    def axes_of(self, input_name: str) -> tuple[int, ...]:
        """Return which axes of an input it is."""
        return tuple(axis for name, axis in self.axes if name in ("*", input_name))

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
    dims = tuple(_parse(text) for text in texts)
    names = [dim.name for dim in dims]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UsageError(f"--dynamic gives {twice!r} twice", hint=_HINT)
    return dims


def check_inputs(dims: Sequence[DynamicDim], shapes: Mapping[str, Sequence[int]]) -> None:
    """Raise UsageError if a dimension names an input or axis there is not, or does not fit the example's size.

    Args:
        dims: The dimensions.
        shapes: Of the example, by input.
    """
    for dim in dims:
        for name, _ in dim.axes:
            if name != "*" and name not in shapes:
                raise UsageError(f"--dynamic {dim.name}: there is no input {name!r}", hint=did_you_mean(name, shapes))
        for name, shape in shapes.items():
            _check_axes(dim, name, shape)


def _check_axes(dim: DynamicDim, name: str, shape: Sequence[int]) -> None:
    for axis in dim.axes_of(name):
        if axis >= len(shape):
            raise UsageError(
                f"--dynamic {dim.name}: input {name!r} has {len(shape)} dimensions, there is no axis {axis}", hint=_HINT
            )
        if not dim.low <= shape[axis] <= dim.high:
            raise UsageError(
                f"--dynamic {dim.name}: the example has {shape[axis]} along {name}.{axis}, not {dim.low} to {dim.high}",
                hint="widen the range, or return another example",
            )


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
