"""What follows from a target for each scheme, as data."""

from __future__ import annotations

import pytest

from onnxopt.errors import UsageError
from onnxopt.targets.target import target, target_names
from onnxopt.targets.ways import check_runtime, find_way, saturates, schemes_of

CPUS = [name for name in target_names() if name != "local" and target(name).device == "cpu"]
EVERY = ("int8", "mixed", "int8-dynamic", "int4", "fp16", "bf16")


@pytest.mark.parametrize(
    ("name", "scheme", "options", "narrow", "why"),
    [
        ("x86-avx2", "int8", {}, True, "saturate"),
        ("x86-avx2", "mixed", {}, True, "saturate"),
        ("x86-avx2", "int8-dynamic", {"reduce_range": True}, False, "all weights get 7 bits"),
        ("x86-avx2", "int4", {}, False, "stored in fewer bits"),
        ("x86-avx512-vnni", "int8", {}, False, "VNNI"),
        ("x86-avx512-vnni", "int8-dynamic", {}, False, "VNNI"),
        ("x86-amx", "mixed", {}, False, "VNNI"),
        ("arm64-dot", "int8", {}, False, "uint8 activations"),
        ("arm64-i8mm", "mixed", {}, False, "uint8 activations"),
        ("arm64-i8mm", "bf16", {}, False, "stored in fewer bits"),
        ("nvidia-t4", "int8", {}, False, "zero points are 0"),
        ("nvidia-t4", "fp16", {"mode": "compute"}, False, "computes in float16"),
    ],
)
def test_options_follow_from_what_the_target_is(
    name: str, scheme: str, options: dict[str, object], narrow: bool, why: str
) -> None:
    row = target(name)
    way = find_way(row, row.runtimes[0], scheme)
    assert (way.options, way.narrow) == (options, narrow)
    assert why in way.why


@pytest.mark.parametrize("name", CPUS)
def test_a_cpu_takes_every_scheme_in_each_runtime_it_has(name: str) -> None:
    row = target(name)
    for runtime in row.runtimes:
        assert schemes_of(row, runtime) == EVERY


@pytest.mark.parametrize(
    ("name", "runtime", "scheme"),
    [
        ("nvidia-t4", "ort", "int8"),
        ("nvidia-t4", "tensorrt", "bf16"),
        ("nvidia-t4", "tensorrt", "mixed"),
        ("nvidia-t4", "tensorrt", "int8-dynamic"),
        ("nvidia-t4", "tensorrt", "int4"),
    ],
)
def test_what_a_target_cannot_run_is_refused_with_what_it_can(name: str, runtime: str, scheme: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_way(target(name), runtime, scheme)
    assert caught.value.what == f"{runtime} on target {name!r} does not run scheme {scheme!r}"
    assert caught.value.hint == "what runs there: int8 in tensorrt, fp16 in tensorrt, fp16 in ort"


def test_a_runtime_the_target_does_not_have_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        find_way(target("arm64-dot"), "tensorrt", "int8")
    assert caught.value.what == "target 'arm64-dot' has no runtime 'tensorrt'"
    assert caught.value.hint == "did you mean 'ort'?"
    check_runtime(target("arm64-dot"), "ort")


def test_only_x86_without_vnni_saturates() -> None:
    assert [name for name in target_names() if name != "local" and saturates(target(name))] == ["x86-avx2"]
