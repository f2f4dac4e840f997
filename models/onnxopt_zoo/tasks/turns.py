"""Has the speaker finished: whole sentences against the same ones cut short, for Smart Turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from onnxopt_zoo.media.audio import (
    SPEECH_RATE,
    Wave,
    clips,
    mel_filters,
    power_spectrogram,
    speech_package,
    trimmed,
)
from onnxopt_zoo.media.text import TRANSCRIPTS, transcripts
from onnxopt_zoo.samples import Array, Ingredients, Outputs, Sample, Samples
from onnxopt_zoo.tasks.scores import area_under_curve, only

_SECONDS = 8
_WINDOW, _HOP, _BANDS = 400, 160, 80  # samples, samples, mel bands: Whisper's
_SENTENCES = 37
_CALIBRATION_SENTENCES = 32
_WORDS = 7  # in a sentence, at least
_CUT = 0.5  # part of a cut sentence that is left
_PAUSE = np.zeros(SPEECH_RATE // 5, np.float32)  # of 0.2 s; a turn is only judged once someone pauses


def sentences(ingredients: Ingredients) -> Samples:
    """Sentences whole (label 1) and cut (label 0): input_features float32 [1, 80, 800]."""
    spoken = transcripts(ingredients.packages[TRANSCRIPTS])
    known = clips(ingredients.packages[speech_package("en")], 2.5, 8.0)
    names = sorted(name for name in known if _is_sentence(spoken.get(name, "")))
    chosen = [names[index] for index in np.random.default_rng(0).permutation(len(names))]
    evaluated = {name: known[name] for name in chosen[:_SENTENCES]}
    calibrated = {name: known[name] for name in chosen[_SENTENCES : _SENTENCES + _CALIBRATION_SENTENCES]}
    return Samples(_whole_and_cut(calibrated), _whole_and_cut(evaluated))


def _is_sentence(text: str) -> bool:
    return len(text.split()) >= _WORDS and text.endswith((".", "?", "!"))


def _whole_and_cut(sounds: dict[str, Wave]) -> Iterator[Sample]:
    for name, sound in sounds.items():
        whole = trimmed(sound)
        cut = whole[: int(whole.size * _CUT)]
        for label, heard in ((1, whole), (0, cut)):
            features = _features(np.concatenate([heard, _PAUSE]))
            yield Sample({"input_features": features}, (name,), np.array([label]))


def _features(sound: Wave) -> npt.NDArray[np.float32]:
    """Return the logarithmic mel spectrogram of the last 8 s, silence before shorter sounds, [1, 80, 800]."""
    size = _SECONDS * SPEECH_RATE
    heard = np.pad(sound[-size:], (max(0, size - sound.size), 0))
    heard = (heard - heard.mean()) / np.sqrt(heard.var() + 1e-7)
    power = power_spectrogram(heard, _WINDOW, _HOP, "reflect")[:, :-1]
    logarithm = np.log10(np.maximum(1e-10, mel_filters(_BANDS, _WINDOW, SPEECH_RATE) @ power))
    scaled = (np.maximum(logarithm, logarithm.max() - 8.0) + 4.0) / 4.0
    features: npt.NDArray[np.float32] = scaled[None].astype(np.float32)
    return features


def finished_area_under_curve(outputs: Sequence[Outputs], labels: Sequence[Array]) -> float:
    """Return how often a whole sentence seems more finished than a cut one; the probability is [1, 1]."""
    scores = np.concatenate([only(output).ravel() for output in outputs])
    return area_under_curve(scores, np.concatenate(list(labels)))
