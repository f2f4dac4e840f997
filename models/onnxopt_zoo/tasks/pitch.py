"""Which pitch is it: frames of harmonic tones in noise, for CREPE."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from onnxopt_zoo.samples import Array, Ingredients, Outputs, Sample, Samples
from onnxopt_zoo.tasks.scores import only

_RATE = 16_000  # samples a second
_SAMPLES = 1024  # of a frame
_TONES = 200
_CALIBRATION_TONES = 128
_LOWEST, _HIGHEST = 80.0, 800.0  # Hz
_NOISE = 0.05  # standard deviation, in amplitudes of the fundamental
_NEAR = 50.0  # cents, half of a semitone
_FIRST_BIN, _BIN = 1997.3794, 20.0  # cents above 10 Hz, and cents from bin to bin, as CREPE was trained
_AROUND = 4  # bins to each side of the peak that its mean is taken over


def tones(_ingredients: Ingredients) -> Samples:
    """Tones: frames float32 [1, 1024], zero mean, unit variance; the label is the pitch in Hz."""
    return Samples(_tones("calibration", _CALIBRATION_TONES, 1), _tones("evaluation", _TONES, 0))


def _tones(name: str, count: int, seed: int) -> Iterator[Sample]:
    rng = np.random.default_rng(seed)
    time = np.arange(_SAMPLES) / _RATE
    for number in range(count):
        pitch = float(np.exp(rng.uniform(np.log(_LOWEST), np.log(_HIGHEST))))
        harmonics = np.arange(1, 7)[:, None]
        phases = rng.uniform(0, 2 * np.pi, harmonics.shape)
        sound = (np.sin(2 * np.pi * pitch * harmonics * time + phases) / harmonics).sum(axis=0)
        sound = sound + rng.normal(0, _NOISE, _SAMPLES)
        frame = ((sound - sound.mean()) / sound.std()).astype(np.float32)
        yield Sample({"frames": frame[None]}, (f"{name} tone {number}",), np.array([pitch]))


def within_half_a_semitone(outputs: Sequence[Outputs], labels: Sequence[Array]) -> float:
    """Return the part of tones whose pitch is found within 50 cents; activations are [1, 360]."""
    errors = [
        abs(_cents(only(output)[0]) - 1200 * np.log2(label[0] / 10))
        for output, label in zip(outputs, labels, strict=True)
    ]
    return float(np.mean(np.array(errors) <= _NEAR))


def _cents(activations: npt.NDArray[np.float32]) -> float:
    """Return the pitch in cents above 10 Hz: the mean of the bins around the peak, weighted by their activation."""
    peak = int(activations.argmax())
    first = max(0, peak - _AROUND)
    weights = activations[first : peak + _AROUND + 1].astype(np.float64)
    bins = _FIRST_BIN + _BIN * (first + np.arange(weights.size))
    return float((weights * bins).sum() / weights.sum())
