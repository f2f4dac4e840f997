"""What runs again after a change, and what does not: through whole runs of small recipes."""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onnxopt.compile.engine import make_backend
from onnxopt.data.files import write_samples
from onnxopt.data.source import make_source
from onnxopt.errors import ModelError, UsageError, VerificationError
from onnxopt.evaluate.metrics import make_metric
from onnxopt.ir.read import read_model
from onnxopt.passes import Pass, make_pass, options
from onnxopt.pipeline import steps
from onnxopt.pipeline.artefact import open_engine, write_artefact
from onnxopt.pipeline.cache import Cache
from onnxopt.pipeline.events import StepDone
from onnxopt.pipeline.lock import lock_text
from onnxopt.pipeline.optimize import run_recipe
from onnxopt.recipe.recipe import DataSpec, ExportSpec, Limits, Recipe, read_recipe
from tests.efforts import BRIEF
from tests.graphs import cnn, mlp, samples, saved


@pytest.fixture
def folder(tmp_path):
    """A model, and labelled samples of which calibration and evaluation are apart."""
    model = cnn()
    saved(model, tmp_path / "cnn.onnx")
    write_samples(samples(model, 6, seed=1, labels=True), tmp_path / "data" / "calibration")
    write_samples(samples(model, 8, seed=2, labels=True), tmp_path / "data" / "evaluation")
    return tmp_path


def recipe_for(folder: Path, *passes: Pass, **changes) -> Recipe:
    made = Recipe(
        model=folder / "cnn.onnx",
        data=DataSpec(path=str(folder / "data")),
        passes=passes or (make_pass("rewrite"), make_pass("quantize-static")),
        source="test",
    )
    return replace(made, **changes)


def run(folder: Path, recipe: Recipe) -> tuple[dict[str, str], object]:
    """Run a recipe; return for each step why it ran, and the result."""
    told: dict[str, str] = {}

    def hear(event):
        if isinstance(event, StepDone):
            told.setdefault(event.step, event.reason)

    return told, run_recipe(recipe, Cache(folder / "cache"), hear, effort=BRIEF)


def ran(told: dict[str, str]) -> set[str]:
    return {step.split(" ")[0].split("(")[0] for step, reason in told.items() if reason != "cached"}


def test_the_same_again_is_all_cached(folder):
    first, result = run(folder, recipe_for(folder))
    assert set(first.values()) == {"never run before"}
    second, again = run(folder, recipe_for(folder))
    assert set(second.values()) == {"cached"}
    assert again.chosen.file.digest == result.chosen.file.digest
    assert again.record.best.timing.samples == result.record.best.timing.samples


def test_a_changed_model_reruns_everything(folder):
    run(folder, recipe_for(folder))
    saved(cnn(seed=1), folder / "cnn.onnx")
    told, _ = run(folder, recipe_for(folder))
    assert told["rewrite"] == "changed: input"
    assert "cached" not in told.values()


def test_a_changed_option_reruns_its_pass_and_what_follows(folder):
    run(folder, recipe_for(folder))
    passes = (make_pass("rewrite"), make_pass("quantize-static", {"per_channel": False}))
    told, _ = run(folder, recipe_for(folder, *passes))
    assert told["rewrite"] == "cached"
    assert told["verify rewrite"] == "cached"
    assert told["quantize-static(per_channel=False)"] == "changed: options"
    assert told["outputs of the input"] == "cached"


def test_changed_evaluation_data_reruns_measures_and_no_pass(folder):
    run(folder, recipe_for(folder))
    change_one_byte(folder / "data" / "evaluation" / "00000.npz")
    told, _ = run(folder, recipe_for(folder))
    assert ran(told) == {"time", "outputs", "score"}
    assert told["outputs of the input"] == "changed: evaluation"


def test_changed_calibration_data_reruns_what_used_it(folder):
    run(folder, recipe_for(folder))
    change_one_byte(folder / "data" / "calibration" / "00000.npz")
    told, _ = run(folder, recipe_for(folder))
    assert told["quantize-static"] == "changed: data"
    assert told["verify rewrite"] == "changed: calibration"
    assert told["outputs of the input"] == "cached"


