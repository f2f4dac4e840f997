"""Put a model, its samples and what is known of them into a folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from onnxopt.errors import MissingExtraError, OutputError
from onnxopt_zoo.fetch import Runner, check_hash, run_tool
from onnxopt_zoo.files import new_folder, sha256_of, sha256_of_folder
from onnxopt_zoo.manifest import Package, ZooModel, load_manifest
from onnxopt_zoo.references import is_installed, resolve, sha256_of_sources
from onnxopt_zoo.store import Contents, Progress, Store
from onnxopt_zoo.taken import Taken

_FORMAT = 1  # of the folder; raised when the same sources would be written otherwise
_FOLDERS = ("calibration", "evaluation")
_LIBRARIES = ("numpy", "onnx", "pillow", "scipy", "tokenizers", "torch", "transformers")


@dataclass(frozen=True)
class ZooFiles:
    """What a model's folder has.

    Attributes:
        model: The ONNX file.
        calibration: The folder of samples to calibrate on, or None if no samples were asked for.
        evaluation: The folder of samples to score on, or None.
        metric: The function that scores, as ``module:function``; None where there is no ground truth.
    """

    model: Path
    calibration: Path | None
    evaluation: Path | None
    metric: str | None


def assemble(
    entry: ZooModel, out: Path, *, cache: Path, samples: bool, progress: Progress, run: Runner = run_tool
) -> ZooFiles:
    """Write the folder ``out`` of a model unless it is there, complete and unchanged."""
    key = _key(entry)
    if not _is_current(out, key, samples=samples):
        _check_place(out)
        _check_modules(entry, samples=samples)
        store = Store(cache, progress, run)
        with new_folder(out) as fresh:
            _write(entry, fresh, store, key, samples=samples)
    folders = [out / name if samples else None for name in _FOLDERS]
    return ZooFiles(out / "model.onnx", folders[0], folders[1], entry.task.metric)


def _write(entry: ZooModel, folder: Path, store: Store, key: str, *, samples: bool) -> None:
    known = load_manifest().packages
    packages = {entry.package: store.contents(known[entry.package])}
    model = folder / "model.onnx"
    shutil.copyfile(_finished_model(entry, packages, store), model)
    if samples:
        packages |= {name: store.contents(known[name]) for name in entry.task.data}
        store.progress(f"building the samples of {entry.id}")
        _write_samples(entry, model, packages, folder)
    receipt = _receipt(entry, folder, key, {name: known[name] for name in packages})
    text = yaml.safe_dump(receipt, sort_keys=False, allow_unicode=True, width=110)
    (folder / "zoo.yaml").write_text(text, encoding="utf-8")


def _write_samples(entry: ZooModel, model: Path, packages: Mapping[str, Contents], folder: Path) -> None:
    from onnxopt_zoo.samples import Ingredients, write_samples

    build = resolve(entry.task.samples)
    write_samples(build(Ingredients(model, packages)), folder)


# --- the model -------------------------------------------------------------------------------------------------


def _finished_model(entry: ZooModel, packages: Mapping[str, Contents], store: Store) -> Path:
    """Return the ONNX file: the one taken, or the one made of it, which is kept in the cache."""
    contents = packages[entry.package]
    taken = contents.folder
    if entry.path and entry.sha256:
        taken = contents.path(entry.path)
        check_hash(taken, entry.sha256, what=entry.id)
    if entry.maker is None:
        return taken
    return _made(entry, entry.maker, Taken(taken, packages), store)


def _made(entry: ZooModel, maker: str, taken: Taken, store: Store) -> Path:
    folder = store.cache / "made" / _digest([entry.id, _key_of_maker(maker), entry.sha256, _versions(entry.needs)])
    model, seal = folder / "model.onnx", folder / "sha256"
    if not (model.is_file() and seal.is_file() and sha256_of(model) == seal.read_text()):
        store.progress(f"making {entry.id}")
        with new_folder(folder) as fresh:
            resolve(maker)(taken, fresh / model.name)
            (fresh / seal.name).write_text(sha256_of(fresh / model.name))
    return model


def _key_of_maker(maker: str) -> str:
    return f"{maker} {sha256_of_sources(maker)}"


# --- what is there already -------------------------------------------------------------------------------------


def _key(entry: ZooModel) -> str:
    """Return a digest of all that a folder is made from: the entry, the pinned packages, and this zoo's code."""
    known = load_manifest().packages
    packages = {name: known[name].contents_sha256 for name in (entry.package, *entry.task.data)}
    maker = entry.maker and _key_of_maker(entry.maker)
    return _digest([_FORMAT, entry.model_dump(mode="json"), packages, maker, sha256_of_sources(entry.task.samples)])


