"""How good does speech sound: clips at falling signal-to-noise ratios, for DNSMOS."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from onnxopt_zoo.media.audio import Wave, clips, loudness, speech_package
from onnxopt_zoo.samples import Array, Ingredients, Outputs, Sample, Samples
from onnxopt_zoo.tasks.scores import only

_SAMPLES = 144_160  # 9.01 s at 16 kHz
_RATIOS = (40.0, 20.0, 10.0, 0.0)  # dB
_SPOKEN = ("en", "fr", "it")
_CLIPS = 2  # in each language, to evaluate on
_CALIBRATION_CLIPS = 3
_OVERALL = (-0.06766283, 1.11546468, 0.04602535)  # polynomial that maps the third raw output to a MOS, as published


def noisy_clips(ingredients: Ingredients) -> Samples:
    """Clips of speech: input_1 float32 [1, 144160]; the label is the clip's number and its ratio in dB."""
    calibration: list[Sample] = []
    evaluation: list[Sample] = []
    rng = np.random.default_rng(0)
    for place, language in enumerate(_SPOKEN):
        known = clips(ingredients.packages[speech_package(language)], 4.0, 8.0)
        names = sorted(known)
        count = _CLIPS + _CALIBRATION_CLIPS
        for number, index in enumerate(rng.permutation(len(names))[:count]):
            noisy = _at_all_ratios(f"{language} {names[index]}", known[names[index]], place * count + number, rng)
            (evaluation if number < _CLIPS else calibration).extend(noisy)
    return Samples(calibration, evaluation)


def _at_all_ratios(name: str, sound: Wave, number: int, rng: np.random.Generator) -> Iterator[Sample]:
    repeated = np.resize(sound, _SAMPLES)  # said again and again
    for ratio in _RATIOS:
        noise = rng.normal(0.0, loudness(sound) * 10 ** (-ratio / 20), _SAMPLES)
        heard = np.clip(repeated + noise, -1, 1).astype(np.float32)
        yield Sample({"input_1": heard[None]}, (name,), np.array([number, ratio]))


def quality_order(outputs: Sequence[Outputs], labels: Sequence[Array]) -> float:
    """Return the part of a clip's neighbouring ratios whose overall scores are in the right order.

    The raw scores are [1, 3]: signal, background, overall.
    """
    scores: dict[float, dict[float, float]] = {}
    for output, label in zip(outputs, labels, strict=True):
        scores.setdefault(label[0], {})[label[1]] = float(np.polyval(_OVERALL, only(output)[0, 2]))
    right: list[bool] = []
    for clip in scores.values():
        falling = [clip[ratio] for ratio in sorted(clip, reverse=True)]
        right += [better > worse for better, worse in pairwise(falling)]
    return float(np.mean(right))
