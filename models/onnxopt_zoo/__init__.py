"""The model zoo: 31 real models with data to calibrate and score them on, fetched from published packages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from onnxopt_zoo.assembly import ZooFiles
    from onnxopt_zoo.manifest import ZooModel

__all__ = ["ZooFiles", "ZooModel", "get", "model", "models"]

_LAZY = {"ZooFiles": "onnxopt_zoo.assembly", "ZooModel": "onnxopt_zoo.manifest"}


def models() -> tuple[ZooModel, ...]:
    """Return what is known of every model, in the manifest's order."""
    from onnxopt_zoo.manifest import load_manifest

    return load_manifest().models


def model(id: str) -> ZooModel:  # noqa: A002
    """Return what is known of the model that goes by ``id``.

    Raises:
        UsageError: There is none of that name.
    """
    from onnxopt.errors import UsageError, did_you_mean

    known = {entry.id: entry for entry in models()}
    if id not in known:
        raise UsageError(f"the zoo has no model {id!r}", hint=did_you_mean(id, known))
    return known[id]


def get(
    id: str,  # noqa: A002
    out: Path,
    *,
    cache: Path,
    samples: bool = True,
    progress: Callable[[str], None] | None = None,
) -> ZooFiles:
    """Write a model, its samples and ``zoo.yaml`` to the folder ``out``, or do nothing if they are there unchanged.

    Args:
        id: The model's name.
        out: The folder; it is complete or untouched, whatever happens.
        cache: A folder for what is fetched and made, shared by all models; with it filled no network is needed.
        samples: Whether to build the samples too.
        progress: Told in a short sentence what is being done.

    Raises:
        UsageError: There is no model of that name.
        FetchError: Something cannot be downloaded.
        IntegrityError: Something fetched is not what was pinned.
        MissingExtraError: A package is needed that is not installed.
        OutputError: ``out`` has something else in it.
    """
    from onnxopt_zoo.assembly import assemble

    return assemble(model(id), out, cache=cache, samples=samples, progress=progress or (lambda _sentence: None))


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
