"""The windows of a convolution: what each of its outputs is a product with; some of them where there are many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir

from onnxopt.ir.quant import Array


@dataclass(frozen=True, slots=True)
class Window:
    """How a convolution moves, a number for each spatial axis; ``pads`` are (before, after).

    Attributes:
        kernel: Its size.
        strides: Steps.
        dilations: Distances of what it looks at.
        pads: Zeros around the input; None where they follow from the size.
        upper: Whether an odd zero stands behind, where they do.
        groups: Of channels, which are looked at apart.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...] | None
    upper: bool = True
    groups: int = 1

    @classmethod
    def of(cls, node: onnx_ir.Node, kernel: Sequence[int]) -> Window:
        """Return the window of a Conv node with a kernel of this size."""
        rank, attributes = len(kernel), node.attributes

        def ints(name: str, default: Sequence[int]) -> tuple[int, ...]:
            found = attributes.get(name)
            return tuple(default if found is None else found.as_ints())

        auto = attributes.get_string("auto_pad", "NOTSET")
        flat = ints("pads", [0] * 2 * rank) if auto == "NOTSET" else (0,) * 2 * rank
        pads = None if auto.startswith("SAME") else tuple(zip(flat[:rank], flat[rank:], strict=True))
        ones = [1] * rank
        groups = attributes.get_int("group", 1) or 1
        return cls(tuple(kernel), ints("strides", ones), ints("dilations", ones), pads, auto != "SAME_LOWER", groups)

    def rows(self, array: Array, zero: int, choose: Callable[[int], Array]) -> Array:
        """Return windows channels last.

        Args:
            array: [batch, channels, sizes...].
            zero: Stands around it.
            choose: Returns which windows, of so many; in the order of the output.

        Returns:
            [windows, kernel..., channels].
        """
        sizes = array.shape[2:]
        pads = self.pads or tuple(self._same(axis, size) for axis, size in enumerate(sizes))
        padded = np.pad(np.moveaxis(array, 1, -1), [(0, 0), *pads, (0, 0)], constant_values=zero)
        counts = [
            (size + sum(pad) - (kernel - 1) * dilation - 1) // stride + 1
            for size, pad, kernel, dilation, stride in zip(
                sizes, pads, self.kernel, self.dilations, self.strides, strict=True
            )
        ]
        grid = (len(array), *counts)
        first, *starts = np.unravel_index(choose(int(np.prod(grid))), grid)
        rank = len(self.kernel)
        places = [np.asarray(first).reshape(-1, *[1] * rank)]
        for axis, start in enumerate(starts):
            along = start[:, None] * self.strides[axis] + np.arange(self.kernel[axis]) * self.dilations[axis]
            places.append(along.reshape(len(along), *(-1 if other == axis else 1 for other in range(rank))))
        return np.asarray(padded[tuple(places)])

    def _same(self, axis: int, size: int) -> tuple[int, int]:
        """Return the zeros around an axis whose output has a number for each step of the input."""
        stride, reach = self.strides[axis], (self.kernel[axis] - 1) * self.dilations[axis] + 1
        total = max(0, (-(-size // stride) - 1) * stride + reach - size)
        less = total // 2
        return (less, total - less) if self.upper else (total - less, less)
