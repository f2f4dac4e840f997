"""Descriptions of where samples come from; each kind is an options class, named by its first key.

``{files: "samples/*.npz", limit: 128}`` is of kind ``files``, ``{images: photos, resize: 256}`` of kind ``images``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar

import yaml

from onnxopt.data.sample import Samples
from onnxopt.errors import DataError, OnnxoptError, UsageError, did_you_mean
from onnxopt.ir.model import Model
from onnxopt.ir.signature import Port
from onnxopt.options import build, describe, dump
from onnxopt.registry import names, resolve
from onnxopt.user_code import is_function_place

PLACES = frozenset({"files", "stacked", "images", "text", "audio", "labels", "tokenizer"})
"""Options that are paths."""

FOLDERS = "folders"
"""Instead of a file of labels: the folder a file lies in is its class."""


class Source(ABC):
    """Where samples come from.

    Attributes:
        name: The kind, and the option that tells the place.
        libraries: Distributions that decode the files; another version may give other samples.
    """

    name: ClassVar[str]
    libraries: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def open(self, model: Model, base: Path) -> Samples:
        """Return the samples for a model.

        Args:
            model: Tells names, dtypes and shapes of what must be fed.
            base: The folder relative paths start from.

        Raises:
            DataError: There is nothing there, or it does not fit the model.
        """

    @property
    def options(self) -> dict[str, Any]:
        """The fields, as JSON values."""
        return dump(self)

    @property
    def reading(self) -> dict[str, Any]:
        """The options and libraries that say how files are read; which files they are, their content tells."""
        told = {key: value for key, value in self.options.items() if key not in PLACES | {"limit"}}
        return {**told, "libraries": [f"{name} {_version(name)}" for name in self.libraries]}


def make_source(spec: Mapping[str, Any], *, where: str, error: type[OnnxoptError] = UsageError) -> Source:
    """Return the source a description stands for.

    Raises:
        error: No kind is named, or an option does not fit.
    """
    kinds = [key for key in spec if key in names("sources")]
    if len(kinds) != 1:
        hint = f"give exactly one of: {', '.join(names('sources'))}"
        unknown = str(next(iter(spec), ""))
        raise error(
            f"cannot tell what kind of data {dict(spec)} is",
            where=where,
            hint=f"{hint}; {did_you_mean(unknown, names('sources'))}" if unknown else hint,
        )
    cls: type[Source] = resolve("sources", kinds[0])
    return build(cls, spec, where=where, error=error)


def source_at(path: str) -> Source:
    """Return the source a ``--data`` argument stands for.

    Args:
        path: A folder of ``.npz`` samples, one ``.npz`` or ``.npy`` of stacked samples, a YAML file with a
            description, or ``module:function``.

    Raises:
        UsageError: There is nothing there, or it needs a description.
    """
    if is_function_place(path) and not Path(path).exists():
        return make_source({"function": path}, where=path)
    place = Path(path)
    if not place.exists():
        raise UsageError(f"there is no data at {path}", hint="give a folder, a file, or module:function")
    if place.is_dir():
        return make_source({_folder_kind(place): str(place)}, where=path)
    if place.suffix in (".yaml", ".yml"):
        return make_source(_read_description(place), where=path)
    if place.suffix in (".npz", ".npy"):
        return make_source({"stacked": str(place)}, where=path)
    raise UsageError(f"cannot tell how to read {path}", hint=_DESCRIBE)


_DESCRIBE = "describe it in a YAML file and give that: {images: FOLDER, ...}, {text: FILE, ...} or {audio: FOLDER, ...}"


def _folder_kind(folder: Path) -> str:
    if any(folder.glob("*.npz")):
        return "files"
    parts = [part for part in ("calibration", "evaluation") if (folder / part).is_dir()]
    if parts:
        raise UsageError(f"{folder} has {parts[0]}/ and not the other of calibration/ and evaluation/")
    found = {file.suffix.lower() for file in folder.rglob("*")}
    kind = "images" if found & {".png", ".jpg", ".jpeg"} else "audio" if ".wav" in found else None
    if kind is None:
        raise UsageError(
            f"{folder} holds no samples", hint="one .npz file a sample, arrays named as the model's inputs"
        )
    raise UsageError(f"{folder} holds {kind}, not .npz samples", hint=_describe(kind))


def _describe(kind: str) -> str:
    """Return how a kind of data is described, with all its keys."""
    keys = [option.name for option in describe(resolve("sources", kind)) if option.name != kind]
    return f"describe it in a YAML file and give that: {{{kind}: FOLDER, ...}}; other keys: {', '.join(keys)}"


def _read_description(file: Path) -> dict[str, Any]:
    try:
        spec = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is no YAML: {error}") from error
    if not isinstance(spec, dict):
        raise UsageError(f"{file} holds no description of data", hint=_DESCRIBE)
    return {key: _beside(file, key, value) for key, value in spec.items()}


def _beside(file: Path, key: str, value: Any) -> Any:
    """Make paths of a description start at its own folder."""
    if key in PLACES and isinstance(value, str) and (key, value) != ("labels", FOLDERS):
        return str(file.parent / value)
    return value


def input_of(model: Model, name: str | None, where: str) -> Port:
    """Return the input of that name, or the only one there is.

    Raises:
        DataError: There is no such input, or several and no name.
    """
    ports = {port.name: port for port in model.signature.inputs}
    if name is None:
        need(len(ports) == 1, f"the model has inputs {list(ports)}", where, "add input: NAME")
        return next(iter(ports.values()))
    need(name in ports, f"the model has no input {name!r}", where, did_you_mean(name, ports))
    return ports[name]


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "absent"


def need(condition: bool, what: str, where: str, hint: str | None = None) -> None:
    """Raise DataError unless ``condition`` holds."""
    if not condition:
        raise DataError(what, where=where, hint=hint)
