"""Which notes sound: synthesized chords, for the network of Basic Pitch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from onnxopt_zoo.samples import Array, Ingredients, Outputs, Sample, Samples

_RATE = 22_050  # samples a second
_SAMPLES = 43_844  # of one window: two seconds less one hop of 256
_LOWEST = 27.5  # Hz, of the first of the 88 notes, A0
_NOTES = 88
_CHORDS = 20
_CALIBRATION_CHORDS = 48
_HEARD = 0.35  # a note is called heard if its mean over the frames is above this

_INPUT = "serving_default_input_2:0"
_NOTE_MAP = "StatefulPartitionedCall:1"  # [1, 172, 88]; the others are contours and onsets


def chords(_ingredients: Ingredients) -> Samples:
    """Chords of three to five notes, float32 [1, 43844, 1]; the label has a row saying which notes sound, [1, 88]."""
    return Samples(_chords("calibration", _CALIBRATION_CHORDS, 1), _chords("evaluation", _CHORDS, 0))


def _chords(name: str, count: int, seed: int) -> Iterator[Sample]:
    rng = np.random.default_rng(seed)
    for number in range(count):
        notes = rng.choice(np.arange(12, 72), int(rng.integers(3, 6)), replace=False)
        sounding = np.zeros((1, _NOTES), np.bool_)
        sounding[0, notes] = True
        sound = sum((_tone(int(note), rng) for note in notes), np.zeros(_SAMPLES))
        heard = (0.5 * sound / np.abs(sound).max() + rng.normal(0, 0.05, _SAMPLES)).astype(np.float32)
        yield Sample({_INPUT: heard[None, :, None]}, (f"{name} chord {number}",), sounding)


def _tone(note: int, rng: np.random.Generator) -> Array:
    """Return a tone of any loudness: eight harmonics that fall by their number and decay over a second."""
    time = np.arange(_SAMPLES) / _RATE
    pitch = _LOWEST * 2 ** (note / 12)
    harmonics = np.arange(1, 9)
    phases = rng.uniform(0, 2 * np.pi, harmonics.size)
    waves = np.sin(2 * np.pi * pitch * harmonics[:, None] * time + phases[:, None]) / harmonics[:, None]
    envelope = np.minimum(1.0, time / 0.01) * np.exp(-time / 1.5)
    tone: Array = rng.uniform(0.1, 1.0) * envelope * waves.sum(axis=0)
    return tone


def note_f1(outputs: Sequence[Outputs], labels: Sequence[Array]) -> float:
    """Return the F1 of notes over all chords; the note map is [1, frames, 88]."""
    heard = np.concatenate([output[_NOTE_MAP].mean(axis=1) > _HEARD for output in outputs])
    sounding = np.concatenate(list(labels))
    right = int((heard & sounding).sum())
    return 2 * right / max(1, int(heard.sum()) + int(sounding.sum()))
