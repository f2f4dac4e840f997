"""Some small models fetched for real, and scored. The archives are kept between runs."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import onnxopt_zoo
from onnxopt_zoo.errors import FetchError
from onnxopt_zoo.references import resolve

pytestmark = pytest.mark.network


@pytest.fixture
def cache(pytestconfig: pytest.Config) -> Path:
    folder = pytestconfig.cache
    assert folder is not None
    return folder.mkdir("zoo")


@pytest.mark.parametrize("name", ["magika", "ppocr_cls", "silero_vad_seq"])
def test_a_model_is_fetched(name: str, cache: Path, tmp_path: Path) -> None:
    try:
        files = onnxopt_zoo.get(name, tmp_path / name, cache=cache, samples=False)
    except FetchError as error:
        pytest.skip(f"cannot fetch: {error.what}")
    session = onnxruntime.InferenceSession(files.model, providers=["CPUExecutionProvider"])
    assert session.get_inputs()


def test_a_model_scores_as_measured(cache: Path, tmp_path: Path) -> None:
    entry = onnxopt_zoo.model("magika")
    try:
        files = onnxopt_zoo.get("magika", tmp_path / "magika", cache=cache)
    except FetchError as error:
        pytest.skip(f"cannot fetch: {error.what}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        session = onnxruntime.InferenceSession(files.model, providers=["CPUExecutionProvider"])
    assert files.evaluation is not None
    samples = [dict(np.load(file)) for file in sorted(files.evaluation.iterdir())]
    labels = [sample.pop("label") for sample in samples]
    outputs = [{"y": session.run(None, sample)[0]} for sample in samples]
    assert len(samples) == entry.task.evaluation
    assert resolve(str(files.metric))(outputs, labels) == pytest.approx(entry.task.measured_score, abs=1e-4)
