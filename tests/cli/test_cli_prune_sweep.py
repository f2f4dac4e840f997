"""``onnxopt prune --sweep``: a model a share, a page, and nothing done twice."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from onnxopt import api
from onnxopt.cli.main import app
from onnxopt.data.files import write_samples
from onnxopt.errors import UsageError
from onnxopt.ir.read import read_model
from onnxopt.pipeline.events import Event, StepDone
from onnxopt.pipeline.record import restore
from onnxopt.pipeline.sweeping import Sweep
from onnxopt.report.swept import swept_page
from tests.graphs import cnn, samples, saved

SHARES = [0.5, 0.75]
ALIGNED = {"align": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("sweep")
    saved(cnn(), made / "cnn.onnx")
    write_samples(samples(cnn(), 12, labels=True), made / "data")
    return made


@pytest.fixture(scope="module")
def swept(folder: Path) -> Result:
    words = ["prune", "cnn.onnx", "--sweep", "50%, 75%", "--option", "align=1", "--data", "data", "--metric", "top1"]
    return run(folder, *words, "--seconds", "0.1", "--json", "--out", "swept")


def run(folder: Path, *words: str) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return CliRunner().invoke(app, [*words, "--cache", str(folder / "cache")])


def test_each_share_is_a_model_that_was_scored_and_timed(folder: Path, swept: Result) -> None:
    assert swept.exit_code == 0, swept.output
    found = restore(Sweep, json.loads(swept.stdout))
    assert [one.asked for one in found.models] == [0.75, 0.5]
    widths = [read_model(folder / "swept" / one.file).graph.graph.initializers["w1"].shape[0] for one in found.models]
    assert [one.file for one in found.models] == ["cnn-75.onnx", "cnn-50.onnx"]
    assert (cnn().graph.graph.initializers["w1"].shape[0], *widths) == (6, 5, 3)
    assert [one.macs for one in found.models] == pytest.approx([5 / 6, 3 / 6])
    assert found.metric == "top1"
    assert all(one.scores.baseline == found.baseline and one.speedup.launches for one in found.models)
    assert json.loads((folder / "swept" / "sweep.json").read_text()) == json.loads(swept.stdout)


def test_the_page_draws_what_was_lost_and_what_was_gained(folder: Path, swept: Result) -> None:
    page = (folder / "swept" / "report.html").read_text()
    line = next(line for line in page.splitlines() if line.startswith("const figures = "))
    accuracy, latency = json.loads(line[len("const figures = ") : -1]).values()
    found = restore(Sweep, json.loads(swept.stdout))
    by_macs = sorted(found.models, key=lambda one: one.macs)
    assert accuracy["data"][0]["y"] == [one.scores.score.value for one in by_macs if one.scores.score]
    assert accuracy["layout"]["shapes"][0]["y0"] == found.baseline
    assert latency["data"][0]["y"] == [100 / one.speedup.ratio for one in by_macs]
    assert latency["data"][1]["y"] == latency["data"][1]["x"] == [100 * one.macs for one in by_macs]


def test_a_sweep_again_does_nothing_again_and_one_more_share_only_that(folder: Path, swept: Result) -> None:
    assert swept.exit_code == 0
    steps: list[Event] = []
    given = {"options": ALIGNED, "data": str(folder / "data"), "metric": "top1", "cache": folder / "cache"}
    again = api.sweep_model(folder / "cnn.onnx", folder / "again", SHARES, **given, seconds=0.1, listen=steps.append)
    done = [step for step in steps if isinstance(step, StepDone)]
    assert len(done) >= 6
    assert all(step.cached for step in done)
    assert [one.macs for one in again.models] == [one.macs for one in restore(Sweep, json.loads(swept.stdout)).models]
    assert read_model(folder / "again/cnn-50.onnx").digest == read_model(folder / "swept/cnn-50.onnx").digest


def test_without_a_metric_fidelity_is_drawn_and_notes_are_told(swept: Result) -> None:
    found = restore(Sweep, json.loads(swept.stdout))
    models = tuple(replace(one, scores=replace(one.scores, score=None, drop=None)) for one in found.models)
    page = swept_page(replace(found, metric=None, baseline=None, models=models, notes=("inputs were <made up>",)))
    drift = models[0].scores.drift
    assert drift is not None
    assert f"the lowest output keeps {drift.sqnr_db:.1f} dB" in page
    assert "inputs were &lt;made up&gt;" in page
    assert "Fidelity against what is left" in page


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--sweep", "50%", "--macs", "50%"), "a sweep and a goal"),
        (("--sweep", "100%,50%"), "1 leaves nothing or everything"),
        (("--sweep", "0"), "0 leaves nothing or everything"),
        (("--sweep", ","), "there are no shares"),
        (("--sweep", "half"), "'half' is not a share"),
        (("--sweep", "50%", "--method", "n-m"), "leaves n of every m"),
    ],
)
def test_wrong_use_of_a_sweep_is_told_and_writes_nothing(folder: Path, words: tuple[str, ...], text: str) -> None:
    done = run(folder, "prune", "cnn.onnx", *words, "--out", "wrong")
    assert isinstance(done.exception, UsageError)
    assert text in str(done.exception)
    assert not (folder / "wrong").exists()
