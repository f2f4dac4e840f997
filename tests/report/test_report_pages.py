"""The report: self-contained, honest about what was rejected, and drawn by a real browser."""

import io
import json
import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from onnxopt.evaluate.drift import Drift, OutputDrift
from onnxopt.evaluate.score import Interval, Scores
from onnxopt.pipeline.record import CandidateRecord, RunRecord, Status, StepRecord
from onnxopt.profile.latency import Timing
from onnxopt.profile.machine import this_machine
from onnxopt.profile.statistics import speedup
from onnxopt.report.html import html_page
from onnxopt.report.terminal import summary


def candidate(name, status, latency, *, drop=0.0, sqnr=60.0, reason="as it should be") -> CandidateRecord:
    times = tuple(latency * (1 + 0.01 * (i % 7)) for i in range(60))
    drift = Drift((OutputDrift("scores", sqnr, 0.1, 0.99, 1.0, 0, constant=False, elements=100),))
    return CandidateRecord(
        name,
        status,
        reason,
        "ort",
        {"graph_optimization": "all"},
        steps=(StepRecord("rewrite", {"growth": 65536}, "d" * 64, False, "never run before", 1.5, 40, 1e-6),),
        digest="d" * 64,
        nodes=40,
        size_bytes=1_200_000,
        operators={"Conv": 20, "Relu": 20},
        timing=Timing(times, load_seconds=0.05, peak_memory_bytes=90_000_000),
        speedup=speedup([0.01 / latency * (1 + 0.001 * i) for i in range(15)]),
        scores=Scores(100, 100, "top1", Interval(0.9 - drop, 0.85, 0.95), 0.9, Interval(drop, 0.0, 0.02), drift),
    )


@pytest.fixture
def record() -> RunRecord:
    baseline = candidate("input", Status.BASELINE, 0.01, sqnr=200.0)
    best = candidate("int8 in ort", Status.BEST, 0.004, drop=0.004, sqnr=31.0)
    lossy = candidate("int8 all in ort", Status.REJECTED, 0.003, drop=0.2, reason="lost 20% <of> the metric & more")
    failed = CandidateRecord("crashing </script> in ort", Status.FAILED, "it died", "ort", {})
    return RunRecord(
        command="onnxopt optimize model.onnx",
        model={"path": "net/<model>.onnx", "digest": "a" * 64, "size_bytes": 2_400_000, "nodes": 60},
        machine=this_machine(),
        baseline=replace(baseline, nodes=60, operators={"Conv": 20, "Identity": 20, "Relu": 20}),
        best=best,
        candidates=(baseline, best, lossy, failed),
        data={
            "calibration": {"samples": 32, "fingerprint": "b" * 64, "synthetic": False},
            "evaluation": {"samples": 100, "fingerprint": "c" * 64, "synthetic": False},
        },
        metric="top1",
        budget={"max_drop": 0.01, "min_sqnr": 20.0, "min_agreement": 0.99},
        limits={"latency": None, "size": None},
        objective="latency",
        target={"name": "local", "threads": 1},
        notes=("the reader must know this",),
        seconds=12.0,
        seed=0,
        created="2026-01-01T00:00:00+00:00",
    )


def test_the_page_needs_no_network(record):
    page = html_page(record)
    outside = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"(src|href)\s*=", outside)
    assert "@import" not in outside
    assert page.count("<script>") == 2


def test_the_page_tells_everything(record):
    page = html_page(record)
    for text in (
        "int8 in ort: 2.5",
        "the reader must know this",
        "rejected: lost 20% &lt;of&gt; the metric &amp; more",
        "failed: it died",
        "crashing &lt;/script&gt; in ort",
        "Identity",
        "onnxopt optimize model.onnx",
        "never run before",
        "100 samples",
    ):
        assert text in page


def test_names_from_the_model_cannot_end_the_script(record):
    page = html_page(record)
    data = page[page.index("const figures = ") :]
    assert "</script> in ort" not in data[: data.index("for (const")]


def test_the_terminal_tells_the_same(record):
    from rich.console import Console

    console = Console(width=220, record=True, markup=False, file=io.StringIO())
    console.print(summary(record))
    told = console.export_text()
    for text in (
        "int8 in ort",
        "2.5",
        "rejected: lost 20%",
        "failed: it died",
        "0.40 %",
        "31.0 dB",
        "note: the reader",
    ):
        assert text in told


def test_nothing_better_is_said_plainly(record):
    record = replace(record, best=record.baseline)
    assert "the input is handed back" in html_page(record)


def test_nan_becomes_null_in_the_record(record):
    scores = replace(record.best.scores, score=Interval(float("nan"), None, None))
    values = json.loads(replace(record, best=replace(record.best, scores=scores)).to_json())
    assert values["best"]["scores"]["score"]["value"] is None


@pytest.mark.chromium
def test_a_browser_draws_both_charts(record, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    page = tmp_path / "report.html"
    page.write_text(html_page(record))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    flags += ["--no-first-run", "--virtual-time-budget=10000", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [chromium, *flags, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    drawn = done.stdout.replace(page.read_text(), "")
    assert drawn.count('class="main-svg"') >= 2
    assert "median latency, ms" in drawn[drawn.index('class="main-svg"') :]
    assert "latency of one run, ms" in drawn[drawn.index('class="main-svg"') :]
    shot = tmp_path / "report.png"
    subprocess.run(
        [chromium, *flags, "--window-size=1200,2600", f"--screenshot={shot}", page.as_uri()],
        capture_output=True,
        timeout=120,
        check=True,
    )
    assert shot.read_bytes().startswith(b"\x89PNG")
    assert shot.stat().st_size > 50_000
