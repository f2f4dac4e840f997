"""Feeds to verify with: real samples, made-up ones of several seeds, and other sizes of every dynamic dimension."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from onnxopt.data.sample import Array, Feeds, Sample, Samples
from onnxopt.data.synthetic import Synthetic
from onnxopt.errors import DataError
from onnxopt.ir.model import Model
from onnxopt.ir.signature import Dim, Port, Signature

_REAL = 4
_SEEDS = 3


def probes(model: Model, samples: Samples | None, *, seeds: int = _SEEDS) -> tuple[Sample, ...]:
    """Return feeds that show a changed model up.

    Args:
        model: The model before it was changed.
        samples: Real ones, if there are any; a few are used, spread over all of them, as far as the model takes them.
        seeds: How many made-up feeds.
    """
    places = np.unique(np.linspace(0, len(samples) - 1, _REAL).astype(int)) if samples else ()
    real = [sample for i in places if samples and _fits(sample := samples.read(i), model.signature)]
    made = list(_synthetic(model, real[0].feeds if real else None, seeds))
    return (*real, *made, *_resized(real[:1] or made[:1], model.signature))


def _fits(sample: Sample, signature: Signature) -> bool:
    return all(port.accepts_shape(sample.feeds[port.name].shape) for port in signature.inputs)


def _synthetic(model: Model, like: Feeds | None, seeds: int) -> Iterator[Sample]:
    """Yield one made-up sample a seed, with the shapes of a real one where there is one."""
    dims = {f"{name}.{axis}": size for name, array in (like or {}).items() for axis, size in enumerate(array.shape)}
    for seed in range(1, seeds + 1):
        try:
            yield Synthetic(synthetic=1, dims=dims, seed=seed).open(model, Path()).read(0)
        except DataError:
            return


def _resized(samples: Iterable[Sample], signature: Signature) -> Iterator[Sample]:
    """Yield each sample once for every dynamic dimension, doubled along it by repeating its content.

    Dimensions of one name are doubled together; one without a name is doubled alone. Not every model takes every
    size: what the model before the change refuses is no probe.
    """
    free = {_key(port, axis) for port in signature.inputs for axis, dim in _axes(port) if not isinstance(dim, int)}
    for sample in samples:
        for key in sorted(free):
            feeds = {port.name: _doubled(sample.feeds[port.name], port, key) for port in signature.inputs}
            yield Sample(f"{sample.name}, twice along {key!r}", feeds)


def _doubled(array: Array, port: Port, key: str) -> Array:
    for axis, _ in _axes(port):
        if _key(port, axis) == key and axis < array.ndim:
            array = np.concatenate([array, array], axis=axis)
    return array


def _axes(port: Port) -> Iterable[tuple[int, Dim]]:
    return enumerate(port.shape or ())


def _key(port: Port, axis: int) -> str:
    dim = port.shape[axis] if port.shape else None
    return dim if isinstance(dim, str) else f"{port.name}.{axis}"
