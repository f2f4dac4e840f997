"""The fingerprint that keeps figures of different machines apart."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from onnxopt.profile.machine import library_versions, this_machine


def test_load_does_not_change_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (0.1, 0.0, 0.0))
    idle = this_machine()
    monkeypatch.setattr("os.getloadavg", lambda: (64.0, 0.0, 0.0))
    busy = this_machine()
    assert (idle.load, busy.load) == (0.1, 64.0)
    assert idle.fingerprint == busy.fingerprint
    assert len(idle.fingerprint) == 64


@pytest.mark.parametrize(
    "change",
    [
        {"cpu": "another"},
        {"isa": ("neon",)},
        {"cores": 1000},
        {"memory_bytes": 1},
        {"system": "Linux 2.4"},
        {"libraries": {"onnxruntime": "0.1"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_changes_timings_changes_the_fingerprint(change: dict[str, Any]) -> None:
    machine = this_machine()
    assert dataclasses.replace(machine, **change).fingerprint != machine.fingerprint


def test_versions_of_absent_libraries_are_left_out() -> None:
    found = library_versions(["numpy", "no-such-distribution", "onnx"])
    assert list(found) == ["numpy", "onnx"]
    assert all(text[0].isdigit() for text in found.values())


def test_a_machine_prints_its_processor() -> None:
    machine = dataclasses.replace(this_machine(), cpu="Tiny 1", cores=2, isa=())
    assert str(machine) == "Tiny 1, 2 cores, no known ISA extensions"
