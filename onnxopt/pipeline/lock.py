"""The lock: a recipe that repeats a result without searching, and says if it no longer does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from onnxopt.data.source import FOLDERS, PLACES
from onnxopt.pipeline.optimize import Result
from onnxopt.recipe.recipe import DataSpec, ExportSpec, Recipe
from onnxopt.user_code import is_function_place


def lock_text(result: Result, recipe: Recipe) -> str:
    """Return the YAML of the recipe that does again what ``result`` came to."""
    best, record = result.record.best, result.record
    content: dict[str, Any] = {
        "purpose": f"Repeats: {best.name}",
        "model": _model(recipe),
        **_data(recipe.data, recipe.base),
        **_metric(recipe),
        "budget": _budget(recipe),
        "target": record.target,
        "runtime": {"name": best.runtime, **best.runtime_options},
        "seed": record.seed,
        "passes": [{step.name: step.options} if step.options else step.name for step in best.steps],
        "lock": {
            "input": record.model["digest"],
            "steps": [step.digest for step in best.steps],
            "libraries": record.machine.libraries,
            "machine": str(record.machine),
            "created": record.created,
        },
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


def _model(recipe: Recipe) -> Any:
    if isinstance(recipe.model, ExportSpec):
        spec = {"export": _place(recipe.model.export, recipe.base), "opset": recipe.model.opset}
        weights = {"weights": str((recipe.base / recipe.model.weights).resolve())} if recipe.model.weights else {}
        return {**spec, **weights, "dynamic": dict(recipe.model.dynamic)}
    return str(Path(recipe.model).resolve())


def _place(export: str, base: Path) -> str:
    return export if is_function_place(export) else str((base / export).resolve())


def _budget(recipe: Recipe) -> dict[str, Any]:
    """Return what may be lost and what must be kept, in the units recipes are written in."""
    latency, size = recipe.limits.latency, recipe.limits.size
    return {
        "max_drop": recipe.budget.max_drop,
        "min_sqnr": recipe.budget.min_sqnr,
        "min_agreement": recipe.budget.min_agreement,
        **({"max_latency": f"{latency}s"} if latency is not None else {}),
        **({"max_size": f"{size}B"} if size is not None else {}),
    }


def _data(spec: DataSpec, base: Path) -> dict[str, Any]:
    if spec.path is not None:
        place = Path(spec.path)
        return {"data": str(place.resolve()) if place.exists() else spec.path}
    if spec.samples is not None:
        return {"data": _absolute(spec.samples.options, base)}
    parts = {"calibration": spec.calibration, "evaluation": spec.evaluation}
    told = {key: _absolute(source.options, base) for key, source in parts.items() if source is not None}
    return {"data": told} if told else {}


def _absolute(options: dict[str, Any], base: Path) -> dict[str, Any]:
    """Make paths absolute: the lock lies elsewhere than the recipe."""
    return {
        key: str((base / value).absolute()) if key in PLACES and value != FOLDERS else value
        for key, value in options.items()
        if value is not None
    }


def _metric(recipe: Recipe) -> dict[str, Any]:
    metric = recipe.metric
    if metric is None:
        return {}
    if "function" in metric.options:
        return {"metric": {"name": metric.options["function"], "goal": metric.options["goal"]}}
    return {"metric": {"name": metric.name, **{k: v for k, v in metric.options.items() if v is not None}}}
