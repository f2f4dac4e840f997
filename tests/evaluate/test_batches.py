"""Work in parts that fit in memory."""

import pytest

from onnxopt.evaluate.batches import fitting


@pytest.mark.parametrize(
    ("sizes", "batches"),
    [
        ([], []),
        ([3], [[3]]),
        ([4, 6, 1], [[4, 6], [1]]),
        ([11, 2, 12, 3, 3], [[11], [2], [12], [3, 3]]),
        ([10, 10], [[10], [10]]),
    ],
)
def test_as_many_as_fit_come_together_and_what_is_too_large_alone(sizes, batches):
    assert list(fitting(sizes, lambda size: size, 10)) == batches
