"""What removing channels of a group does to the model's outputs, measured: groups are held against each other by it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import numpy as np

from onnxopt.context import Context, Progress, Warned
from onnxopt.data.sample import Array, Samples
from onnxopt.evaluate.trials import Trials
from onnxopt.prune.groups import Group, Groups
from onnxopt.prune.importance import Scores
from onnxopt.prune.masked import masked

_SHARES = (0.125, 0.25, 0.5, 0.75)
"""Of a group's channels, at which damage is measured."""

_MOST_TRIALS = 240
"""In models of many groups each is measured at fewer places."""

_MOST_BYTES = 40 << 30
"""Of models written; each trial is one."""


def weighed(
    groups: Groups, considered: Sequence[Group], scores: Sequence[Scores], samples: Samples, ctx: Context
) -> list[Scores]:
    """Return scores that keep their order in each group and add up to the noise at the outputs.

    The channels of a group that matter least are zeroed in the float model, and the outputs held against its own: the
    power of the error over that of the output. In between it grows as the scores do.

    Args:
        groups: All groups of the graph.
        considered: Those that may lose channels.
        scores: Importance of the channels of each.
        samples: The outputs are judged on; a few do.
        ctx: Gives ``scratch``; told of progress.

    Raises:
        UnverifiableError: No float output varies on the samples.
    """
    shares = _shares(groups, len(considered))
    if not shares:
        ctx.emit(Warned("the model is too large to measure what each group does to the outputs"))
        return list(scores)
    found: list[Scores] = []
    with closing(Trials(groups.graph, samples, ctx.scratch)) as trials:
        for done, (group, one) in enumerate(zip(considered, scores, strict=True)):
            ctx.emit(Progress("measuring what each group does to the outputs", done, len(considered)))
            order = np.argsort(one, kind="stable")
            cuts = sorted({count for share in shares if 0 < (count := round(share * group.width)) < group.width})
            noises = [trials.noise_of(masked(groups, groups.kept(group.classes[order[:cut]]))) for cut in cuts]
            found.append(_scaled(one, order, cuts, noises))
    return found


def _shares(groups: Groups, count: int) -> Sequence[float]:
    """Return the shares of each of so many groups at which there is time to measure."""
    size = sum(value.const_value.nbytes for value in groups.graph.graph.initializers.values() if value.const_value)
    trials = min(_MOST_TRIALS, _MOST_BYTES // max(size, 1))
    return _SHARES[len(_SHARES) - min(len(_SHARES), trials // max(count, 1)) :]


def _scaled(scores: Scores, order: Array, cuts: Sequence[int], noises: Sequence[float]) -> Scores:
    """Return scores whose sum over the first channels, in order, is the noise measured with so many gone."""
    steps: list[Array] = []
    first, before = 0, 0.0
    for cut, noise in zip(cuts, np.maximum.accumulate(np.asarray(noises)).tolist(), strict=True):
        steps.append(_spread(scores[order[first:cut]], noise - before))
        first, before = cut, noise
    rest = scores[order[first:]]
    steps.append(_spread(rest, len(rest) * float(steps[-1].max())) if steps else rest)
    scaled = np.empty(len(scores))
    scaled[order] = np.maximum.accumulate(np.concatenate(steps))
    return scaled


def _spread(scores: Scores, amount: float) -> Scores:
    """Return an amount shared out as the scores are."""
    total = scores.sum()
    return scores * (amount / total) if total > 0 else np.full(len(scores), amount / max(len(scores), 1))
