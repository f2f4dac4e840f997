"""Where channels are read, without torch, which only the child imports."""

from __future__ import annotations

from dataclasses import dataclass

from onnxopt.data.sample import Array


@dataclass(frozen=True, eq=False)
class Gate:
    """Where a group's channels are in a weight.

    Attributes:
        weight: Name of the initializer.
        axis: Of it.
        channels: [positions], int: the channel each position along the axis is of; -1 for one that is of none.
    """

    weight: str
    axis: int
    channels: Array
