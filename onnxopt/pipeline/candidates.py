"""What ``optimize`` may try: graph variants x numerics x runtime x session options, as a list of values.

The order is from harmless to daring, so that what is tried later can be held against what was found earlier.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxopt.compile.engine import Backend, make_backend
from onnxopt.passes import Pass, make_pass
from onnxopt.recipe.recipe import SearchSpec
from onnxopt.targets.target import Target

BASELINE = "input"


@dataclass(frozen=True)
class Candidate:
    """One way to run the model.

    Attributes:
        name: Passes and runtime, for people.
        passes: Applied to the input, in order.
        backend: What it runs in.
    """

    name: str
    passes: tuple[Pass, ...]
    backend: Backend


@dataclass(frozen=True)
class Numerics:
    """A choice of numbers: a word for it, and the passes that make it."""

    word: str
    passes: tuple[tuple[str, Mapping[str, Any]], ...]


FLOAT = Numerics("float32", ())
DYNAMIC = Numerics("int8 dynamic", (("quantize-dynamic", {}),))
STATIC = Numerics("int8", (("quantize-static", {}),))
STATIC_ALL = Numerics("int8 all", (("quantize-static", {"scope": "all"}),))
HALF_STORED = Numerics("float16 weights", (("cast-float16", {}),))

REFINED: Mapping[str, tuple[Numerics, ...]] = {
    STATIC.word: (
        Numerics("int8 percentile", (("quantize-static", {"method": "percentile"}),)),
        Numerics("int8 entropy", (("quantize-static", {"method": "entropy"}),)),
    ),
    STATIC_ALL.word: (
        Numerics("int8 all percentile", (("quantize-static", {"scope": "all", "method": "percentile"}),)),
    ),
}
"""What to try when a choice is fast and loses too much."""

SESSION: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "ort": ({"memory_pattern": False}, {"graph_optimization": "extended"}, {"denormals_as_zero": True}),
    "openvino": (),
}
"""Settings worth trying on the fastest candidate of a runtime."""


def baseline_backend(search: SearchSpec) -> Backend:
    """Return the runtime, in its defaults, that results must not be slower than."""
    return make_backend("openvino" if search.runtime == "openvino" else "ort")


def first_candidates(search: SearchSpec, target: Target) -> Iterator[Candidate]:
    """Yield the candidates to try whatever comes out, the input in the runtime's defaults first."""
    baseline = baseline_backend(search)
    yield Candidate(BASELINE, (), baseline)
    for numerics in () if search.only else _numerics(search):
        for backend in _backends(search, target):
            if numerics.word == FLOAT.word and backend != baseline:
                yield _candidate((), FLOAT, backend)
            yield _candidate((("simplify", {}),), numerics, backend)


def refined_candidates(candidate: Candidate) -> Iterator[Candidate]:
    """Yield what to try in place of a candidate that is fast and loses too much."""
    for numerics in REFINED.get(numerics_of(candidate), ()):
        yield _candidate((("simplify", {}),), numerics, candidate.backend)


def session_candidates(candidate: Candidate) -> Iterator[Candidate]:
    """Yield the candidate with other settings of its runtime."""
    for settings in SESSION.get(candidate.backend.name, ()):
        backend = make_backend(candidate.backend.name, {**candidate.backend.options, **settings})
        numerics = candidate.name.partition(" in ")[0]
        yield Candidate(f"{numerics} in {backend}", candidate.passes, backend)


def numerics_of(candidate: Candidate) -> str:
    """Return the word for a candidate's numbers."""
    return candidate.name.partition(" in ")[0].removeprefix("simplified ")


def _numerics(search: SearchSpec) -> Sequence[Numerics]:
    known = (FLOAT, DYNAMIC, STATIC, STATIC_ALL)
    return (*known, HALF_STORED) if search.objective == "size" else known


def _backends(search: SearchSpec, target: Target) -> Iterator[Backend]:
    wanted = ("ort", "openvino") if search.runtime == "any" else (search.runtime,)
    for name in wanted:
        if name in target.runtimes:
            yield make_backend(name)
    if "openvino" in wanted and "openvino" in target.runtimes and "bfloat16" in target.precisions:
        yield make_backend("openvino", {"precision": "bfloat16"})


def _candidate(first: tuple[tuple[str, Mapping[str, Any]], ...], numerics: Numerics, backend: Backend) -> Candidate:
    word = f"simplified {numerics.word}" if first else numerics.word
    passes = tuple(make_pass(name, dict(values)) for name, values in (*first, *numerics.passes))
    return Candidate(f"{word} in {backend}", passes, backend)
