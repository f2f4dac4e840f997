"""What a recipe starts from, opened and checked: model, samples, metric."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxopt.data.sample import Samples
from onnxopt.data.split import Split, checked_split, open_split, split, synthetic_split
from onnxopt.errors import UsageError
from onnxopt.evaluate.metrics import Metric, make_metric
from onnxopt.ir.model import Model
from onnxopt.ir.read import read_model
from onnxopt.recipe.recipe import DataSpec, ExportSpec, Recipe


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


def open_inputs(recipe: Recipe, scratch: Path) -> Inputs:
    """Open everything a recipe starts from.

    Args:
        recipe: The recipe.
        scratch: Where an exported model is put.

    Raises:
        OnnxoptError: The model or the data cannot be read, or do not fit each other.
    """
    path = _model_path(recipe, scratch)
    model = read_model(path)
    data = _open_data(recipe.data, model, recipe.base, recipe.seed)
    metric, told = _metric(recipe.metric, model, data.evaluation)
    notes = [told] if told else []
    if data.evaluation.synthetic:
        notes.append("no samples were given: fidelity was measured on made-up inputs, and says little about real ones")
    return Inputs(path, model, data, metric, tuple(notes))


def _model_path(recipe: Recipe, scratch: Path) -> Path:
    spec = recipe.model
    if not isinstance(spec, ExportSpec):
        return spec
    from onnxopt.export.from_torch import export_model

    out = scratch / "exported.onnx"
    weights = recipe.base / spec.weights if spec.weights else None
    export_model(spec.export, out, weights=weights, dynamic=spec.dynamic, opset=spec.opset)
    return out


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
    label = evaluation.read(0).label
    if label is None:
        return None, None
    shape = model.signature.outputs[0].shape
    if np.issubdtype(label.dtype, np.integer) and label.ndim <= 1 and shape is not None and len(shape) == 2:
        return make_metric("top1"), "the metric is top1, because labels are whole numbers; --metric chooses another"
    return None, "there are labels and no metric, so fidelity to the input decides; --metric names one"