def test_a_changed_metric_function_reruns_scores_only(folder, monkeypatch):
    monkeypatch.chdir(folder)
    module = folder / "scoring_for_test.py"
    module.write_text("def right(outputs, labels):\n    return 0.5\n")
    run(folder, recipe_for(folder, metric=make_metric("scoring_for_test:right")))
    module.write_text("def right(outputs, labels):\n    return 0.5  # the same\n")
    forget("scoring_for_test")
    told, _ = run(folder, recipe_for(folder, metric=make_metric("scoring_for_test:right")))
    assert ran(told) == {"score"}
    assert told["score input"] == "changed: metric"


def test_another_runtime_setting_reruns_its_measures_only(folder):
    run(folder, recipe_for(folder))
    changed = recipe_for(folder, backend=make_backend("ort", {"memory_pattern": False}))
    told, _ = run(folder, changed)
    assert told["quantize-static"] == "cached"
    assert told["outputs of the input"] == "cached"
    assert ran(told) == {"time", "score"}


def test_killed_in_the_middle_it_goes_on_and_gives_the_same(folder, tmp_path):
    _, whole = run(tmp_path, recipe_for(folder))
    script = folder / "killed.py"
    script.write_text(KILLED.format(folder=str(folder)))
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().strip() == "simplified"
    process.send_signal(signal.SIGKILL)
    process.wait()
    told, result = run(folder / "killed", recipe_for(folder))
    assert told["rewrite"] == "cached"
    assert told["quantize-static"] != "cached"
    assert result.chosen.file.digest == whole.chosen.file.digest


KILLED = """
import sys, time
sys.path.insert(0, {folder!r})
from pathlib import Path
from onnxopt.passes import make_pass
from onnxopt.pipeline.cache import Cache
from onnxopt.pipeline.events import StepDone
from onnxopt.pipeline.optimize import run_recipe
from onnxopt.recipe.recipe import DataSpec, Recipe

folder = Path({folder!r})

def hear(event):
    if isinstance(event, StepDone) and event.step.startswith("verify"):
        print("simplified", flush=True)
        time.sleep(60)

passes = (make_pass("rewrite"), make_pass("quantize-static"))
recipe = Recipe(model=folder / "cnn.onnx", data=DataSpec(path=str(folder / "data")), passes=passes, source="test")
run_recipe(recipe, Cache(folder / "killed" / "cache"), hear)
"""


@options
class _Breaks(Pass):
    """Scale one weight: a pass that claims to be exact and is not."""

    name = "break-weight"

    def edit(self, graph, ctx):
        import onnx_ir

        value = graph.graph.initializers["w2"]
        wrong = value.const_value.numpy().copy()
        wrong.flat[0] += 1.0
        value.const_value = onnx_ir.tensor(wrong, name="w2")


def test_an_exact_pass_that_changes_the_answer_stops_the_run(folder):
    with pytest.raises(VerificationError, match="pass 'break-weight' changed the answer: output 'scores'") as caught:
        run(folder, recipe_for(folder, _Breaks()))
    assert "Conv" in caught.value.where
    _, result = run(folder, recipe_for(folder, make_pass("rewrite")))
    assert result.record.best.steps[0].verification < 1e-4


def test_a_lock_repeats_the_result_and_notices_a_change(folder):
    recipe = recipe_for(folder)
    _, result = run(folder, recipe)
    lock = folder / "recipe.lock.yaml"
    lock.write_text(lock_text(result, recipe))
    locked = read_recipe(lock)
    _, again = run(folder, locked)
    assert again.chosen.file.digest == result.chosen.file.digest
    with pytest.raises(UsageError, match=r"passes\[1\] quantize-static is .*, the lock says"):
        run(folder, replace(locked, passes=(locked.passes[0], make_pass("quantize-static", {"method": "entropy"}))))
    with pytest.raises(UsageError, match="a missing step is nothing, the lock says"):
        run(folder, replace(locked, passes=locked.passes[:1]))
    saved(cnn(seed=1), folder / "cnn.onnx")
    with pytest.raises(UsageError, match=r"the input is .*, the lock says"):
        run(folder, locked)


