"""Options are strict, and what is wrong with one is told with its name, its value and its help."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import pydantic
import pytest

from onnxopt.errors import RecipeError, UsageError
from onnxopt.options import build, describe, dump, option, options


@options
class Oven:
    """A thing with options of several kinds."""

    heat: int = option("degrees", ge=0, le=300)
    mode: Literal["fan", "grill"] = option("what heats", default="fan")
    share: float = option("of the space", default=0.5, gt=0)
    shelves: list[int] = option("their heights", default=[1, 2])
    size: int | tuple[int, int] | None = option("inside", default=None)


def _problem(values: dict[str, Any]) -> UsageError:
    with pytest.raises(UsageError) as caught:
        build(Oven, {"heat": 180, **values}, where="dinner.yaml:3")
    return caught.value


def test_values_and_defaults() -> None:
    oven = build(Oven, {"heat": 180, "size": [3, 4]}, where="")

    assert oven == Oven(heat=180, size=(3, 4))
    assert (oven.mode, oven.share, oven.shelves) == ("fan", 0.5, [1, 2])


def test_instances_are_frozen_and_share_no_default() -> None:
    one, other = Oven(heat=1), Oven(heat=1)
    one.shelves.append(3)

    assert other.shelves == [1, 2]
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.heat = 2  # type: ignore[misc]


def test_python_calls_are_as_strict_as_recipes() -> None:
    with pytest.raises(pydantic.ValidationError, match="valid integer"):
        Oven(heat="8")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "what", "hint"),
    [
        ({"heat": "8"}, 'heat is "8": it should be a valid integer', "heat: degrees"),
        ({"heat": 8.5}, "heat is 8.5: it should be a valid integer", "heat: degrees"),
        ({"heat": True}, "heat is true: it should be a valid integer", "heat: degrees"),
        ({"heat": -1}, "heat is -1: it should be greater than or equal to 0", "heat: degrees"),
        ({"heat": 301}, "heat is 301: it should be less than or equal to 300", "heat: degrees"),
        ({"mode": "steam"}, "mode is \"steam\": it should be 'fan' or 'grill'", "mode: what heats"),
        ({"share": 0}, "share is 0: it should be greater than 0", "share: of the space"),
        ({"shelves": [1, "x"]}, 'shelves.1 is "x": it should be a valid integer', "shelves: their heights"),
    ],
)
def test_wrong_value_is_told_with_its_help(values: dict[str, Any], what: str, hint: str) -> None:
    problem = _problem(values)

    assert what in problem.what
    assert problem.where == f"dinner.yaml:3: {problem.what.split(' ')[0]}"
    assert problem.hint == hint


def test_unknown_key_suggests_the_closest() -> None:
    problem = _problem({"heta": 3})

    assert problem.what == "there is no option 'heta'"
    assert problem.where == "dinner.yaml:3"
    assert problem.hint == "did you mean 'heat'?"


def test_required_option_is_asked_for() -> None:
    with pytest.raises(RecipeError) as caught:
        build(Oven, {}, where="dinner.yaml:3", error=RecipeError)

    assert caught.value.what == "the option 'heat' is required"
    assert caught.value.hint == "heat: degrees"


def test_describe_tells_options_in_order() -> None:
    heat, mode, *_, size = describe(Oven)

    assert (heat.name, heat.type, heat.required, heat.text) == ("heat", int, True, "degrees")
    assert (mode.default, mode.required) == ("fan", False)
    assert (size.name, size.default) == ("size", None)


def test_dump_builds_the_same_again() -> None:
    oven = Oven(heat=20, mode="grill", size=(3, 4))

    assert dump(oven) == {"heat": 20, "mode": "grill", "share": 0.5, "shelves": [1, 2], "size": [3, 4]}
    assert build(Oven, dump(oven), where="") == oven