def _digest(values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _is_current(out: Path, key: str, *, samples: bool) -> bool:
    """Say whether ``out`` was written from the same sources, and nothing in it was changed since."""
    file = out / "zoo.yaml"
    if not file.is_file():
        return False
    try:
        receipt = yaml.safe_load(file.read_text(encoding="utf-8"))
        expected = [receipt["key"], receipt["model"]["sha256"]]
        expected += [receipt[name]["sha256"] for name in _FOLDERS if samples]
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError):
        return False  # written by something else or damaged: it is written again
    model = out / "model.onnx"
    actual = [key, sha256_of(model) if model.is_file() else None]
    actual += [sha256_of_folder(out / name) for name in _FOLDERS if samples]
    return expected == actual


def _check_place(out: Path) -> None:
    """Refuse to replace anything but a folder that the zoo wrote."""
    if out.exists() and not (out / "zoo.yaml").is_file() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(
            "the place for the model has something else in it",
            where=str(out),
            hint="give a folder that does not exist, or is empty",
        )


def _check_modules(entry: ZooModel, *, samples: bool) -> None:
    needed = (*entry.needs, *(entry.task.needs if samples else ()))
    missing = [name for name in dict.fromkeys(needed) if not is_installed(name)]
    if missing:
        extras = sorted({"torch" if name == "torch" else "zoo" for name in missing})
        raise MissingExtraError(
            f"{entry.id} needs Python modules that are not installed: {', '.join(missing)}",
            hint=f'pip install "onnxopt[{",".join(extras)}]"',
        )


# --- zoo.yaml --------------------------------------------------------------------------------------------------


def _receipt(entry: ZooModel, folder: Path, key: str, packages: Mapping[str, Package]) -> dict[str, Any]:
    model = folder / "model.onnx"
    folders = {name: _described(folder / name) for name in _FOLDERS if (folder / name).is_dir()}
    task = entry.task
    return {
        "id": entry.id,
        "family": entry.family,
        "licence": entry.licence,
        "obtained": entry.obtained,
        "inputs": entry.inputs,
        "metric": task.metric,
        "goal": "maximize" if task.metric else None,
        "measures": task.measures,
        "expected_score": task.expected_score,
        "measured_score": task.measured_score,
        "deviation": task.deviation,
        "notes": entry.notes,
        "model": {"sha256": sha256_of(model), "bytes": model.stat().st_size},
        **folders,
        "taken": {"path": entry.path, "sha256": entry.sha256},
        "packages": [_provenance(package) for package in packages.values()],
        "built_with": _versions(_LIBRARIES),
        "key": key,
    }


def _described(folder: Path) -> dict[str, str | int]:
    return {"samples": sum(1 for _ in folder.glob("*.npz")), "sha256": sha256_of_folder(folder)}


def _provenance(package: Package) -> dict[str, str]:
    shown = ("kind", "name", "version", "archive", "sha256", "licence")
    return {field: str(value) for field, value in package.model_dump(include=set(shown)).items()}


def _versions(names: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of those libraries that are installed."""
    installed = {distribution.name.lower(): distribution.version for distribution in metadata.distributions()}
    return {name: installed[name] for name in names if name in installed}