def test_a_lock_keeps_limits_and_takes_only_places_for_paths(folder, monkeypatch):
    (folder / "image").mkdir()
    monkeypatch.chdir(folder)
    recipe = recipe_for(
        folder,
        data=DataSpec(samples=make_source({"files": "data/evaluation/*.npz"}, where="test")),
        limits=Limits(latency=2.5, size=10_000_000),
    )
    _, result = run(folder, recipe)
    (folder / "elsewhere").mkdir()
    lock = folder / "elsewhere" / "recipe.lock.yaml"
    lock.write_text(lock_text(result, recipe))
    locked = read_recipe(lock)
    assert locked.limits == recipe.limits
    assert locked.data.samples.files == str(folder / "data/evaluation/*.npz")
    _, again = run(folder, locked)
    assert again.chosen.file.digest == result.chosen.file.digest


def test_a_file_that_changes_during_a_run_is_not_shipped(folder):
    recipe = recipe_for(folder, make_pass("remove-unused"))
    _, result = run(folder, recipe)
    assert result.chosen.file.path == folder / "cnn.onnx"
    saved(cnn(seed=1), folder / "cnn.onnx")
    with pytest.raises(ModelError, match="changed while it was worked on"):
        write_artefact(result, recipe, folder / "out", report="")
    assert not (folder / "out" / "model.onnx").exists()


def test_an_export_is_cached_and_its_file_outlives_the_run(folder, monkeypatch):
    pytest.importorskip("torch")
    recipe = recipe_for(
        folder,
        model=ExportSpec(export="tests.export.modules:two_outputs", dynamic={"batch": "1..8"}),
        passes=(),
        data=DataSpec(),
    )
    told, result = run(folder, recipe)
    assert told["export"] == "never run before"
    write_artefact(result, recipe, folder / "out", report="")
    with open_engine(folder / "out") as engine:
        assert engine.run({"x": np.ones((3, 8), np.float32)})["scores"].shape == (3, 8)
    told, _ = run(folder, recipe)
    assert told["export"] == "cached"
    told, _ = run(folder, replace(recipe, model=replace(recipe.model, opset=17)))
    assert told["export"] == "changed: options"


def test_another_build_of_this_program_serves_nothing_old(folder, monkeypatch):
    run(folder, recipe_for(folder))
    monkeypatch.setattr(steps, "_program", lambda: "another")
    told, _ = run(folder, recipe_for(folder))
    assert set(told.values()) == {"changed: program"}


def test_a_result_that_loses_too_much_is_a_shortfall(folder):
    labels = [int(np.argmax(s.feeds["image"].sum())) for s in samples(cnn(), 2)]
    assert labels
    recipe = recipe_for(folder, budget=replace(recipe_for(folder).budget, min_sqnr=150.0), metric=make_metric("sqnr"))
    _, result = run(folder, replace(recipe, metric=None))
    assert "the result loses too much" in result.record.shortfall
    assert result.record.best.status == "rejected"


def test_only_this_machine_can_be_measured_on(folder):
    from onnxopt.targets.target import target

    with pytest.raises(UsageError, match="is not this machine"):
        run(folder, recipe_for(folder, target=target("nvidia-t4")))


def change_one_byte(path: Path) -> None:
    """Change the content of a sample's array by one byte."""
    with np.load(path) as archive:
        arrays = {name: archive[name].copy() for name in archive.files}
    name = next(name for name in arrays if name != "label")
    arrays[name].view(np.uint8).reshape(-1)[0] ^= 1
    np.savez(path, **arrays)


def forget(module: str) -> None:
    """Make Python import a module anew, as a new process would."""
    del sys.modules[module]
    time.sleep(0.01)
    cached = Path("__pycache__")
    for file in cached.glob(f"{module}*"):
        file.unlink()


def test_the_written_input_is_read_back_equal(folder):
    assert read_model(folder / "cnn.onnx").digest == cnn().digest
    assert cnn().digest != mlp().digest
