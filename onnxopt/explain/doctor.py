"""Is this installation fit for the work?"""

from __future__ import annotations

from dataclasses import dataclass

from onnxopt.compile.engine import make_backend
from onnxopt.profile.machine import Machine, library_versions, this_machine
from onnxopt.registry import names

_FEATURES = {
    "openvino": ("openvino", "OpenVINO engines", "pip install 'onnxopt[openvino]'"),
    "torch": ("torch", "export from torch", "pip install 'onnxopt[torch]'"),
    "onnxsim": ("onnxsim", "onnxsim as a simplifier to try", "pip install 'onnxopt[onnxsim]'"),
    "onnxslim": ("onnxslim", "OnnxSlim as a simplifier to try", "pip install 'onnxopt[onnxslim]'"),
    "pillow": ("pillow", "image folders as data", "pip install 'onnxopt[images]'"),
    "tokenizers": ("tokenizers", "texts as data", "pip install 'onnxopt[text]'"),
}
"""Distribution, what it is for, how to get it."""

_FOR_TESTS = ("fake",)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What it is.
        fine: Whether it is as it should be; None for what is only missing an optional feature.
        told: Version, or what is missing and how to get it.
    """

    name: str
    fine: bool | None
    told: str


@dataclass(frozen=True)
class Diagnosis:
    """The machine, and what was found."""

    machine: Machine
    findings: tuple[Finding, ...]


def examine() -> Diagnosis:
    """Return what this installation can and cannot do."""
    machine = this_machine()
    return Diagnosis(machine, (*_backends(), *_features(), *_cpu(machine)))


def _backends() -> list[Finding]:
    found = []
    for name in names("backends"):
        if name in _FOR_TESTS:
            continue
        missing = make_backend(name).unavailable()
        found.append(Finding(f"runtime {name}", None if missing else True, missing or "available"))
    return found


def _features() -> list[Finding]:
    installed = library_versions([distribution for distribution, _, _ in _FEATURES.values()])
    return [
        Finding(f"{distribution} ({purpose})", distribution in installed or None, installed.get(distribution, how))
        for distribution, purpose, how in _FEATURES.values()
    ]


def _cpu(machine: Machine) -> list[Finding]:
    vnni = {"avx512-vnni", "avx-vnni", "neon-dot"} & set(machine.isa)
    told = "8-bit kernels do not saturate" if vnni else "8-bit kernels may saturate: onnxopt explain tells where"
    busy = machine.load > 0.5 * machine.cores
    load = f"load {machine.load:.2f} on {machine.cores} cores" + (": timings will be noisy" if busy else "")
    return [Finding("int8 dot product instructions", bool(vnni) or None, told), Finding("load", not busy or None, load)]
