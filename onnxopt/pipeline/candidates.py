"""What ``optimize`` may try: graph variants x numerics x runtime x session options, as a list of values.

The order is from harmless to daring, so that what is tried later can be held against what was found earlier.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from onnxopt.compile.engine import Backend, make_backend
from onnxopt.options import describe
from onnxopt.passes import Pass, make_pass
from onnxopt.recipe.recipe import BASELINE, SearchSpec
from onnxopt.registry import resolve
from onnxopt.targets.target import Target

Steps = tuple[tuple[str, Mapping[str, Any]], ...]
"""Passes by name, with options."""

_REWRITTEN: Mapping[str, Steps] = {"ort": (("rewrite", {"also": ["ort-kernels"]}),)}
_REWRITTEN_FOR_ANY: Steps = (("rewrite", {}),)


def rewritten_for(runtime: str) -> Steps:
    """Return the rewriting that suits a runtime."""
    return _REWRITTEN.get(runtime, _REWRITTEN_FOR_ANY)


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
_STATIC = "quantize-static"
INT8: Mapping[str, tuple[Numerics, ...]] = {
    "ort": (
        Numerics("int8 dynamic", (("quantize-dynamic", {}),)),
        Numerics("int8", ((_STATIC, {}),)),
        Numerics("int8 all", ((_STATIC, {"scope": "all"}),)),
    ),
    "openvino": (
        Numerics("int8", ((_STATIC, {"runtime": "openvino", "scope": "all"}),)),
        Numerics("int8 as for ort", ((_STATIC, {}),)),
    ),
}
"""8 bits by runtime. OpenVINO runs dynamic ones slowly; most models are faster in it rounded as it asks, but magika is
1.08 times faster than float32 so and 1.83 rounded as ONNX Runtime asks."""

_DECIBELS = (15, 20, 30)
"""What mixed precision is asked to keep: daring to harmless. The first that is kept ends it."""

RECOVERY: Mapping[str, tuple[str, ...]] = {
    "recovered": ("round-weights",),
    "smoothed": ("smooth-activations", "round-weights"),
}
"""Passes before ``quantize-static`` that win accuracy back without training, by a word for them.

Convolutions gain most by the first, transformers by the second. Behind ``round-weights`` there is nothing left for
``correct-bias`` to take back. Ranges are then chosen by what they do to the outputs."""

_ALONE: Mapping[str, Mapping[str, Any]] = {"smooth-activations": {"insert": True}}
"""Options of those that do not take the ones of ``quantize-static``."""


SCHEMES: Mapping[str, str] = {
    "int8": _STATIC,
    "mixed": "quantize-mixed",
    "int8-dynamic": "quantize-dynamic",
    "int4": "quantize-weights",
    "fp16": "cast-float16",
    "bf16": "cast-bfloat16",
}
"""The pass behind each scheme."""


def scheme_steps(scheme: str, **options: Any) -> Steps:
    """Return the passes that bring a model to a scheme, rewritten first.

    Args:
        scheme: One of ``SCHEMES``.
        options: Of the pass; those it does not have are left out.
    """
    name = SCHEMES[scheme]
    known = {option.name for option in describe(resolve("passes", name))}
    return (
        *rewritten_for(options.get("runtime", "ort")),
        (name, {key: value for key, value in options.items() if key in known}),
    )


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
        yield _candidate(rewritten_for(backend.name), FLOAT, backend)


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
    for backend in () if search.only else backends(search, target):
        for numerics in (*INT8.get(backend.name, ()), *(_small(backend.name) if small else ())):
            yield _candidate(graphs.get(backend, rewritten_for(backend.name)), numerics, backend)


def recovered_candidates(candidate: Candidate, *, convolutions: bool) -> Iterator[Candidate]:
    """Yield what to try in place of int8 that loses too much: the same int8 of a model made ready for it.

    Args:
        candidate: That loses too much.
        convolutions: Whether the model has any; without, only what helps transformers is tried.
    """
    uniform = candidate.numerics or FLOAT
    words = ("recovered", "smoothed") if convolutions else ("smoothed",)
    for name, options in uniform.passes if len(uniform.passes) == 1 else ():
        for word in words if name == _STATIC else ():
            before = ((one, _ALONE.get(one, options)) for one in RECOVERY[word])
            passes = (*before, (name, {**options, "method": "auto"}))
            yield _candidate(candidate.graph, Numerics(f"{uniform.word} {word}", passes), candidate.backend)


def refined_candidates(candidate: Candidate) -> Iterator[Candidate]:
    """Yield what to try then, or in place of int8 that is slow: int8 for only some layers."""
    for numerics in _mixed(candidate.numerics) if candidate.numerics else ():
        yield _candidate(candidate.graph, numerics, candidate.backend)


def on_the_other_graph(candidate: Candidate) -> Candidate:
    """Return the same numbers in the same runtime on the graph as it came, or rewritten: the one it is not on.

    Which graph a runtime runs faster in float does not decide it: magika is 2.28 times faster in 8 bits as it came and
    1.79 times rewritten, where both float graphs are alike.
    """
    assert candidate.numerics is not None
    graph = () if candidate.graph else rewritten_for(candidate.backend.name)
    return _candidate(graph, candidate.numerics, candidate.backend)


def _small(runtime: str) -> Iterator[Numerics]:
    """Yield what makes the file smaller and little else, from harmless to daring."""
    yield Numerics("float16 weights", (("cast-float16", {}),))
    for bits in (8, 4):
        yield Numerics(f"int{bits} weights", (("quantize-weights", {"runtime": runtime, "bits": bits}),))


def _mixed(uniform: Numerics) -> Iterator[Numerics]:
    for name, options in uniform.passes if len(uniform.passes) == 1 else ():
        for decibels in _DECIBELS if name == _STATIC else ():
            change = ("quantize-mixed", {**options, "min_sqnr": float(decibels)})
            yield Numerics(f"{uniform.word} mixed {decibels} dB", (change,))


def session_candidates(candidate: Candidate) -> Iterator[Candidate]:
    """Yield the candidate with other settings of its runtime."""
    for settings in SESSION.get(candidate.backend.name, ()):
        backend = make_backend(candidate.backend.name, {**candidate.backend.options, **settings})
        name = candidate.name.removesuffix(f" in {candidate.backend}")
        yield replace(candidate, name=f"{name} in {backend}", backend=backend)


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
