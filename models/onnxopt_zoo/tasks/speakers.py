"""Is it the same voice: sentences of four speakers, for Resemblyzer's embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from onnxopt_zoo.media.audio import (
    LANGUAGES,
    SPEECH_RATE,
    Wave,
    clips,
    loudness,
    mel_filters,
    power_spectrogram,
    speech_package,
)
from onnxopt_zoo.samples import Array, Ingredients, Outputs, Sample, Samples
from onnxopt_zoo.tasks.scores import area_under_curve, only

_VOICES = {"en": 0, "es": 0, "fr": 1, "it": 2, "ru": 3}  # one woman speaks English and Spanish
_UTTERANCES = 14  # in each language
_CALIBRATION_UTTERANCES = 10

_WINDOW, _HOP, _BANDS = 400, 160, 40  # samples, samples, mel bands
_FRAMES, _STEP = 160, 80  # of a part of an utterance that is embedded at once
_LEVEL = 10 ** (-30 / 20)  # loudness that quieter sounds are brought to: -30 dBFS


def utterances(ingredients: Ingredients) -> Samples:
    """Utterances in parts: mels float32 [parts, 160, 40]; the label is the speaker's number."""
    calibration: list[Sample] = []
    evaluation: list[Sample] = []
    rng = np.random.default_rng(0)
    for language in LANGUAGES:
        known = clips(ingredients.packages[speech_package(language)], 2.0, 6.0)
        names = sorted(known)
        order = rng.permutation(len(names))[: _UTTERANCES + _CALIBRATION_UTTERANCES]
        samples = list(_utterances(language, {names[index]: known[names[index]] for index in order}))
        evaluation += samples[:_UTTERANCES]
        calibration += samples[_UTTERANCES:]
    return Samples(calibration, evaluation)


def _utterances(language: str, sounds: dict[str, Wave]) -> Iterator[Sample]:
    filters = mel_filters(_BANDS, _WINDOW, SPEECH_RATE)
    for name, sound in sounds.items():
        spoken = sound * np.float32(max(1.0, _LEVEL / loudness(sound)))
        mels = (filters @ power_spectrogram(spoken, _WINDOW, _HOP, "constant")).T.astype(np.float32)
        mels = np.pad(mels, ((0, max(0, _FRAMES - len(mels))), (0, 0)))
        starts = range(0, len(mels) - _FRAMES + 1, _STEP)
        parts = np.stack([mels[start : start + _FRAMES] for start in starts])
        yield Sample({"mels": parts}, (f"{language} {name}",), np.array([_VOICES[language]]))


def same_voice_area_under_curve(outputs: Sequence[Outputs], labels: Sequence[Array]) -> float:
    """Return how often two utterances of one voice are more alike than two of different ones.

    An utterance's embedding is the mean of its parts', [parts, 256].
    """
    embeddings = np.stack([_unit(only(output).mean(axis=0, dtype=np.float64)) for output in outputs])
    voices = np.concatenate(list(labels))
    pairs = np.triu_indices(len(voices), k=1)
    same = voices[pairs[0]] == voices[pairs[1]]
    return area_under_curve((embeddings @ embeddings.T)[pairs], same)


def _unit(vector: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    unit: npt.NDArray[np.float64] = vector / np.linalg.norm(vector)
    return unit
