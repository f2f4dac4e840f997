"""The search: what it keeps, rejects and survives. Latencies are scripted by the fake runtime."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onnxopt.compile.engine import make_backend
from onnxopt.compile.isolation import Limits as ChildLimits
from onnxopt.data.files import write_samples
from onnxopt.data.split import Split
from onnxopt.errors import OnnxoptError
from onnxopt.evaluate.budget import Budget
from onnxopt.evaluate.metrics import make_metric
from onnxopt.passes import make_pass
from onnxopt.pipeline.cache import Cache
from onnxopt.pipeline.events import CandidateDone, CandidateStarted
from onnxopt.pipeline.optimize import run_recipe
from onnxopt.pipeline.record import Status
from onnxopt.recipe.recipe import CandidateSpec, DataSpec, Limits, Recipe, SearchSpec
from tests.efforts import BRIEF
from tests.graphs import mlp, samples, saved

FAST = 1e-9
"""Seconds: less than any real runtime needs."""
SLOW = 10.0


def fake(name: str, *passes: str, **script) -> CandidateSpec:
    return CandidateSpec(name, tuple(make_pass(one) for one in passes), make_backend("fake", script))


@pytest.fixture
def folder(tmp_path):
    model = mlp()
    saved(model, tmp_path / "mlp.onnx")
    write_samples(samples(model, 4, seed=1, labels=True), tmp_path / "data" / "calibration")
    write_samples(samples(model, 6, seed=2, labels=True), tmp_path / "data" / "evaluation")
    return tmp_path


def search(folder: Path, *candidates: CandidateSpec, listen=lambda event: None, seconds=30.0, **changes):
    recipe = Recipe(
        model=folder / "mlp.onnx",
        data=DataSpec(path=str(folder / "data")),
        search=SearchSpec(only=True),
        candidates=candidates,
        source="test",
    )
    cache = Cache(folder / "cache")
    limits = ChildLimits(seconds=seconds, memory_bytes=2 << 30)
    return run_recipe(replace(recipe, **changes), cache, listen, effort=BRIEF, limits=limits)


def by_name(result):
    return {candidate.name: candidate for candidate in result.record.candidates}


def test_the_fastest_that_is_right_wins(folder):
    result = search(
        folder,
        fake("fast", latency=FAST),
        fake("faster", latency=FAST / 10),
        fake("fastest and wrong", latency=FAST / 100, error=5.0),
        fake("slow", latency=SLOW),
    )
    assert result.record.best.name == "faster"
    assert result.chosen.backend.options["latency"] == FAST / 10
    found = by_name(result)
    assert found["input"].status is Status.BASELINE
    assert found["faster"].status is Status.BEST
    assert found["fast"].status is Status.KEPT
    assert found["slow"].status is Status.REJECTED
    assert found["slow"].reason.startswith("slower than the input")
    assert found["fastest and wrong"].status is Status.REJECTED
    assert "more than the budget of 1.00%" in found["fastest and wrong"].reason


def test_crashing_and_hanging_candidates_are_reported_and_the_run_completes(folder):
    told = []
    result = search(
        folder,
        fake("crashes", latency=FAST, fails="crash"),
        fake("crashes when run", latency=FAST, fails="crash", fails_at="run"),
        fake("hangs", latency=FAST, fails="hang"),
        fake("eats memory", latency=FAST, fails="memory"),
        fake("raises", latency=FAST, fails="raise"),
        fake("works", latency=FAST),
        seconds=6.0,
        listen=told.append,
    )
    found = by_name(result)
    assert result.record.best.name == "works"
    assert "the runtime's process died: SIGABRT" in found["crashes"].reason
    assert "SIGABRT" in found["crashes when run"].reason
    assert "did not finish" in found["hangs"].reason
    assert "out of memory" in found["eats memory"].reason
    assert found["raises"].reason == "the fake runtime was told to fail"
    assert all(found[name].status is Status.FAILED for name in ("crashes", "hangs", "eats memory", "raises"))
    started = [event.name for event in told if isinstance(event, CandidateStarted)]
    done = [event.name for event in told if isinstance(event, CandidateDone)]
    assert set(done) <= set(started)
    assert len(done) == 7


def test_when_nothing_is_faster_the_input_is_handed_back(folder):
    result = search(folder, fake("slow", latency=SLOW))
    assert not result.record.improved
    assert result.record.best.status is Status.BASELINE
    assert result.chosen.file.path == folder / "mlp.onnx"


def test_a_pass_that_fails_costs_its_candidate(folder):
    result = search(folder, fake("quantized twice", "quantize-static", "quantize-static"), fake("works", latency=FAST))
    assert "quantized already" in by_name(result)["quantized twice"].reason
    assert result.record.best.name == "works"


def test_the_same_model_in_the_same_settings_is_not_tried_twice(folder):
    result = search(folder, fake("first", latency=FAST), fake("second", "remove-unused", latency=FAST))
    found = by_name(result)
    assert found["second"].status is Status.DUPLICATE
    assert found["second"].reason == "the same model and settings as first"


def test_a_baseline_that_does_not_run_ends_the_run(folder):
    (folder / "mlp.onnx").write_bytes(b"not a model at all")
    with pytest.raises(OnnxoptError):
        search(folder)


def test_the_objective_size_takes_the_smallest_that_is_not_slower(folder):
    result = search(
        folder,
        fake("fast", latency=FAST),
        fake("small", "cast-float16", latency=FAST * 10),
        fake("small and slow", "cast-float16", latency=SLOW),
        search=SearchSpec(only=True, objective="size"),
        budget=Budget(min_sqnr=20.0, min_agreement=0.5),
    )
    found = by_name(result)
    assert result.record.objective == "size"
    smallest = min((c for c in found.values() if c.status in (Status.KEPT, Status.BEST)), key=lambda c: c.size_bytes)
    assert result.record.best.size_bytes == smallest.size_bytes
    assert found["small and slow"].status is Status.REJECTED


def test_a_metric_decides_where_there_is_one(folder):
    result = search(
        folder, fake("wrong", latency=FAST, error=5.0), fake("right", latency=FAST * 2), metric=make_metric("top1")
    )
    found = by_name(result)
    assert found["right"].scores.drop.value == 0
    assert result.record.best.name == "right"
    assert found["wrong"].status is Status.REJECTED


@pytest.mark.parametrize(
    ("limits", "told"),
    [(Limits(latency=1e-12), "the best result takes"), (Limits(size=10), "the best result has")],
)
def test_a_bound_that_is_missed_is_told(folder, limits, told):
    result = search(folder, fake("works", latency=FAST), limits=limits)
    assert told in result.record.shortfall
    assert result.record.best.name == "works"


def test_the_same_choice_after_starting_again(folder):
    candidates = (fake("a", latency=FAST), fake("b", "rewrite", latency=FAST / 2))
    first = search(folder, *candidates)
    again = search(folder, *candidates)
    assert again.record.best == replace(
        first.record.best,
        steps=tuple(replace(step, cached=True, reason="cached") for step in first.record.best.steps),
    )


def test_calibration_and_evaluation_never_overlap(folder):
    shutil.rmtree(folder / "data" / "evaluation")
    write_samples(samples(mlp(), 6, seed=1, labels=True), folder / "data" / "evaluation")
    with pytest.raises(OnnxoptError, match="is also in the calibration part"):
        search(folder)
    assert Split.__doc__


def test_the_record_is_strict_json_with_all_samples(folder):
    import json

    result = search(folder, fake("fast", latency=FAST), fake("crashes", fails="crash"))
    values = json.loads(result.record.to_json())
    assert {"baseline", "best", "candidates"} <= set(values)
    needed = {
        "name",
        "steps",
        "runtime",
        "latency",
        "speedup",
        "size_bytes",
        "peak_memory_bytes",
        "scores",
        "drop",
        "status",
        "reason",
    }
    assert all(needed <= set(candidate) for candidate in values["candidates"])
    best = values["best"]
    assert set(best["latency"]) >= {"p50", "p90", "p99", "samples"}
    assert len(best["latency"]["samples"]) == len(result.record.best.timing.samples)
    assert set(best["speedup"]) >= {"ratio", "low", "high", "verdict"}


def test_without_data_the_record_says_so(folder):
    result = search(folder, fake("fast", latency=FAST), data=DataSpec())
    assert result.record.data["evaluation"]["synthetic"]
    assert any("made-up inputs" in note for note in result.record.notes)
    kept = by_name(result)["fast"]
    assert kept.scores.drop is None
    assert kept.scores.drift is not None


def test_without_data_nothing_is_calibrated(folder):
    own = fake("int8", "quantize-static", latency=FAST)
    result = search(folder, own, data=DataSpec())
    assert "needs calibration data" in by_name(result)["int8"].reason


def test_limits_decide_before_speed(folder):
    wide = mlp(width=64)
    saved(wide, folder / "mlp.onnx")
    shutil.rmtree(folder / "data")
    write_samples(samples(wide, 8, labels=True), folder / "data")
    small = fake("small", "cast-float16", latency=FAST)
    large = fake("large", latency=FAST / 10)
    free = search(folder, large, small)
    assert free.record.best.name == "large"
    bound = Limits(size=by_name(free)["small"].size_bytes)
    assert bound.size < by_name(free)["large"].size_bytes
    bounded = search(folder, large, small, limits=bound)
    assert bounded.record.best.name == "small"
    assert bounded.record.shortfall is None


def test_the_input_competes_by_size_too(folder):
    """A candidate that is as large as the input is no better, however fast."""
    result = search(folder, fake("fast", latency=FAST), search=SearchSpec(objective="size", only=True))
    assert not result.record.improved


def test_a_finalist_that_fails_while_it_is_confirmed_costs_itself_alone(folder, monkeypatch):
    from onnxopt.errors import EngineTimeoutError
    from onnxopt.pipeline.measuring import Measurer

    compare = Measurer.compare
    failed = []

    def first_to_confirm_fails(self, one, plan, launches=1):
        if launches > 1 and not failed:
            failed.append(one.name)
            raise EngineTimeoutError("the runtime did not finish")
        return compare(self, one, plan, launches)

    monkeypatch.setattr(Measurer, "compare", first_to_confirm_fails)
    monkeypatch.setattr("onnxopt.pipeline.search.HOPELESS", 0.0)  # the input's time is real, so ratios to it are noisy
    result = search(folder, fake("one", latency=FAST / 1.01), fake("other", latency=FAST))
    assert by_name(result)[failed[0]].status is Status.FAILED
    assert {result.record.best.name, *failed} == {"one", "other"}


def test_a_baseline_that_died_is_started_again(folder, monkeypatch):
    from onnxopt.pipeline.measuring import Measurer

    compare = Measurer.compare

    def kill_then_compare(self, one, plan, launches=1):
        if self._engine is not None and one.name == "fast":
            self._engine._child._process.kill()
            self._engine._child._process.wait()
        return compare(self, one, plan, launches)

    monkeypatch.setattr(Measurer, "compare", kill_then_compare)
    assert search(folder, fake("fast", latency=FAST)).record.best.name == "fast"


def test_a_full_disk_is_no_failure_of_a_candidate(folder, monkeypatch):
    from onnxopt.errors import OutputError
    from onnxopt.pipeline.making import Maker

    def full(*arguments, **options):
        raise OutputError("no space left")

    monkeypatch.setattr(Maker, "apply", full)
    with pytest.raises(OutputError, match="no space left"):
        search(folder, fake("works", "rewrite", latency=FAST))


def test_a_runtime_that_is_not_there_is_told(folder, monkeypatch):
    from onnxopt.compile.openvino import OpenVino
    from onnxopt.errors import MissingExtraError

    monkeypatch.setattr(OpenVino, "unavailable", lambda self: "pip install 'onnxopt[openvino]'")
    with pytest.raises(MissingExtraError, match="the runtime openvino cannot be used: pip install"):
        search(folder, search=SearchSpec(runtime="openvino"))


@pytest.mark.parametrize(("labels", "metric"), [((6,), "top1"), ((6, 1), None)])
def test_whole_numbers_are_classes_only_where_there_are_classes(folder, labels, metric):
    from onnxopt.data.split import open_split
    from onnxopt.ir.read import read_model
    from onnxopt.pipeline.inputs import _metric

    model = read_model(folder / "mlp.onnx")
    evaluation = open_split(str(folder / "data"), model).evaluation
    if metric is None:
        from tests.graphs import from_text

        text = '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 8] x) => (float[n, 1] y) { y = ReduceSum (x, a) }'
        model = from_text(text, {"a": np.array([1])})
    found, _ = _metric(None, model, evaluation)
    assert (found.name if found else None) == metric
