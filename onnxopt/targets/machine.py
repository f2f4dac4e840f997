"""The processor this process runs on."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_ISA = {
    "avx2": "avx2",
    "avx512f": "avx512",
    "avx512_vnni": "avx512-vnni",
    "avx_vnni": "avx-vnni",
    "avx512_bf16": "avx512-bf16",
    "avx512_fp16": "avx512-fp16",
    "amx_int8": "amx-int8",
    "amx_bf16": "amx-bf16",
    "asimd": "neon",
    "asimddp": "neon-dot",
    "i8mm": "neon-i8mm",
    "bf16": "neon-bf16",
    "sve": "sve",
}
"""Linux's CPU flag → the name used here; the flags that decide which kernels a runtime picks."""


@dataclass(frozen=True, slots=True)
class Processor:
    """A CPU: model name, architecture, instruction sets that matter for inference, and usable cores."""

    model: str
    architecture: str
    isa: tuple[str, ...]
    cores: int


@cache
def processor() -> Processor:
    """Return this machine's CPU; the cores are those this process may use."""
    text = _CPUINFO.read_text() if _CPUINFO.exists() else ""
    flags = set((_field(text, "flags") or _field(text, "Features")).split())
    isa = tuple(name for flag, name in _ISA.items() if flag in flags)
    model = _field(text, "model name") or platform.processor() or platform.machine()
    return Processor(model, platform.machine(), isa, len(os.sched_getaffinity(0)))


def _field(text: str, name: str) -> str:
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
