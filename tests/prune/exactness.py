"""Removing channels that are zero beforehand must change nothing: it does where any tensor they are in was missed."""

from __future__ import annotations

import numpy as np

from onnxopt.ir.check import checker_complaint
from onnxopt.ir.model import Model, normalise
from onnxopt.prune.groups import Groups, find_groups, prepared
from onnxopt.prune.masked import masked
from onnxopt.prune.shrink import shrink
from onnxopt.prune.sizes import find_sizes
from onnxopt.prune.units import Kept
from tests.graphs import answers, samples


def groups_of(model: Model, **options: bool) -> Groups:
    graph = prepared(model.graph)
    return find_groups(graph, find_sizes(graph, None), statistics=options.get("statistics", False))


def half(groups: Groups, seed: int = 0) -> Kept:
    """Return what stays where about half of each group's channels, chosen at random, are removed."""
    random = np.random.default_rng(seed)
    gone = []
    for group in groups.found:
        least = group.width // 2
        gone.append(
            group.classes[random.permutation(group.width)[: random.integers(least, max(least + 1, group.width))]]
        )
    return groups.kept(np.concatenate([np.zeros(0, np.int64), *gone]))


def error_after(model: Model, seed: int = 0) -> float:
    """Return the largest error, as a share of the largest output, that removing zeroed channels makes."""
    groups = groups_of(model)
    kept = half(groups, seed)
    assert not kept.of_units.all() or all(group.width == 1 for group in groups.found)
    before = Model(masked(groups, kept))
    after = Model(shrink(groups, kept))
    normalise(after.graph)
    assert checker_complaint(after.graph) is None
    feeds = samples(model, 1, seed=seed + 1).read(0).feeds
    expected, got = answers(before, feeds), answers(after, feeds)
    error = 0.0
    for name, array in expected.items():
        assert got[name].shape == array.shape
        assert np.isfinite(array).all()
        assert np.isfinite(got[name]).all()
        error = max(error, float(np.abs(got[name] - array).max() / max(np.abs(array).max(), 1e-6)))
    return error
