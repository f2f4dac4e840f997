"""A result on disk: the model, how to run it, the record and the lock. And running it again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir

from onnxopt.compile.engine import Engine, make_backend
from onnxopt.errors import ModelError, UsageError
from onnxopt.ir.traverse import all_tensors
from onnxopt.ir.write import replaced_files
from onnxopt.pipeline.cache import file_digest
from onnxopt.pipeline.lock import lock_text
from onnxopt.pipeline.making import ModelFile, read_proved
from onnxopt.pipeline.measuring import Runnable
from onnxopt.pipeline.optimize import Result
from onnxopt.recipe.recipe import Recipe
from onnxopt.targets.target import local_target

MODEL = "model.onnx"
ENGINE = "engine.json"
RECORD = "run.json"
LOCK = "recipe.lock.yaml"
REPORT = "report.html"

_FORMAT = 1


def write_artefact(result: Result, recipe: Recipe, out: Path, *, report: str) -> None:
    """Write a result into a folder, each file whole or not at all.

    Args:
        result: What a run came to.
        recipe: What was asked for.
        out: The folder; it is made.
        report: The HTML page.

    Raises:
        OutputError: The folder cannot be written or is full.
    """
    with replaced_files(out) as scratch:
        digests = _copy_model(result.chosen.file, scratch)
        (scratch / ENGINE).write_text(json.dumps(_engine(result.chosen, result, digests), indent=1))
        (scratch / RECORD).write_text(result.record.to_json())
        (scratch / LOCK).write_text(lock_text(result, recipe))
        (scratch / REPORT).write_text(report)


def open_engine(folder: Path | str) -> Engine:
    """Open a result as an engine, with the runtime and settings it was proved with.

    Args:
        folder: What ``onnxopt optimize --out`` wrote.

    Returns:
        A context manager with ``run(feeds) -> dict`` of arrays by output name.

    Raises:
        UsageError: The folder holds no result.
        ModelError: The model's files are not those that were proved.
        EngineError: The runtime cannot load it here.
    """
    folder = Path(folder)
    told = _read_engine(folder)
    for name, digest in told["files"].items():
        if file_digest(folder / name) != digest:
            raise ModelError(f"{name} is not the file that was proved", where=str(folder), hint="optimize again")
    backend = make_backend(told["runtime"], told["options"])
    return backend.compile(folder / MODEL, local_target().with_threads(told["threads"]))


def _read_engine(folder: Path) -> Mapping[str, Any]:
    hint = f"give the folder of `onnxopt optimize --out`: it has {ENGINE}"
    try:
        told = json.loads((folder / ENGINE).read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder} holds no result", hint=hint) from error
    if not isinstance(told, dict) or told.get("format") != _FORMAT:
        raise UsageError(f"{folder / ENGINE} is of another version of onnxopt", hint="optimize again")
    return told


def _engine(chosen: Runnable, result: Result, digests: Mapping[str, str]) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "runtime": chosen.backend.name,
        "options": chosen.backend.options,
        "threads": result.record.target["threads"],
        "digest": chosen.file.digest,
        "files": dict(digests),
        "libraries": result.record.machine.libraries,
    }


def _copy_model(file: ModelFile, folder: Path) -> dict[str, str]:
    """Copy a model's file and its external data, byte for byte; return their digests by name."""
    graph = read_proved(file).graph
    external = {str(t.location): Path(t.path) for _, t in all_tensors(graph) if isinstance(t, onnx_ir.ExternalTensor)}
    for name, source in {**external, MODEL: file.path}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / name)
    return {name: file_digest(folder / name) for name in (MODEL, *external)}
