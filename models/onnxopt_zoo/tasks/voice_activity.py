"""Is someone speaking: human clips with silence around them, for Silero's network as a step and over a sequence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from onnxopt_zoo.media.audio import SPEECH_RATE, Wave, clips, speech_package, trimmed
from onnxopt_zoo.samples import Array, Ingredients, Outputs, Sample, Samples
from onnxopt_zoo.tasks.scores import area_under_curve

_FRAME = 512  # samples that the network judges at once
_CONTEXT = 64  # samples before them that it also hears
_SPOKEN = ("en", "fr", "it", "ru")
_CLIPS = 8  # of each language, to evaluate on
_CALIBRATION_CLIPS = 8
_CALIBRATION_STRIDE = 32  # frames; neighbours are alike
_SILENCE = 0.004  # standard deviation of the noise in silences


@dataclass(frozen=True)
class _Clip:
    """A clip between silences: frames float32 [t, 576], and whether each is speech, [t]."""

    name: str
    frames: npt.NDArray[np.float32]
    speech: npt.NDArray[np.bool_]


# --- samples ---------------------------------------------------------------------------------------------------


def sequences(ingredients: Ingredients) -> Samples:
    """Whole clips: input float32 [t, 576], h and c zero [1, 1, 128]; the label says which frames are speech, [t]."""
    calibration, evaluation = _clips(ingredients)
    return Samples(map(_sequence, calibration), map(_sequence, evaluation))


def steps(ingredients: Ingredients) -> Samples:
    """Single frames: input float32 [1, 576], the state [2, 1, 128] that the float model has reached, and sr 16000."""
    calibration, evaluation = _clips(ingredients)
    thinned = islice(_steps(ingredients.model, calibration), 0, None, _CALIBRATION_STRIDE)
    return Samples(thinned, _steps(ingredients.model, evaluation))


def _clips(ingredients: Ingredients) -> tuple[list[_Clip], list[_Clip]]:
    """Return clips to calibrate and to evaluate on, the same number in each language."""
    rng = np.random.default_rng(0)
    chosen: tuple[list[_Clip], list[_Clip]] = ([], [])
    for language in _SPOKEN:
        known = clips(ingredients.packages[speech_package(language)], 1.5, 4.0)
        names = sorted(known)
        for place, index in enumerate(rng.permutation(len(names))[: _CLIPS + _CALIBRATION_CLIPS]):
            clip = _between_silences(f"{language} {names[index]}", known[names[index]], rng)
            chosen[place < _CLIPS].append(clip)
    return chosen


def _between_silences(name: str, sound: Wave, rng: np.random.Generator) -> _Clip:
    """Put 0.25 to 0.75 s of faint noise before and after the clip, and a little everywhere."""
    spoken = trimmed(sound)
    before, after = (int(rng.uniform(0.25, 0.75) * SPEECH_RATE) for _ in range(2))
    heard = np.pad(spoken, (before, after))
    heard = heard + rng.normal(0.0, _SILENCE, heard.size).astype(np.float32)
    count = heard.size // _FRAME
    padded = np.pad(heard, (_CONTEXT, 0))
    frames = np.stack([padded[at * _FRAME : at * _FRAME + _CONTEXT + _FRAME] for at in range(count)])
    middles = np.arange(count) * _FRAME + _FRAME // 2
    return _Clip(name, frames, (middles >= before) & (middles < before + spoken.size))


def _sequence(clip: _Clip) -> Sample:
    state = np.zeros((1, 1, 128), np.float32)
    return Sample({"input": clip.frames, "h": state, "c": state}, (clip.name,), clip.speech)


def _steps(model: Path, chosen: Sequence[_Clip]) -> Iterator[Sample]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for clip in chosen:
        state = np.zeros((2, 1, 128), np.float32)
        for frame, speech in zip(clip.frames, clip.speech, strict=True):
            inputs = {"input": frame[None], "state": state, "sr": np.array(SPEECH_RATE)}
            yield Sample(inputs, (clip.name,), np.array([speech]))
            state = session.run(["stateN"], inputs)[0]


# --- score -----------------------------------------------------------------------------------------------------


def frame_area_under_curve(outputs: Sequence[Outputs], labels: Sequence[Array]) -> float:
    """Return the area under the ROC curve over all frames.

    The probability of speech is the output that is not a state: `speech_probs` [t], or `output` [1, 1].
    """
    scores = [(output["output"] if "output" in output else output["speech_probs"]).ravel() for output in outputs]
    return area_under_curve(np.concatenate(scores), np.concatenate(labels))
