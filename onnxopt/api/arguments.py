"""Arguments that several verbs take, as the rooms below want them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from onnxopt.data.sample import Samples
from onnxopt.data.source import source_at
from onnxopt.data.split import check_samples, open_split, synthetic_split
from onnxopt.errors import UsageError, did_you_mean
from onnxopt.evaluate.metrics import Metric, make_metric
from onnxopt.ir.model import Model
from onnxopt.ir.write import check_folder
from onnxopt.pipeline.cache import Cache
from onnxopt.pipeline.effort import EFFORTS, Effort

Place = Path | str


def onnx_file(out: Place) -> Path:
    """Return the file a model is to be written to; raise if it is none, or its folder cannot take it."""
    if Path(out).suffix != ".onnx":
        raise UsageError(f"{out} is no name for an ONNX model", hint="end it in .onnx")
    check_folder(Path(out).parent)
    return Path(out)


def html_file(report: Place) -> Path:
    """Return the file a page is to be written to; raise if it is none, or its folder cannot take it."""
    if Path(report).suffix != ".html":
        raise UsageError(f"{report} is no name for a page", hint="end it in .html")
    check_folder(Path(report).parent)
    return Path(report)


def metric_of(name: str | None, goal: Literal["max", "min"] | None) -> Metric | None:
    """Return the metric of a name, None where none is named."""
    if name is None and goal is not None:
        raise UsageError("a goal without a metric", hint="--metric module:function")
    return make_metric(name, goal=goal) if name else None


def effort_of(name: str) -> Effort:
    """Return how much is spent on measuring."""
    if name not in EFFORTS:
        raise UsageError(f"there is no effort {name!r}", hint=did_you_mean(name, EFFORTS))
    return EFFORTS[name]


def default_cache() -> Path:
    """Return the user's cache folder."""
    return Path.home() / ".cache" / "onnxopt"


def cache_at(folder: Place | None) -> Cache:
    """Return the cache in a folder; in the user's if None."""
    return Cache(Path(folder) if folder is not None else default_cache())


def ignore(event: object) -> None:
    """Listen to nothing."""


def calibration_of(data: str | None, model: Model, seed: int) -> Samples | None:
    """Return what a single pass may be tuned by: the calibration part, or all of it where it is not split."""
    if data is None:
        return None
    folder = Path(data)
    if (folder / "calibration").is_dir():
        return open_split(data, model, seed=seed).calibration
    samples = source_at(data).open(model, Path())
    check_samples(samples, model.signature)
    return samples


def evaluation_of(data: str, model: Model) -> Samples:
    """Return what a model is scored on: the evaluation part, or all of it where it is not split."""
    folder = Path(data)
    part = folder / "evaluation"
    samples = source_at(str(part) if part.is_dir() else data).open(model, Path())
    check_samples(samples, model.signature)
    return samples


def any_samples(data: str | None, model: Model) -> Samples:
    """Return what a model is scored on, or made-up inputs where there is no data."""
    return synthetic_split(model).evaluation if data is None else evaluation_of(data, model)
