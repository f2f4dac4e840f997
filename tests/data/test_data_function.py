"""Samples from a user's own function."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxopt.data.function import Function
from onnxopt.data.sample import Samples
from onnxopt.errors import DataError, OnnxoptError
from onnxopt.user_code import UserCodeError
from tests.graphs import mlp

Run = Callable[..., Samples]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Return a function that writes ``def make(...)`` into a new module and opens what it yields."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)

    def run(body: str, *, helper: str = "", **options: Any) -> Samples:
        for name in {"made_samples", "made_helper"} & set(sys.modules):
            del sys.modules[name]
        (tmp_path / "made_helper.py").write_text(helper)
        (tmp_path / "made_samples.py").write_text(f"import numpy as np\nimport made_helper\n{body}\n")
        importlib.invalidate_caches()
        return Function(function="made_samples:make", **options).open(mlp(), tmp_path)

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield run
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_feeds_and_labels(run: Run) -> None:
    samples = run("def make():\n    yield {'x': np.ones(3)}, 4\n    yield ({'x': [1, 2]}, ['a', 'b'])")

    assert [sample.name for sample in samples] == ["made_samples:make[0]", "made_samples:make[1]"]
    assert samples[0].feeds["x"].tolist() == [1, 1, 1]
    assert [sample.label.tolist() for sample in samples if sample.label is not None] == [4, ["a", "b"]]


def test_feeds_without_labels(run: Run) -> None:
    (sample,) = run("def make():\n    return [{'x': np.zeros((1, 8), 'f4'), 2: 3}]")

    assert sample.label is None
    assert set(sample.feeds) == {"x", "2"}


def test_arguments_and_limit(run: Run) -> None:
    body = "def make(start, step=1):\n    while True:\n        yield {'x': np.array(start)}\n        start += step"

    samples = run(body, arguments={"start": 3, "step": 2}, limit=4)
    assert [sample.feeds["x"].item() for sample in samples] == [3, 5, 7, 9]


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("def make(): return None", "made_samples:make returned NoneType, nothing to iterate over"),
        ("def make(): return 3", "made_samples:make returned int, nothing to iterate over"),
        ("def make(): return []", "made_samples:make yielded no samples"),
        ("def make(): yield from ()", "made_samples:make yielded no samples"),
        ("def make(): yield [1, 2]", "a sample is a list, not a mapping of input names to arrays"),
        ("def make(): yield np.ones(3)", "a sample is a ndarray, not a mapping of input names to arrays"),
        ("def make(): return {'x': np.ones(3)}", "a sample is a str, not a mapping of input names to arrays"),
        ("def make(): yield {'x': 1}, 2, 3", "a sample is a tuple, not a mapping of input names to arrays"),
    ],
)
def test_what_is_no_sample(run: Run, body: str, what: str) -> None:
    with pytest.raises(DataError) as caught:
        run(body)
    assert caught.value.what == what


def test_which_sample_is_none(run: Run) -> None:
    with pytest.raises(DataError) as caught:
        run("def make():\n    yield {'x': 1}\n    yield 3")
    assert caught.value.where == "made_samples:make[1]"
    assert caught.value.hint == "yield {'input': array}, or ({'input': array}, label)"


@pytest.mark.parametrize(
    ("body", "what", "line"),
    [
        ("def make():\n    return 1 / 0", "made_samples:make raised ZeroDivisionError: division by zero", 4),
        (
            "def make():\n    yield {'x': 1}\n    raise OSError('no more')",
            "made_samples:make raised OSError: no more",
            5,
        ),
        ("def make(must):\n    yield {'x': 1}", "made_samples:make raised TypeError: make() missing 1 required", None),
    ],
)
def test_a_function_that_raises(run: Run, tmp_path: Path, body: str, what: str, line: int | None) -> None:
    with pytest.raises(UserCodeError) as caught:
        run(body)
    assert caught.value.what.startswith(what)
    if line is not None:
        assert caught.value.where == f"{tmp_path}/made_samples.py:{line}"


def test_arrays_of_uneven_rows(run: Run) -> None:
    with pytest.raises(OnnxoptError, match="inhomogeneous"):
        run("def make():\n    yield {'x': [[1], [1, 2]]}")


def test_fingerprint_follows_content_and_code(run: Run) -> None:
    body = "def make(n=2):\n    for i in range(n): yield {'x': np.array(i)}"
    first = run(body).fingerprint
    variants = {
        "other content": run(body, arguments={"n": 3}).fingerprint,
        "other code, same content": run(body + "\n# a comment").fingerprint,
        "other helper, same content": run(body, helper="VALUE = 1").fingerprint,
    }

    assert run(body).fingerprint == first
    assert run(body, arguments={"n": 2}).fingerprint == first
    assert len({first, *variants.values()}) == 4


def test_texts(run: Run) -> None:
    (sample,) = run("def make():\n    yield {'x': ['one', 'three']}")

    assert sample.feeds["x"].dtype == np.dtype("<U5")
