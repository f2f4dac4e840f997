"""What ``optimize`` may try, as values."""

from __future__ import annotations

import pytest

from onnxopt.passes import make_pass
from onnxopt.pipeline.candidates import (
    SCHEMES,
    Candidate,
    numeric_candidates,
    on_the_other_graph,
    recovered_candidates,
    refined_candidates,
    scheme_steps,
)
from onnxopt.recipe.recipe import SearchSpec
from onnxopt.targets.target import target


def _numeric(runtime: str, *, small: bool = False) -> dict[str, Candidate]:
    spec = SearchSpec(runtime=runtime)
    where = target("x86-avx512-vnni")
    return {one.name: one for one in numeric_candidates(spec, where, {}, small=small)}


def test_each_runtime_gets_8_bits_as_it_wants_them() -> None:
    found = _numeric("any")
    options = {name: one.passes[-1].options for name, one in found.items() if one.passes[-1].name == "quantize-static"}
    assert {name: (told["runtime"], told["scope"]) for name, told in options.items()} == {
        "rewritten int8 in ort": ("ort", "compute"),
        "rewritten int8 all in ort": ("ort", "all"),
        "rewritten int8 in openvino": ("openvino", "all"),
        "rewritten int8 as for ort in openvino": ("ort", "compute"),
    }
    assert [name for name in found if "dynamic" in name] == ["rewritten int8 dynamic in ort"]


def test_8_bits_that_fail_are_tried_for_fewer_layers_with_the_same_options() -> None:
    found = _numeric("any")
    refined = list(refined_candidates(found["rewritten int8 in openvino"]))
    assert [one.name for one in refined] == [f"rewritten int8 mixed {db} dB in openvino" for db in (15, 20, 30)]
    for one, decibels in zip(refined, (15, 20, 30), strict=True):
        told = one.passes[-1].options
        assert (told["runtime"], told["scope"], told["min_sqnr"]) == ("openvino", "all", decibels)
    assert not list(refined_candidates(refined[0]))
    assert not list(refined_candidates(found["rewritten int8 dynamic in ort"]))


def test_the_other_graph_has_the_same_numbers_in_the_same_runtime() -> None:
    rewritten = _numeric("any")["rewritten int8 all in ort"]
    plain = on_the_other_graph(rewritten)
    assert (plain.name, plain.passes) == ("int8 all in ort", rewritten.passes[1:])
    assert plain.backend == rewritten.backend
    assert on_the_other_graph(plain) == rewritten


def test_8_bits_that_lose_too_much_are_tried_on_a_model_made_ready_for_them() -> None:
    found = _numeric("any")
    before = ["smooth-activations", "round-weights", "quantize-static"]
    uniform = found["rewritten int8 in openvino"]
    recovered = list(recovered_candidates(uniform, convolutions=True))
    assert recovered[1:] == list(recovered_candidates(uniform, convolutions=False))
    assert [one.name for one in recovered] == [
        f"rewritten int8 {word} in openvino" for word in ("recovered", "smoothed")
    ]
    assert [[change.name for change in one.passes] for one in recovered] == [
        ["rewrite", *before[1:]],
        ["rewrite", *before],
    ]
    for one in recovered:
        told = [change.options for change in one.passes if "runtime" in change.options]
        assert {(options["runtime"], options["scope"]) for options in told} == {("openvino", "all")}
        assert len(told) == 2
        assert not list(recovered_candidates(one, convolutions=True))
        assert not list(refined_candidates(one))
    assert not list(recovered_candidates(found["rewritten int8 dynamic in ort"], convolutions=True))


def test_what_only_makes_the_file_smaller_is_tried_where_size_matters() -> None:
    small = set(_numeric("ort", small=True)) - set(_numeric("ort"))
    assert small == {f"rewritten {word} weights in ort" for word in ("float16", "int8", "int4")}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_is_passes_with_options_they_have(scheme: str) -> None:
    made = [make_pass(name, options) for name, options in scheme_steps(scheme, min_sqnr=25.0, runtime="openvino")]
    assert made[0].name == "rewrite"
    assert len(made) == 2
    assert made[1].options.get("runtime", "openvino") == "openvino"
    assert made[1].options.get("min_sqnr", 25.0) == 25.0
