"""What ``--dynamic`` accepts, and the sizes that parity is checked at."""

from __future__ import annotations

import pytest

from onnxopt.errors import UsageError
from onnxopt.export.dynamic import DynamicDim, check_inputs, parse_dynamic


def test_a_name_and_a_range_is_the_first_axis_of_every_input() -> None:
    (dim,) = parse_dynamic(["batch=1..64"])
    assert dim == DynamicDim("batch", 1, 64, (("*", 0),))
    assert dim.axes_of("anything") == (0,)


def test_axes_are_given_by_input() -> None:
    (dim,) = parse_dynamic(["seq@ids.1,encoder.mask.2=1..512"])
    assert dim.axes == (("ids", 1), ("encoder.mask", 2))
    assert dim.axes_of("ids") == (1,)
    assert dim.axes_of("other") == ()


def test_a_mapping_says_the_same_as_a_list() -> None:
    assert parse_dynamic({"batch": "1..8", "seq@x.1": "2..4"}) == parse_dynamic(["batch=1..8", "seq@x.1=2..4"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("batch", "cannot be read"),
        ("batch=1-64", "cannot be read"),
        ("2nd=1..4", "cannot be read"),
        ("batch=64..1", "has no range"),
        ("batch=0..8", "has no range"),
        ("batch=4..4", "has no range"),
        ("seq@ids=1..8", "'ids' is no INPUT.AXIS"),
        ("seq@ids.first=1..8", "'ids.first' is no INPUT.AXIS"),
    ],
)
def test_other_forms_are_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_dynamic([text])


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="gives 'batch' twice"):
        parse_dynamic(["batch=1..2", "batch=1..4"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seq@mask.1=1..8", "there is no input 'mask'"),
        ("seq@x.2=1..8", "'x' has 2 dimensions, there is no axis 2"),
        ("batch=4..8", r"the example has 2 along x\.0, not 4 to 8"),
    ],
)
def test_what_does_not_fit_the_example_is_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        check_inputs(parse_dynamic([text]), {"x": (2, 6)})


@pytest.mark.parametrize(
    ("low", "high", "traced", "sizes"),
    [(1, 64, 2, (1, 3, 5)), (1, 2, 2, (1,)), (2, 3, 2, (3,)), (1, 4, 1, (2, 3)), (1, 512, 16, (1, 17, 33))],
)
def test_parity_is_checked_at_sizes_that_were_not_traced(
    low: int, high: int, traced: int, sizes: tuple[int, ...]
) -> None:
    assert DynamicDim("n", low, high, (("*", 0),)).untraced(traced) == sizes
