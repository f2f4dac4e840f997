"""Removing channels that are zero beforehand changes nothing, on random graphs."""

import pytest

from tests.prune.exactness import error_after, groups_of
from tests.prune.random_graphs import BLOCKS, graph

_A_TEST = 100


@pytest.mark.parametrize("first", range(0, 1000, _A_TEST))
def test_nothing_that_moves_together_is_missed(first):
    for seed in range(first, first + _A_TEST):
        assert error_after(graph(seed), seed) < 1e-5, seed


def test_the_graphs_have_channels_to_remove_and_every_block():
    found = [groups_of(graph(seed)) for seed in range(60)]
    assert sum(len(groups.found) > 0 for groups in found) > 55
    assert sum(groups.coverage > 0.5 for groups in found) > 50
    kinds = {node.op_type for seed in range(60) for node in graph(seed).graph.graph}
    assert len(BLOCKS) < len(kinds)
