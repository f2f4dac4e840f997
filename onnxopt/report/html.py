"""The record as one HTML page that needs no network: everything, the charts' script too, is inside."""

from __future__ import annotations

from pathlib import Path

from onnxopt.pipeline.record import CandidateRecord, RunRecord
from onnxopt.report import figures, words
from onnxopt.report.page import chart, section, table, whole_page


def html_page(record: RunRecord) -> str:
    """Return the page."""
    return whole_page(
        title=Path(record.model["path"]).name,
        headline=_headline(record),
        subtitle=f"{record.model['path']} on {record.machine}, {record.created}",
        tiles=_tiles(record),
        notes=record.notes,
        sections=(
            section("Accuracy against latency", chart("pareto")),
            section("Latency distributions", chart("latency")),
            section("What was tried", _candidates(record)),
            section("The graph, before and after", _graph(record)),
            section("How the result was made", _steps(record.best)),
            section("Where and on what", _setting(record)),
        ),
        figures={"pareto": figures.pareto(record), "latency": figures.latency(record)},
    )


def _headline(record: RunRecord) -> str:
    if record.shortfall:
        return f"A bound is missed: {record.shortfall}"
    if not record.improved:
        return "Nothing tried is proved to be better than the input: the input is handed back"
    return f"{record.best.name}: {record.best.speedup}"


def _tiles(record: RunRecord) -> list[tuple[str, str]]:
    best, baseline = record.best, record.baseline
    return [
        ("speed-up, 95 % interval", words.speed(best.speedup) if record.improved else "1x"),
        ("median latency", words.milliseconds(best.timing.p50 if best.timing else None)),
        (f"loss of {record.metric}" if record.metric else "fidelity", _loss(record)),
        ("size", f"{words.size(baseline.size_bytes)} → {words.size(best.size_bytes)}"),
        ("peak memory", words.size(best.timing.peak_memory_bytes if best.timing else None)),
    ]


def _loss(record: RunRecord) -> str:
    return words.drop(record.best) if record.metric else words.fidelity(record.best)


def _candidates(record: RunRecord) -> str:
    head = ["candidate", "latency", "speed-up", "size", "memory", record.metric or "", "drop", "SQNR", "verdict"]
    rows = []
    for candidate in record.candidates:
        timing = candidate.timing
        cells = [
            candidate.name,
            words.milliseconds(timing.p50 if timing else None),
            words.speed(candidate.speedup),
            words.size(candidate.size_bytes),
            words.size(timing.peak_memory_bytes if timing else None),
            words.score(candidate),
            words.drop(candidate),
            words.fidelity(candidate),
            f"{candidate.status}: {candidate.reason}",
        ]
        rows.append((str(candidate.status), cells))
    return table(head, rows, numbers=range(1, 8))


def _graph(record: RunRecord) -> str:
    before, after = record.baseline, record.best
    rows = [
        ["nodes", str(before.nodes), str(after.nodes)],
        ["file size", words.size(before.size_bytes), words.size(after.size_bytes)],
    ]
    kinds = sorted({*before.operators, *after.operators}, key=lambda kind: (-before.operators.get(kind, 0), kind))
    for kind in kinds:
        counts = before.operators.get(kind, 0), after.operators.get(kind, 0)
        rows.append([kind, *(str(count) if count else "" for count in counts)])
    return table(["", "before", "after"], [("", row) for row in rows], numbers=(1, 2))


def _steps(best: CandidateRecord) -> str:
    rows = []
    for step in best.steps:
        told = ", ".join(f"{key}={value}" for key, value in step.options.items())
        error = "" if step.verification is None else f"{step.verification:.1e}"
        rows.append(("", [step.name, told, str(step.nodes), error, step.reason, "; ".join(step.warnings)]))
    if not rows:
        return "<p>The model is the input, unchanged.</p>"
    return table(["pass", "options", "nodes", "error", "why it ran", "warnings"], rows, numbers=(2, 3))


def _setting(record: RunRecord) -> str:
    data = record.data
    rows = [
        ["command", record.command],
        ["machine", f"{record.machine}; {record.machine.system}; load {record.machine.load:.2f}"],
        ["threads", str(record.target["threads"])],
        ["libraries", ", ".join(f"{name} {version}" for name, version in record.machine.libraries.items())],
        ["calibration", f"{data['calibration']['samples']} samples, {data['calibration']['fingerprint'][:12]}"],
        ["evaluation", f"{data['evaluation']['samples']} samples, {data['evaluation']['fingerprint'][:12]}"],
        ["budget", ", ".join(f"{key} {value:g}" for key, value in record.budget.items())],
        ["seed", str(record.seed)],
        ["duration", f"{record.seconds:.0f} s"],
    ]
    return table(["", ""], [("", row) for row in rows])
