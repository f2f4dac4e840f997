"""What a recipe starts from, opened and checked: model, samples, metric."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxopt.data.sample import Samples
from onnxopt.data.split import Split, checked_split, open_split, split, synthetic_split
from onnxopt.errors import UsageError
from onnxopt.evaluate.metrics import Metric, make_metric
from onnxopt.export.extra import LIBRARIES
from onnxopt.ir.model import Model
from onnxopt.ir.read import read_model
from onnxopt.lift.extra import need_torch
from onnxopt.options import dump
from onnxopt.pipeline.cache import file_digest
from onnxopt.pipeline.steps import CachedSteps
from onnxopt.profile.machine import library_versions
from onnxopt.recipe.recipe import DataSpec, ExportSpec, Recipe
from onnxopt.user_code import code_fingerprint, is_function_place

_EXPORTED = "exported.onnx"


@dataclass(frozen=True)
class Inputs:
    """What a run starts from.

    Attributes:
        path: The model's file.
        model: The model.
        data: Calibration and evaluation samples; made up where none were given.
        metric: What results are scored by; None for fidelity to the input.
        notes: What the reader of the result must know.
    """

    path: Path
    model: Model
    data: Split
    metric: Metric | None
    notes: tuple[str, ...]

    @property
    def real_calibration(self) -> Samples | None:
        """The calibration samples, unless they were made up: nothing may be tuned by those."""
        return None if self.data.calibration.synthetic else self.data.calibration


def open_inputs(recipe: Recipe, steps: CachedSteps) -> Inputs:
    """Open everything a recipe starts from.

    Args:
        recipe: The recipe.
        steps: Runs the export, if the recipe starts from a torch module.

    Raises:
        OnnxoptError: The model or the data cannot be read, or do not fit each other.
    """
    path = _exported(recipe.model, recipe.base, steps) if isinstance(recipe.model, ExportSpec) else recipe.model
    model = read_model(path)
    data = _open_data(recipe.data, model, recipe.base, recipe.seed)
    metric, told = _metric(recipe.metric, model, data.evaluation)
    notes = [told] if told else []
    if data.evaluation.synthetic:
        notes.append("no samples were given: fidelity was measured on made-up inputs, and says little about real ones")
    return Inputs(path, model, data, metric, tuple(notes))


def _exported(spec: ExportSpec, base: Path, steps: CachedSteps) -> Path:
    """Return the file a torch module is exported to; it lies in the cache."""
    need_torch("exporting")
    place = spec.export if is_function_place(spec.export) else str(base / spec.export)
    weights = base / spec.weights if spec.weights else None

    def make(folder: Path) -> None:
        from onnxopt.export.from_torch import export_model

        export_model(place, folder / _EXPORTED, weights=weights, dynamic=spec.dynamic, opset=spec.opset)

    parts = {
        "step": "export",
        "options": dump(spec),
        "source": code_fingerprint(place) if is_function_place(place) else file_digest(Path(place)),
        "weights": file_digest(weights) if weights else None,
        "libraries": library_versions(("onnxopt", *LIBRARIES)),
    }
    entry, _ = steps.run("export", parts, make)
    return entry.folder / _EXPORTED


def _open_data(spec: DataSpec, model: Model, base: Path, seed: int) -> Split:
    if spec.path is not None:
        return open_split(spec.path, model, seed=seed)
    if spec.samples is not None:
        return checked_split(split(spec.samples.open(model, base), seed=seed), model.signature)
    if spec.calibration is not None and spec.evaluation is not None:
        parts = Split(spec.calibration.open(model, base), spec.evaluation.open(model, base))
        return checked_split(parts, model.signature)
    if spec.calibration is not None or spec.evaluation is not None:
        raise UsageError(
            "data names only one of calibration and evaluation", hint="name both, or give samples to be split"
        )
    return synthetic_split(model, seed=seed)


def _metric(given: Metric | None, model: Model, evaluation: Samples) -> tuple[Metric | None, str | None]:
    """Return the metric, and what to tell if it was not the user's choice."""
    if given is not None:
        return given, None
    first = evaluation.read(0)
    label = first.label
    if label is None:
        return None, None
    rows = {array.shape[:1] for array in first.feeds.values()}
    shape = model.signature.outputs[0].shape
    classes = shape is not None and len(shape) == 2 and shape[1] != 1
    if np.issubdtype(label.dtype, np.integer) and {(label.size,)} == rows and classes:
        return make_metric("top1"), "the metric is top1, because labels are whole numbers; --metric chooses another"
    return None, "there are labels and no metric, so fidelity to the input decides; --metric names one"
