"""The record as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from onnxopt.pipeline.record import CandidateRecord, RunRecord, Status
from onnxopt.profile.statistics import Verdict
from onnxopt.report import words

_STYLES = {
    Status.BEST: "bold green",
    Status.BASELINE: "bold",
    Status.KEPT: "green",
    Status.REJECTED: "yellow",
    Status.FAILED: "red",
    Status.SKIPPED: "dim",
    Status.DUPLICATE: "dim",
}


def summary(record: RunRecord, out: Path | None = None) -> RenderableType:
    """Return the candidates, what was chosen, what to know, and where the files are."""
    return Group(_table(record), Text(), *_verdict(record), *_notes(record), *_files(out))


def steps(record: RunRecord) -> RenderableType:
    """Return why each pass of the result ran or did not, for ``--explain``."""
    table = Table("step", "ran", "why", "seconds", "nodes", "error", box=None, pad_edge=False)
    for step in record.best.steps:
        error = "-" if step.verification is None else f"{step.verification:.1e}"
        ran = "cached" if step.cached else "ran"
        table.add_row(step.name, ran, step.reason, f"{step.seconds:.2f}", str(step.nodes), error)
    return table


def _table(record: RunRecord) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for name in ("candidate", "latency", "speed-up", "size"):
        table.add_column(name, justify="left" if name == "candidate" else "right", overflow="fold")
    table.add_column(record.metric or "fidelity", justify="right")
    for name in ("drop", "SQNR") if record.metric else ("",):
        table.add_column(name, justify="right")
    table.add_column("verdict", ratio=1, overflow="fold")
    for candidate in record.candidates:
        table.add_row(*_cells(candidate, bool(record.metric)), style=_STYLES[candidate.status])
    return table


def _cells(candidate: CandidateRecord, scored: bool) -> Iterator[str]:
    yield candidate.name
    yield words.milliseconds(candidate.timing.p50 if candidate.timing else None)
    yield words.speed(candidate.speedup)
    yield words.size(candidate.size_bytes)
    if scored:
        yield from (words.score(candidate), words.drop(candidate), words.fidelity(candidate))
    else:
        yield from (words.fidelity(candidate), "")
    unhappy = candidate.status not in (Status.BEST, Status.BASELINE, Status.KEPT)
    yield f"{candidate.status}: {candidate.reason}" if unhappy else str(candidate.status)


def _verdict(record: RunRecord) -> Iterator[RenderableType]:
    best = record.best
    if record.shortfall:
        yield Text(f"A bound is missed: {record.shortfall}", style="bold red")
    if not record.improved:
        yield Text("Nothing tried is proved to be better than the input: the input is handed back.", style="bold")
        return
    if best.speedup is None:
        yield Text(f"{best.name}: speed was not measured", style="bold")
        yield Text(best.reason)
        return
    head = f"{best.name}: {best.speedup}, {words.milliseconds(best.timing.p50 if best.timing else None)} at the median"
    faster = best.speedup.verdict is Verdict.FASTER
    yield Text(head, style="bold green" if faster and not record.shortfall else "bold")
    yield Text(best.reason)


def _notes(record: RunRecord) -> Iterator[RenderableType]:
    data = record.data
    judged = f"judged on {data['evaluation']['samples']} samples"
    unseen = f"that calibration ({data['calibration']['samples']}) did not see"
    threads = f"{record.target['threads']} thread(s)"
    yield Text(f"{record.machine}; {threads}; {judged} {unseen}; {record.seconds:.0f} s", style="dim")
    for note in record.notes:
        yield Text(f"note: {note}", style="yellow")


def _files(out: Path | None) -> Iterator[RenderableType]:
    if out is not None:
        yield Text(f"wrote {out}/: model.onnx engine.json run.json recipe.lock.yaml report.html")
