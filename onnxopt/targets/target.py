"""A target: where an artefact will run. Data only; a new one is a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from onnxopt.errors import UsageError, did_you_mean
from onnxopt.targets.machine import processor

LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Target:
    """What a machine can run.

    Attributes:
        name: What recipes call it.
        device: ``cpu`` or ``gpu``.
        isa: Instruction sets, in the words of ``targets.machine``.
        runtimes: Names of backends that run there.
        precisions: Numeric types with kernels faster than emulation.
        max_opset: Highest default-domain opset all its runtimes take.
        threads: Threads one inference may use.
        price_per_hour: US dollars on demand, or None where there is no list price.
        watts: Power under load of the device, or None if unknown.
        source: Where price and power come from.
    """

    name: str
    device: str
    isa: tuple[str, ...]
    runtimes: tuple[str, ...]
    precisions: tuple[str, ...]
    max_opset: int
    threads: int = 1
    price_per_hour: float | None = None
    watts: float | None = None
    source: str = ""

    @property
    def is_local(self) -> bool:
        """Whether this is the machine the process runs on, so that measuring on it means something."""
        return self.name == LOCAL

    def with_threads(self, threads: int) -> Target:
        """Return the same target with another number of threads."""
        return replace(self, threads=threads)


def target(name: str = LOCAL) -> Target:
    """Return a target by name.

    Raises:
        UsageError: There is no such target.
    """
    if name == LOCAL:
        return local_target()
    if name not in _ROWS:
        raise UsageError(f"there is no target {name!r}", hint=did_you_mean(name, target_names()))
    return _ROWS[name]


def target_names() -> tuple[str, ...]:
    """Return the known targets, this machine first."""
    return (LOCAL, *_ROWS)


def local_target() -> Target:
    """Return this machine as a target, one thread."""
    cpu = processor()
    return Target(LOCAL, "cpu", cpu.isa, ("ort", "openvino"), _precisions(cpu.isa), max_opset=_MAX_OPSET)


def _precisions(isa: tuple[str, ...]) -> tuple[str, ...]:
    return ("float32", *(precision for precision, needs in _FAST.items() if needs & set(isa)))


_MAX_OPSET = 25
"""The newest opset onnxruntime 1.24 and OpenVINO 2025.4 both read."""

_FAST: Mapping[str, frozenset[str]] = {
    "int8": frozenset({"avx2", "avx512-vnni", "avx-vnni", "amx-int8", "neon-dot", "neon-i8mm"}),
    "bfloat16": frozenset({"avx512-bf16", "amx-bf16", "neon-bf16"}),
    "float16": frozenset({"avx512-fp16"}),
}

_AWS = "AWS on-demand list price, us-east-1, Linux"
_X86 = ("ort", "openvino")
_ROWS: Mapping[str, Target] = {
    row.name: row
    for row in (
        Target("x86-avx2", "cpu", ("avx2",), _X86, ("float32", "int8"), _MAX_OPSET),
        Target(
            "x86-avx512-vnni",
            "cpu",
            ("avx2", "avx512", "avx512-vnni"),
            _X86,
            ("float32", "int8"),
            _MAX_OPSET,
            price_per_hour=0.085,
            source=f"{_AWS}: c6i.large",
        ),
        Target(
            "x86-amx",
            "cpu",
            ("avx2", "avx512", "avx512-vnni", "avx512-bf16", "amx-int8", "amx-bf16"),
            _X86,
            ("float32", "int8", "bfloat16"),
            _MAX_OPSET,
            price_per_hour=0.08925,
            source=f"{_AWS}: c7i.large",
        ),
        Target(
            "arm64-dot",
            "cpu",
            ("neon", "neon-dot"),
            ("ort",),
            ("float32", "int8"),
            _MAX_OPSET,
            watts=12.0,
            source="Raspberry Pi 5: power measured by its maker under load",
        ),
        Target(
            "arm64-i8mm",
            "cpu",
            ("neon", "neon-dot", "neon-i8mm", "neon-bf16", "sve"),
            ("ort",),
            ("float32", "int8", "bfloat16"),
            _MAX_OPSET,
            price_per_hour=0.0725,
            source=f"{_AWS}: c7g.large",
        ),
        Target(
            "nvidia-t4",
            "gpu",
            ("sm75",),
            ("tensorrt", "ort"),
            ("float32", "float16", "int8"),
            _MAX_OPSET,
            price_per_hour=0.526,
            watts=70.0,
            source=f"{_AWS}: g4dn.xlarge; NVIDIA T4 data sheet",
        ),
    )
}
