"""A pass reads only what it declares, because its cache key is made of that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onnxopt.context import Context, Event, Use, Warned
from onnxopt.errors import PassError
from onnxopt.targets.target import target
from tests.graphs import mlp, samples

READS: dict[Use, Callable[[Context], Any]] = {
    "target": lambda ctx: ctx.target.name,
    "data": lambda ctx: len(ctx.data),
    "original": lambda ctx: ctx.original.nodes,
    "seed": lambda ctx: ctx.seed,
    "scratch": lambda ctx: ctx.scratch,
}


@pytest.fixture
def full(tmp_path: Path) -> Context:
    return Context.of(target=target("x86-amx"), data=samples(mlp(), 3), original=mlp(), seed=7, scratch=tmp_path)


def test_a_whole_context_grants_everything(full: Context, tmp_path: Path) -> None:
    assert {use: read(full) for use, read in READS.items()} == {
        "target": "x86-amx",
        "data": 3,
        "original": mlp().nodes,
        "seed": 7,
        "scratch": tmp_path,
    }


@pytest.mark.parametrize("use", READS)
def test_what_was_not_declared_is_refused(full: Context, use: Use) -> None:
    others = frozenset(READS) - {use}
    limited = full.limited(others)

    with pytest.raises(PassError, match=rf"a pass read ctx\.{use} without declaring it") as caught:
        READS[use](limited)
    assert f"add {use!r} to the pass's `uses`" in (caught.value.hint or "")
    assert all(READS[other](limited) == READS[other](full) for other in others)


def test_even_asking_whether_there_is_data_needs_declaring(full: Context) -> None:
    assert full.has_data
    with pytest.raises(PassError, match=r"ctx\.data"):
        _ = full.limited(frozenset({"seed"})).has_data


def test_a_limit_is_never_lifted(full: Context) -> None:
    assert full.limited(frozenset({"seed"})).limited(frozenset({"seed", "data"})).granted == {"seed"}


def test_what_is_not_there_is_asked_for() -> None:
    empty = Context.of()

    assert not empty.has_data
    assert empty.target.is_local
    with pytest.raises(PassError, match="needs calibration data, and none was given") as caught:
        _ = empty.data
    assert "add --data PATH" in (caught.value.hint or "")
    with pytest.raises(PassError, match="needs a scratch folder"):
        _ = empty.scratch


def test_events_go_where_they_should_whatever_is_granted() -> None:
    heard: list[Event] = []
    Context.of(emit=heard.append).limited(frozenset()).emit(Warned("careful"))

    assert heard == [Warned("careful")]
