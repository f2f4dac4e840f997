"""What a search tries next, by what it found: speeds and losses are told by the candidate's name, nothing is run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import pytest

from onnxopt.evaluate.budget import Budget
from onnxopt.evaluate.score import Interval, Scores
from onnxopt.pipeline.making import ModelFile
from onnxopt.pipeline.search import Search
from onnxopt.profile.statistics import Speedup, verdict
from onnxopt.recipe.recipe import Limits, SearchSpec
from onnxopt.targets.target import local_target
from tests.efforts import BRIEF
from tests.graphs import cnn

TIMES = {"input": 1.0, "float32": 1.02, "dynamic": 0.5, "int8": 1.8}
"""Times faster than the input: the first that a name contains counts."""


class Maker:
    """Names what it would make."""

    def load(self, file: ModelFile):
        return cnn()

    def apply(self, change, file: ModelFile) -> ModelFile:
        return replace(file, digest=f"{file.digest} > {change}")


class Measurer:
    """Knows what each candidate comes to."""

    def __init__(self, times: dict[str, float], spread: float, drop: Callable[[str], float]) -> None:
        self._times, self._spread, self._drop = times, spread, drop

    def compare(self, one, plan, launches=1):
        ratio = next((ratio for part, ratio in self._times.items() if part in one.name), 1.0)
        low, high = ratio * (1 - self._spread), ratio * (1 + self._spread)
        return SimpleNamespace(candidate=None, speedup=Speedup(ratio, low, high, verdict(low, high)))

    def score(self, one):
        lost = self._drop(one.name)
        score, drop = Interval(1 - lost), Interval(lost)
        return Scores(10, decisions=1000, metric="top1_accuracy", score=score, baseline=1.0, drop=drop)


def searched(times=MappingProxyType({}), *, spread=0.01, drop=lambda name: 0.0) -> Search:
    search = Search(
        Maker(),
        Measurer({**times, **TIMES, **times}, spread, drop),
        ModelFile(Path("model.onnx"), "the input", 1, 1, {}),
        spec=SearchSpec(runtime="ort"),
        candidates=(),
        budget=Budget(),
        limits=Limits(),
        target=local_target(),
        effort=BRIEF,
        listen=lambda event: None,
    )
    search.best = search.run()
    return search


def names(search: Search) -> list[str]:
    return [trial.candidate.name for trial in search.trials]


@pytest.mark.parametrize(
    ("ratio", "spread", "first"),
    [(0.9, 0.01, "int8 dynamic in ort"), (0.9, 0.2, "rewritten int8 dynamic in ort")],
)
def test_the_rewritten_graph_is_built_upon_unless_it_is_slower_beyond_noise(ratio, spread, first):
    tried = names(searched({"rewritten float32": ratio}, spread=spread))
    assert next(name for name in tried if "int8" in name) == first


def test_int8_that_gains_enough_is_not_refined():
    assert not [name for name in names(searched()) if "mixed" in name]


def test_int8_that_gains_little_is_tried_again_with_some_layers_in_float():
    search = searched({"dynamic": 0.5, "mixed": 1.6, "int8 all": 1.2, "int8": 1.1})
    assert next(name for name in names(search) if "mixed" in name) == "rewritten int8 all mixed 15 dB in ort"
    assert "mixed" in search.best.candidate.name


def test_int8_that_loses_too_much_is_recovered_once_a_runtime_before_it_is_mixed():
    search = searched(drop=lambda name: 0.05 if "int8" in name and "mixed" not in name else 0.0)
    tried = names(search)
    words = [name for name in tried if "recovered" in name or "smoothed" in name]
    assert len(words) == 2
    assert tried.index(words[-1]) < min(tried.index(name) for name in tried if "mixed" in name)
    assert "mixed" in search.best.candidate.name


def test_what_keeps_the_budget_after_recovery_ends_it():
    search = searched(drop=lambda name: 0.05 if name.endswith(("int8 in ort", "int8 all in ort")) else 0.0)
    assert not [name for name in names(search) if "smoothed" in name]
    assert "recovered" in search.best.candidate.name


def test_what_cannot_be_the_fastest_is_not_refined():
    search = searched(
        {"int8 dynamic": 1.2, "int8 all": 1.9},
        drop=lambda name: 0.05 if name.endswith("dynamic in ort") or "int8 in ort" in name else 0.0,
    )
    assert not [name for name in names(search) if "recovered" in name or "mixed" in name]
    assert search.best.candidate.name == "rewritten int8 all in ort"
