"""Targets are rows of data; this machine is one of them."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onnxopt.errors import UsageError
from onnxopt.registry import names
from onnxopt.targets import machine
from onnxopt.targets.machine import Processor, processor
from onnxopt.targets.target import local_target, target, target_names

ROWS = [name for name in target_names() if name != "local"]
PRECISIONS = {"float32", "float16", "bfloat16", "int8"}


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Processor]]:
    """Return a function that gives the processor a text of /proc/cpuinfo stands for."""

    def read(text: str) -> Processor:
        (tmp_path / "cpuinfo").write_text(text)
        monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
        processor.cache_clear()
        return processor()

    yield read
    processor.cache_clear()


X86 = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R)\nflags\t\t: fpu sse {}\n\nprocessor\t: 1\nflags\t: none\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd {}\n"


@pytest.mark.parametrize(
    ("text", "isa", "precisions"),
    [
        (X86.format(""), (), ("float32",)),
        (X86.format("avx2"), ("avx2",), ("float32", "int8")),
        (X86.format("avx2 avx512f avx512_vnni"), ("avx2", "avx512", "avx512-vnni"), ("float32", "int8")),
        (
            X86.format("amx_bf16 avx2 avx512_bf16 amx_int8 avx512f avx512_fp16"),
            ("avx2", "avx512", "avx512-bf16", "avx512-fp16", "amx-int8", "amx-bf16"),
            ("float32", "int8", "bfloat16", "float16"),
        ),
        (ARM.format(""), ("neon",), ("float32",)),
        (
            ARM.format("asimddp bf16 i8mm"),
            ("neon", "neon-dot", "neon-i8mm", "neon-bf16"),
            ("float32", "int8", "bfloat16"),
        ),
    ],
)
def test_this_machine_is_what_the_kernel_says(
    cpuinfo: Callable[[str], Processor], text: str, isa: tuple[str, ...], precisions: tuple[str, ...]
) -> None:
    assert cpuinfo(text).isa == isa
    assert local_target().isa == isa
    assert local_target().precisions == precisions


def test_name_and_cores(cpuinfo: Callable[[str], Processor]) -> None:
    found = cpuinfo(X86.format("avx2"))

    assert found.model == "Intel(R) Xeon(R)"
    assert found.architecture == platform.machine()
    assert found.cores == len(os.sched_getaffinity(0))


def test_a_kernel_that_says_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "none")
    processor.cache_clear()

    assert processor().isa == ()
    assert processor().model
    processor.cache_clear()


def test_local_is_the_default_and_comes_first() -> None:
    assert target() == target("local") == local_target()
    assert target_names()[0] == "local"
    assert target().is_local
    assert target().threads == 1


@pytest.mark.parametrize("name", ROWS)
def test_rows_hold_together(name: str) -> None:
    row = target(name)

    assert row.name == name
    assert not row.is_local
    assert row.device in ("cpu", "gpu")
    assert row.precisions[0] == "float32"
    assert set(row.precisions) <= PRECISIONS
    assert set(row.runtimes) <= {*names("backends"), "tensorrt"}
    assert row.device == "gpu" or set(row.isa) <= set(machine._ISA.values())
    assert bool(row.source) == (row.price_per_hour is not None or row.watts is not None)


@pytest.mark.parametrize("name", [name for name in ROWS if target(name).device == "cpu"])
def test_rows_agree_with_a_machine_of_that_kind(cpuinfo: Callable[[str], Processor], name: str) -> None:
    row = target(name)
    flags = {isa: flag for flag, isa in machine._ISA.items()}

    cpuinfo(f"flags : {' '.join(flags[isa] for isa in row.isa)}")
    assert local_target().isa == row.isa
    assert local_target().precisions == row.precisions


def test_unknown_names_suggest_the_closest() -> None:
    with pytest.raises(UsageError) as caught:
        target("x86-avx3")
    assert caught.value.what == "there is no target 'x86-avx3'"
    assert caught.value.hint == "did you mean 'x86-avx2'?"


def test_threads_make_another_target() -> None:
    row = target("x86-amx")

    assert row.with_threads(4).threads == 4
    assert row.threads == 1
    assert row.with_threads(1) == row
