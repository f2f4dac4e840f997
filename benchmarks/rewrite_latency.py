"""What rewriting does to latency, after the runtimes' own optimisers, and which family of rules does it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnxopt
from onnxopt.context import Context, Event, Fired
from onnxopt.ir.read import read_model
from onnxopt.ir.write import write_model
from onnxopt.passes import make_pass
from onnxopt.profile.statistics import Speedup, Verdict
from onnxopt.rewrite.rules import FAMILIES

RUNTIMES = ("ort", "openvino")
SECONDS = 6.0
"""Measured for one comparison, over all launches."""


def effect(model: Path, data: Path | None) -> list[str]:
    """Return a line a runtime: how many times faster the rewritten model is, and the families that matter.

    A family matters if the rewritten model is faster than what the other families alone make of it.
    """
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        fired = _rewritten(model, Path(folder) / "all.onnx")
        for runtime in RUNTIMES:
            whole = _speedup(model, Path(folder) / "all.onnx", runtime, data)
            told = f"{runtime} {whole.ratio:.2f}x [{whole.low:.2f}, {whole.high:.2f}] {whole.verdict.value}"
            if whole.verdict is Verdict.FASTER:
                families = _deciding(model, Path(folder), fired, runtime, data)
                told += f", by {', '.join(families) or 'all together'}"
            lines.append(told)
    return lines


def _rewritten(model: Path, out: Path, skip: Sequence[str] = ()) -> list[str]:
    """Write the rewritten model; return the families that fired."""
    events: list[Event] = []
    with tempfile.TemporaryDirectory() as scratch:
        context = Context.of(scratch=Path(scratch), emit=events.append)
        write_model(make_pass("rewrite", {"skip": skip})(read_model(model), context), out)
    rules = {event.rule for event in events if isinstance(event, Fired)}
    return [family for family, members in FAMILIES.items() if rules & {rule.name for rule in members}]


def _deciding(model: Path, folder: Path, fired: Sequence[str], runtime: str, data: Path | None) -> list[str]:
    """Return the families without which the rewritten model is slower."""
    found = []
    for family in fired:
        without = folder / f"without-{family}.onnx"
        if not without.exists():
            _rewritten(model, without, [family])
        if _speedup(without, folder / "all.onnx", runtime, data).verdict is Verdict.FASTER:
            found.append(family)
    return found


def _speedup(model: Path, made: Path, runtime: str, data: Path | None) -> Speedup:
    found = onnxopt.profile_model(
        made, runtime=runtime, versus=model, data=str(data) if data else None, threads=1, seconds=SECONDS
    )
    assert found.speedup is not None
    return found.speedup
