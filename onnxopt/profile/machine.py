"""The machine a figure was measured on, so that figures of different machines are never compared unawares."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import psutil

from onnxopt.targets.machine import processor

LIBRARIES = ("onnxopt", "onnx", "onnx-ir", "onnxruntime", "openvino", "numpy")


@dataclass(frozen=True, slots=True)
class Machine:
    """What a measurement depends on.

    Attributes:
        cpu: Model name.
        architecture: ``x86_64``, ``aarch64``.
        isa: Instruction sets that decide which kernels run.
        cores: Cores this process may use.
        memory_bytes: Of the machine.
        system: Operating system and kernel.
        python: Version.
        libraries: Versions of the distributions that matter, absent ones left out.
        load: One-minute load average when it was recorded; not part of the fingerprint.
    """

    cpu: str
    architecture: str
    isa: tuple[str, ...]
    cores: int
    memory_bytes: int
    system: str
    python: str
    libraries: dict[str, str]
    load: float

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that makes timings comparable: hardware, system and library versions."""
        stable = {key: value for key, value in asdict(self).items() if key != "load"}
        return hashlib.sha256(json.dumps(stable, sort_keys=True).encode()).hexdigest()

    def __str__(self) -> str:
        return f"{self.cpu}, {self.cores} cores, {', '.join(self.isa) or 'no known ISA extensions'}"


def this_machine() -> Machine:
    """Return the machine this process runs on, as it is now."""
    cpu = processor()
    return Machine(
        cpu=cpu.model,
        architecture=cpu.architecture,
        isa=cpu.isa,
        cores=cpu.cores,
        memory_bytes=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        libraries=library_versions(LIBRARIES),
        load=os.getloadavg()[0],
    )


def library_versions(names: Sequence[str]) -> dict[str, str]:
    """Return the installed version of each distribution; those that are not installed are left out."""
    found = {name: _version(name) for name in names}
    return {name: text for name, text in found.items() if text is not None}


@cache
def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
