"""What ``optimize`` may try: graph variants x numerics x runtime x session options, as a list of values.

The order is from harmless to daring, so that what is tried later can be held against what was found earlier.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from onnxopt.compile.engine import Backend, make_backend
from onnxopt.passes import Pass, make_pass
from onnxopt.recipe.recipe import BASELINE, SearchSpec
from onnxopt.targets.target import Target

Steps = tuple[tuple[str, Mapping[str, Any]], ...]
"""Passes by name, with options."""

REWRITTEN: Steps = (("rewrite", {}),)


@dataclass(frozen=True)
class Numerics:
    """A choice of numbers: a word for it, and the passes that make it."""

    word: str
    passes: Steps


@dataclass(frozen=True)
class Candidate:
    """One way to run the model.

    Attributes:
        name: For people.
        passes: Applied to the input, in order.
        backend: What it runs in.
        graph: The passes that made the graph the numerics are built on.
        numerics: The choice of numbers; None for a user's own candidate.
    """

    name: str
    passes: tuple[Pass, ...]
    backend: Backend
    graph: Steps = ()
    numerics: Numerics | None = None


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


def float_candidates(search: SearchSpec, target: Target) -> Iterator[Candidate]:
    """Yield the input, and the rewritten graph, in each runtime; the input in the runtime's defaults first."""
    baseline = baseline_backend(search)
    yield Candidate(BASELINE, (), baseline)
    for backend in () if search.only else backends(search, target):
        if backend != baseline:
            yield _candidate((), FLOAT, backend)
        yield _candidate(REWRITTEN, FLOAT, backend)


def numeric_candidates(
    search: SearchSpec, target: Target, graphs: Mapping[Backend, Steps], *, small: bool = False
) -> Iterator[Candidate]:
    """Yield other numerics in each runtime.

    Args:
        search: What may be tried.
        target: What the machine has fast kernels for.
        graphs: The graph each runtime runs faster: the input as it is, or rewritten.
        small: Whether what only makes the file smaller is worth trying.
    """
    for numerics in () if search.only else _numerics(small=small):
        for backend in backends(search, target):
            yield _candidate(graphs.get(backend, REWRITTEN), numerics, backend)


def refined_candidates(candidate: Candidate) -> Iterator[Candidate]:
    """Yield what to try in place of a candidate that is fast and loses too much."""
    word = candidate.numerics.word if candidate.numerics else ""
    for numerics in REFINED.get(word, ()):
        yield _candidate(candidate.graph, numerics, candidate.backend)


def session_candidates(candidate: Candidate) -> Iterator[Candidate]:
    """Yield the candidate with other settings of its runtime."""
    for settings in SESSION.get(candidate.backend.name, ()):
        backend = make_backend(candidate.backend.name, {**candidate.backend.options, **settings})
        name = candidate.name.removesuffix(f" in {candidate.backend}")
        yield replace(candidate, name=f"{name} in {backend}", backend=backend)


def _numerics(*, small: bool) -> Sequence[Numerics]:
    known = (DYNAMIC, STATIC, STATIC_ALL)
    return (*known, HALF_STORED) if small else known


def backends(search: SearchSpec, target: Target) -> Iterator[Backend]:
    """Yield the runtimes to try, in settings that fit the target."""
    wanted = ("ort", "openvino") if search.runtime == "any" else (search.runtime,)
    for name in wanted:
        if name in target.runtimes:
            yield make_backend(name)
    if "openvino" in wanted and "openvino" in target.runtimes and "bfloat16" in target.precisions:
        yield make_backend("openvino", {"precision": "bfloat16"})


def _candidate(graph: Steps, numerics: Numerics, backend: Backend) -> Candidate:
    word = f"rewritten {numerics.word}" if graph else numerics.word
    passes = tuple(make_pass(name, dict(values)) for name, values in (*graph, *numerics.passes))
    return Candidate(f"{word} in {backend}", passes, backend, graph, numerics)
