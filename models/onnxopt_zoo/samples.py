"""Samples as the rest of onnxopt reads them: folders of npz files, one a sample, arrays named like the inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxopt.errors import DataError
from onnxopt_zoo.store import Contents

Array = npt.NDArray[Any]
Outputs = Mapping[str, Array]
"""What a model returned for one sample, by output name."""

LABEL = "label"
"""Name of the array with the ground truth, in the npz file of a sample that has one."""


@dataclass(frozen=True)
class Ingredients:
    """What samples are made from.

    Attributes:
        model: The finished ONNX file.
        packages: The unpacked files of every package that the manifest names for the model.
    """

    model: Path
    packages: Mapping[str, Contents]


@dataclass(frozen=True)
class Sample:
    """The inputs of one run of a model.

    Attributes:
        inputs: An array for each input of the model, in its dtype, batch dimension included.
        origins: The photos, sentences, clips or files behind it; one that is evaluated on never calibrates.
        label: The ground truth, in whatever form the task's metric reads; no objects.
    """

    inputs: Mapping[str, Array]
    origins: tuple[str, ...]
    label: Array | None = None


@dataclass(frozen=True)
class Samples:
    """The samples of a task.

    Attributes:
        calibration: What a pass may look at.
        evaluation: What is only used to score.
    """

    calibration: Iterable[Sample]
    evaluation: Iterable[Sample]


def write_samples(samples: Samples, folder: Path) -> None:
    """Write ``calibration/`` and ``evaluation/`` below ``folder``, as uncompressed npz files.

    Raises:
        DataError: The two share an origin or a content, or an array holds Python objects.
    """
    calibration = _write(samples.calibration, folder / "calibration")
    evaluation = _write(samples.evaluation, folder / "evaluation")
    if shared := calibration & evaluation:
        raise DataError(f"{len(shared)} origins or contents are both calibrated and evaluated on", where=min(shared))


def _write(samples: Iterable[Sample], folder: Path) -> set[str]:
    """Write the samples of one folder and return their origins and the digests of their inputs."""
    folder.mkdir(parents=True)
    seen: set[str] = set()
    for number, sample in enumerate(samples):
        label = {} if sample.label is None else {LABEL: sample.label}
        arrays: dict[str, Any] = {**sample.inputs, **label}
        if any(array.dtype.hasobject for array in arrays.values()):
            raise DataError(
                "an array holds Python objects", where=f"{folder.name}/{number:04d}.npz, from {sample.origins}"
            )
        np.savez(folder / f"{number:04d}.npz", **arrays)
        seen |= {f"origin {origin}" for origin in sample.origins} | {f"content {_digest(sample.inputs)}"}
    return seen


def _digest(inputs: Mapping[str, Array]) -> str:
    digest = hashlib.sha256()
    for name in sorted(inputs):
        digest.update(f"{name} {inputs[name].dtype} {inputs[name].shape}".encode())
        digest.update(np.ascontiguousarray(inputs[name]).tobytes())
    return digest.hexdigest()
