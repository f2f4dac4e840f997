"""Backends by name: their options, and what the options do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxopt.compile.engine import make_backend
from onnxopt.compile.isolation import IsolatedEngine
from onnxopt.errors import OnnxoptError, RecipeError, UsageError
from onnxopt.targets.target import local_target
from tests.graphs import from_text, mlp, samples, saved


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("onnxruntim", {}, r"there is no backend 'onnxruntim'"),
        ("opnvino", {}, r"hint: did you mean 'openvino'\?"),
        ("ort", {"graph_optimisation": "all"}, r"no option 'graph_optimisation'\n.*\n.*'graph_optimization'"),
        ("ort", {"graph_optimization": "most"}, r"graph_optimization is \"most\": it should be 'all'"),
        ("ort", {"spinning": "yes"}, r"spinning is \"yes\": it should be a valid boolean"),
        ("openvino", {"precision": "int8"}, r"at:   runtime 'openvino': precision"),
        ("fake", {"latency": 0}, r"latency is 0: it should be greater than 0"),
    ],
)
def test_wrong_options_are_told_with_what_is_right(name: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        make_backend(name, options)


def test_errors_are_of_the_callers_kind_and_place() -> None:
    with pytest.raises(RecipeError, match=r"at:   r\.yaml:3: seed"):
        make_backend("fake", {"seed": 1.5}, where="r.yaml:3", error=RecipeError)


def test_a_backend_prints_what_is_not_default() -> None:
    assert str(make_backend("ort")) == "ort"
    assert str(make_backend("ort", {"graph_optimization": "basic"})) == "ort(graph_optimization=basic)"


@pytest.mark.parametrize(
    "how",
    [*({"graph_optimization": level} for level in ("all", "extended", "basic", "disabled")), {"prepacking": False}],
    ids=str,
)
def test_settings_do_not_change_the_answer(how: dict[str, Any], mlp_file: Path) -> None:
    feeds = samples(mlp(), 1)[0].feeds
    backend, reference = make_backend("ort", how), make_backend("reference")
    with backend.compile(mlp_file, local_target()) as one, reference.compile(mlp_file, local_target()) as judge:
        np.testing.assert_allclose(one.run(feeds)["y"], judge.run(feeds)["y"], rtol=1e-5)


def test_denormals_are_kept_unless_told_otherwise(tmp_path: Path) -> None:
    """In processes of their own: onnxruntime lets only the first session of a process decide."""
    text = '<ir_version: 8, opset_import: ["" : 17]> half (float[n] x, float[n] k) => (float[n] y) { y = Mul (x, k) }'
    path = saved(from_text(text), tmp_path / "half.onnx")
    feeds = {"x": np.full(4, 2e-39, np.float32), "k": np.full(4, 0.5, np.float32)}
    flushing = make_backend("ort", {"denormals_as_zero": True})
    with (
        IsolatedEngine(make_backend("ort"), path, local_target()) as exact,
        IsolatedEngine(flushing, path, local_target()) as flushed,
    ):
        assert exact.run(feeds)["y"].tolist() == pytest.approx([1e-39] * 4)
        assert flushed.run(feeds)["y"].tolist() == [0.0] * 4


def test_the_fake_runtime_repeats_its_script(mlp_file: Path) -> None:
    feeds = samples(mlp(), 1)[0].feeds
    script = make_backend("fake", {"latency": 0.01, "noise": 0.1, "seed": 3})
    first, again = (script.compile(mlp_file, local_target()).time(feeds, 200) for _ in range(2))
    assert first == again
    assert np.median(first) == pytest.approx(0.01, rel=0.02)
    assert np.std(first) == pytest.approx(0.001, rel=0.2)


def test_the_fake_runtime_errs_as_much_as_told(mlp_file: Path) -> None:
    feeds = samples(mlp(), 1, batch=500)[0].feeds
    right = make_backend("fake").compile(mlp_file, local_target()).run(feeds)["y"]
    wrong = make_backend("fake", {"error": 0.1}).compile(mlp_file, local_target()).run(feeds)["y"]
    assert np.sqrt(np.mean((wrong - right) ** 2) / np.mean(right**2)) == pytest.approx(0.1, rel=0.1)


def test_the_fake_runtime_fails_when_told_to_run(mlp_file: Path) -> None:
    feeds = samples(mlp(), 1)[0].feeds
    with make_backend("fake", {"fails": "raise", "fails_at": "run"}).compile(mlp_file, local_target()) as engine:
        for call in (lambda: engine.run(feeds), lambda: engine.time(feeds, 2)):
            with pytest.raises(OnnxoptError, match="the fake runtime was told to fail"):
                call()
