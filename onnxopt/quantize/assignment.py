"""Which groups of layers to round: the fastest choice whose noise stays within a budget, by integer programming.

Seconds and noise add up over groups; where a rounded group meets one in float, numbers are rounded or read back and
laid out anew, which takes seconds too. HiGHS, through scipy, finds the optimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxopt.errors import PassError

_TOO_MUCH = 2.0
"""Share of the budget beyond which more makes no difference, but upsets the solver."""

_SECONDS = 10.0
"""For one choice; what was found by then is nearly always the best."""


@dataclass(frozen=True, slots=True)
class Border:
    """Two groups, by index, between which numbers flow, and the seconds it takes if one of them alone is rounded."""

    one: int
    other: int
    seconds: float


def fastest_within(
    gains: Sequence[float], noises: Sequence[float], borders: Sequence[Border], budget: float
) -> list[int]:
    """Return the indices of the groups to round, possibly none.

    Args:
        gains: Seconds each group saves, in the midst of others that are rounded.
        noises: What each adds to the power of the error.
        borders: Where groups meet.
        budget: Noise allowed in all.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    count = len(gains)
    unknowns = count + len(borders)
    scale = max([abs(gain) for gain in gains] + [border.seconds for border in borders], default=0.0) or 1.0
    costs = np.array([*(-gain / scale for gain in gains), *(border.seconds / scale for border in borders)])
    rows = np.zeros((1 + 2 * len(borders), unknowns))
    shares = np.asarray(noises) / budget
    rows[0, :count] = np.minimum(shares, _TOO_MUCH)
    for index, border in enumerate(borders):
        for row, sign in ((1 + 2 * index, 1), (2 + 2 * index, -1)):
            rows[row, border.one] += sign
            rows[row, border.other] -= sign
            rows[row, count + index] = -1
    highest = np.array([1.0, *[0.0] * (2 * len(borders))])
    found = milp(
        costs,
        integrality=np.array([1] * count + [0] * len(borders)),
        bounds=Bounds(0, np.array([*(shares <= 1), *[1] * len(borders)])),
        constraints=LinearConstraint(rows, -np.inf, highest),
        options={"time_limit": _SECONDS},
    )
    if found.x is None:
        raise PassError(f"no choice of layers was found: {found.message}")
    return [index for index in range(count) if found.x[index] > 0.5]
