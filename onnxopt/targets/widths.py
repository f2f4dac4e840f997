"""Widths that a target's kernels compute without padding: data, the first row that fits counts."""

from __future__ import annotations

from collections.abc import Mapping

from onnxopt.targets.target import Target

_WIDTHS: Mapping[str, int] = {"avx512": 16, "avx2": 8}
"""Channels side by side in a convolution's block, by instruction set: ``NchwcBlockSize`` of ONNX Runtime's MLAS."""

_OTHERS = 8
"""What half-precision tensor cores ask for, and two vectors of NEON hold."""


def preferred_width(target: Target) -> int:
    """Return the number that widths of layers should be multiples of, where they are wide enough."""
    return next((width for isa, width in _WIDTHS.items() if isa in target.isa), _OTHERS)
