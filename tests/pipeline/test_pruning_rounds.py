"""Pruning in rounds: how much goes in each, what recovers between them, and what is left in the end."""

from pathlib import Path

import pytest

from onnxopt import api
from onnxopt.data.files import write_samples
from onnxopt.errors import UsageError
from onnxopt.pipeline.events import StepDone
from onnxopt.pipeline.pruning import PruneGoal, PruneWay
from tests.graphs import mlp, samples, saved


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = mlp(width=256)
    saved(model, tmp_path / "mlp.onnx")
    write_samples(samples(model, 12, labels=True), tmp_path / "data")
    return tmp_path


def pruned(folder: Path, goal: PruneGoal, **values):
    told: list[object] = []
    values = {"options": {"align": 1}, **values}
    found = api.prune_model(
        folder / "mlp.onnx",
        folder / "out.onnx",
        goal,
        cache=folder / "cache",
        seconds=0.1,
        listen=told.append,
        **values,
    )
    return found, [event.step for event in told if isinstance(event, StepDone)]


def keeps(steps: list[str]) -> list[float]:
    """Return the share that each round was asked to keep of what the one before it left."""
    return [float(step.partition("keep=")[2].split(",")[0].rstrip(")")) for step in steps if "keep=" in step]


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [("geometric", (0.7937, 0.63, 0.5)), ("linear", (0.8333, 0.6667, 0.5)), ("cubic", (0.6481, 0.5185, 0.5))],
)
def test_each_round_leaves_what_the_schedule_says(folder: Path, schedule: str, shares: tuple[float, ...]) -> None:
    found, steps = pruned(folder, PruneGoal(0.5), rounds=3, schedule=schedule)
    asked = keeps(steps)
    left = [1.0]
    for one in asked:
        left.append(one * left[-1])
    assert left[1:] == pytest.approx(shares, abs=0.01)
    assert found.after.macs / found.before.macs == pytest.approx(0.5, abs=0.01)


def test_what_is_lost_is_won_back_between_rounds(folder: Path) -> None:
    _, steps = pruned(folder, PruneGoal(0.5), rounds=2, data=str(folder / "data"))
    names = [step.partition("(")[0] for step in steps]
    assert names == ["prune-channels", "reconstruct-weights", "prune-channels", "reconstruct-weights"]


def test_zeros_are_a_share_of_all_weights_in_each_round(folder: Path) -> None:
    _, steps = pruned(folder, PruneGoal(0.16, "parameters"), method="weights", rounds=2, options={})
    assert keeps(steps) == pytest.approx([0.4, 0.16])


def test_a_size_is_kept_in_rounds_too(folder: Path) -> None:
    most = (folder / "mlp.onnx").stat().st_size // 2
    found, _ = pruned(folder, PruneGoal(of="parameters", size=most), rounds=2)
    assert 0.9 * most < found.size_after <= most


def test_what_is_counted_may_be_an_option(folder: Path) -> None:
    values = {"options": {"align": 1, "of": "parameters"}}
    once, _ = pruned(folder, PruneGoal(0.5), **values)
    found, _ = pruned(folder, PruneGoal(0.5), rounds=4, **values)
    assert found.after.parameters / found.before.parameters == pytest.approx(0.5, abs=0.02)
    assert once.after.parameters / once.before.parameters == pytest.approx(0.5, abs=0.02)


def test_rounds_hold_to_the_least_of_the_original(folder: Path) -> None:
    found, _ = pruned(folder, PruneGoal(0.3), rounds=4, options={"align": 1, "least": 0.5})
    assert [group.width for group in found.after.groups] == [128]


def test_rounds_end_where_nothing_is_left_to_remove(tmp_path: Path) -> None:
    saved(mlp(width=4), tmp_path / "mlp.onnx")
    found, steps = pruned(tmp_path, PruneGoal(0.04), rounds=4)
    assert found.after.macs < 0.5 * found.before.macs
    assert len(steps) < 4


def test_a_model_that_was_pruned_before_is_recovered(folder: Path) -> None:
    pruned(folder, PruneGoal(0.75))
    (folder / "out.onnx").rename(folder / "mlp.onnx")
    found, steps = pruned(folder, PruneGoal(0.5), data=str(folder / "data"))
    assert [step.partition("(")[0] for step in steps] == ["prune-channels", "reconstruct-weights"]
    assert found.after.macs / found.before.macs == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("way", "text"),
    [
        (PruneWay(rounds=0), "there are 0 rounds"),
        (PruneWay(rounds=2), "rounds come to a goal, and there is none"),
        (PruneWay("low-rank", rounds=2), "method 'low-rank' is not done in rounds"),
        (PruneWay("n-m", rounds=2), "method 'n-m' is not done in rounds"),
        (PruneWay(schedule="cubical"), "there is no schedule 'cubical'"),  # type: ignore[arg-type]
        (PruneWay(recover=("reconstruct",)), "'reconstruct' recovers nothing"),
    ],
)
def test_a_way_that_is_none_is_refused(way: PruneWay, text: str) -> None:
    with pytest.raises(UsageError, match=text.replace("(", r"\(")):
        way.check(PruneGoal())
