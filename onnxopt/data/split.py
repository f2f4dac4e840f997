"""Calibration and evaluation samples that never overlap."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxopt.data.files import Files
from onnxopt.data.sample import Sample, Samples, Subset
from onnxopt.data.source import source_at
from onnxopt.data.synthetic import Synthetic
from onnxopt.errors import DataError
from onnxopt.ir.model import Model
from onnxopt.ir.signature import Signature

CALIBRATION = "calibration"
EVALUATION = "evaluation"
DEFAULT_SHARE = 0.3
_SYNTHETIC = 8
MAX_CALIBRATION = 128
"""Samples; more cost time and hardly move the ranges that are calibrated."""


@dataclass(frozen=True)
class Split:
    """Samples to tune by and samples to judge by."""

    calibration: Samples
    evaluation: Samples


def open_split(path: str, model: Model, *, seed: int = 0) -> Split:
    """Open a ``--data`` argument as calibration and evaluation samples.

    A folder with the subfolders ``calibration`` and ``evaluation`` is taken as it is; anything else is split.

    Raises:
        DataError: A sample does not fit the model, or the two parts share content.
    """
    folder = Path(path)
    if (folder / CALIBRATION).is_dir() and (folder / EVALUATION).is_dir():
        parts = [Files(files=str(folder / part)).open(model, Path()) for part in (CALIBRATION, EVALUATION)]
        return checked_split(Split(*parts), model.signature)
    return checked_split(split(source_at(path).open(model, Path()), seed=seed), model.signature)


def synthetic_split(model: Model, *, seed: int = 0) -> Split:
    """Return made-up samples for both parts, for a model nobody gave data for; small inputs may have no others."""
    calibration = Synthetic(synthetic=_SYNTHETIC, seed=seed).open(model, Path())
    evaluation = Synthetic(synthetic=_SYNTHETIC, seed=seed + 1).open(model, Path())
    check_samples((*calibration, *evaluation), model.signature)
    return Split(calibration, evaluation)


def split(samples: Samples, *, seed: int = 0, share: float = DEFAULT_SHARE) -> Split:
    """Split samples at random; samples of equal content always stay together.

    Args:
        samples: All of them.
        seed: Of the shuffle.
        share: Part that goes to calibration, up to ``MAX_CALIBRATION`` samples.

    Raises:
        DataError: There are not at least two different samples.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for index, sample in enumerate(samples):
        groups[sample.digest()].append(index)
    if len(groups) < 2:
        raise DataError(
            f"{len(samples)} samples hold {len(groups)} different ones; calibration and evaluation need one each",
            hint="give more samples, or a folder with the subfolders calibration and evaluation",
        )
    order = np.random.default_rng(seed).permutation(len(groups))
    wanted = min(max(1, round(share * len(groups))), MAX_CALIBRATION, len(groups) - 1)
    clusters = list(groups.values())
    chosen = sorted(index for group in order[:wanted] for index in clusters[group])
    rest = sorted(set(range(len(samples))) - set(chosen))
    return Split(Subset(samples, tuple(chosen)), Subset(samples, tuple(rest)))


def checked_split(parts: Split, signature: Signature) -> Split:
    """Return the split.

    Raises:
        DataError: A sample does not fit the model or stands in both parts, or only some samples have labels.
    """
    seen = {check_sample(sample, signature).digest(): sample.name for sample in parts.calibration}
    for sample in parts.evaluation:
        twin = seen.get(check_sample(sample, signature).digest())
        if twin is not None:
            raise DataError(
                f"{sample.name} is also in the calibration part, as {twin}",
                hint="a result judged by what it was tuned on proves nothing: remove one of the two",
            )
    check_labels(parts.evaluation)
    return parts


def check_samples(samples: Iterable[Sample], signature: Signature) -> None:
    """Raise DataError if a sample does not fit the model."""
    for sample in samples:
        check_sample(sample, signature)


def check_sample(sample: Sample, signature: Signature) -> Sample:
    """Return the sample.

    Raises:
        DataError: A name, dtype or shape does not fit, or there is a NaN.
    """
    signature.check_feeds(sample.feeds, sample.name)
    for name, array in sample.feeds.items():
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise DataError(
                f"input {name!r} has {int(np.isnan(array).sum())} NaN values",
                where=sample.name,
                hint="whatever is measured on it means nothing: repair or remove the sample",
            )
    return sample


def check_labels(samples: Samples) -> None:
    """Raise DataError if some samples have a label and others none."""
    without = [sample.name for sample in samples if sample.label is None]
    if without and len(without) < len(samples):
        raise DataError(
            f"{len(without)} of {len(samples)} samples have no label", where=without[0], hint="label all or none"
        )
