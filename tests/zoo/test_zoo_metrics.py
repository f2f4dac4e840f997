"""Every metric on outputs made by hand: a right answer scores as expected, and a wrong one scores less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import onnxopt_zoo
from onnxopt_zoo.references import resolve
from onnxopt_zoo.samples import Array, Outputs
from onnxopt_zoo.tasks.next_token import inverse_perplexity
from onnxopt_zoo.tasks.scores import area_under_curve


@dataclass(frozen=True)
class Case:
    right: Sequence[Outputs]
    wrong: Sequence[Outputs]
    labels: Sequence[Array]
    worse: float


def _one_hot(classes: Sequence[int], count: int) -> npt.NDArray[np.float32]:
    return np.eye(count, dtype=np.float32)[list(classes)]


def _boxes() -> Case:
    found = np.zeros((1, 1, 32, 64), np.float32)
    found[0, 0, 6:10, 4:60] = 0.9
    everything = np.ones_like(found)
    label = np.array([[4, 4, 60, 12], [4, 20, 60, 28]])
    both = found.copy()
    both[0, 0, 22:26, 4:60] = 0.9
    assert _score("tasks.ocr:line_recall", [{"map": found}], [label]) == pytest.approx(0.5)
    return Case([{"map": both}], [{"map": everything}], [label], 2 * 8 * 56 / (32 * 64))


def _words() -> Case:
    """Four characters in the words 2 + 2; an even tag begins a word."""
    transitions = np.zeros((3, 3), np.float32)
    label = np.concatenate([[1, 0, 1, 0], transitions.ravel()]).astype(np.float32)
    right = _one_hot([0, 1, 0, 1], 3)[None]
    wrong = _one_hot([0, 1, 1, 0], 3)[None]
    return Case([{"y": right}], [{"y": wrong}], [label], 0.0)


def _tokens() -> Case:
    label = np.array([3, 1, 2])
    right = _one_hot([1, 2, 0], 4)[None]
    wrong = _one_hot([1, 0, 0], 4)[None]
    return Case([{"logits": right, "present": right}], [{"logits": wrong}], [label], 0.5)


def _similar() -> Case:
    first, second, third = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]], np.float32)
    human = np.array([[1.0, 0.9, 0.1], [0.9, 1.0, 0.2], [0.1, 0.2, 1.0]])
    labels = [np.concatenate(([number], row)) for number, row in enumerate(human)]
    right = [{"hidden": np.stack([vector, vector])[None]} for vector in (first, second, third)]
    wrong = [{"hidden": vector[None, None]} for vector in (first, third, second)]
    return Case(right, wrong, labels, 0.0)


def _spindle() -> Case:
    """A confident second 10 with its middle at 10.5 s and 1 s long, and a burst from 10 to 11 s."""
    logits = np.full((1, 30, 3), -9.0, np.float32)
    logits[0, 10] = (9.0, 0.0, 0.0)
    twice = logits.copy()
    twice[0, 20] = (9.0, 0.0, 0.0)
    return Case([{"detection": logits}], [{"detection": twice}], [np.array([[10.0, 11.0]])], 2 / 3)


def _chord() -> Case:
    label = np.zeros((1, 88), np.bool_)
    label[0, [10, 20]] = True
    heard = np.repeat(label[:, None].astype(np.float32), 172, axis=1)
    missed = heard.copy()
    missed[..., 20] = 0.1
    name = "StatefulPartitionedCall:1"
    return Case([{name: heard}], [{name: missed}], [label], 2 / 3)


def _pitch() -> Case:
    """A4 lies between the bins 228 and 229: 1200 log2(44) = 6551.3 = 1997.38 + 20 * 227.7."""
    activation = np.zeros((1, 360), np.float32)
    activation[0, 227:229] = (0.3, 0.7)
    octave = np.roll(activation, 60, axis=1)
    return Case([{"p": activation}], [{"p": octave}], [np.array([440.0])], 0.0)


def _views() -> Case:
    """Sixteen cells, each with a keypoint in its corner and a descriptor of its own; the second view is shifted."""
    keypoints = np.full((2, 65, 4, 4), -9.0, np.float32)
    keypoints[:, 0] = 9.0
    features = np.zeros((2, 64, 4, 4), np.float32)
    for view, shift in ((0, 0), (1, 1)):
        for cell in range(16):
            row, column = divmod(cell, 4)
            features[view, cell, row, (column + shift) % 4] = 1.0
    output = {"features": features, "keypoints": keypoints, "reliability": np.ones((2, 1, 4, 4), np.float32)}
    scrambled = {**output, "features": np.stack([features[0], np.roll(features[1], 2, axis=2)])}
    by_a_cell = np.array([[1.0, 0.0, 8.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    return Case([output], [scrambled], [by_a_cell], 0.0)


def _quality() -> Case:
    labels = [np.array([0, ratio]) for ratio in (40.0, 20.0, 10.0, 0.0)]
    scores = [{"y": np.array([[0, 0, score]], np.float32)} for score in (4.0, 3.0, 2.0, 1.0)]
    mixed = [scores[1], scores[0], scores[2], scores[3]]
    return Case(scores, mixed, labels, 2 / 3)


def _voices() -> Case:
    labels = [np.array([voice]) for voice in (0, 0, 1, 1)]
    vectors = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]], np.float32)
    right = [{"e": np.stack([vector, vector])} for vector in vectors]
    wrong = [{"e": vectors[number][None]} for number in (0, 2, 1, 3)]
    return Case(right, wrong, labels, 0.25)


def _ranked(name: str, right: Sequence[Any], wrong: Sequence[Any]) -> Case:
    labels = [np.array([truth]) for truth in (1, 1, 0, 0)]
    return Case([{name: value} for value in right], [{name: value} for value in wrong], labels, 0.25)


def _probabilities(values: Sequence[float], shape: tuple[int, ...]) -> list[Array]:
    return [np.full(shape, value, np.float32) for value in values]


RIGHT, WRONG = (0.9, 0.8, 0.2, 0.1), (0.9, 0.1, 0.95, 0.2)
CASES = {
    "tasks.scores:top1_accuracy": Case(
        [{"y": _one_hot([1], 3)}, {"y": _one_hot([0, 2], 3)}],
        [{"y": _one_hot([0], 3)}, {"y": _one_hot([0, 2], 3)}],
        [np.array([1, 2]), np.array([0, 2])],
        2 / 3,
    ),
    "tasks.ocr:orientation_accuracy": Case([{"y": _one_hot([1], 2)}], [{"y": _one_hot([0], 2)}], [np.array([1])], 0.0),
    # blank, a, a, blank, a, space of 4 classes: the text is "aa"
    "tasks.ocr:character_accuracy": Case(
        [{"y": _one_hot([0, 1, 1, 0, 1, 3], 4)[None]}],
        [{"y": _one_hot([0, 1, 1, 1, 1, 2], 4)[None]}],
        [np.array([1, 1])],
        0.5,
    ),
    "tasks.ocr:line_recall": _boxes,
    "tasks.segmentation:word_f1": _words(),
    "tasks.next_token:next_token_accuracy": _tokens(),
    "tasks.sentences:similarity_correlation": _similar,
    "tasks.spindles:burst_f1": _spindle(),
    "tasks.notes:note_f1": _chord(),
    "tasks.pitch:within_half_a_semitone": _pitch(),
    "tasks.keypoints:matches_within_6_pixels": _views(),
    "tasks.speech_quality:quality_order": _quality(),
    "tasks.speakers:same_voice_area_under_curve": _voices(),
    "tasks.diacritics:letter_accuracy": Case(
        [{"y": _one_hot([3, 0, 1], 15)[None]}], [{"y": _one_hot([3, 0, 2], 15)[None]}], [np.array([3, -1, 1])], 0.5
    ),
    "tasks.voice_activity:frame_area_under_curve": _ranked(
        "output", _probabilities(RIGHT, (1, 1)), _probabilities(WRONG, (1, 1))
    ),
    "tasks.turns:finished_area_under_curve": _ranked(
        "logits", _probabilities(RIGHT, (1, 1)), _probabilities(WRONG, (1, 1))
    ),
    "tasks.faces:canvas_area_under_curve": _ranked(
        "537", _probabilities(RIGHT, (1, 1, 4, 4)), _probabilities(WRONG, (1, 1, 4, 4))
    ),
    "tasks.faces:crop_area_under_curve": _ranked(
        "probabilities",
        [np.array([[1 - p, p]], np.float32) for p in RIGHT],
        [np.array([[1 - p, p]], np.float32) for p in WRONG],
    ),
}


def _score(name: str, outputs: Sequence[Outputs], labels: Sequence[Array]) -> float:
    return float(resolve(f"onnxopt_zoo.{name}")(outputs, labels))


@pytest.mark.parametrize("name", CASES)
def test_right_scores_one_and_wrong_scores_less(name: str) -> None:
    made = CASES[name]
    case = made() if callable(made) else made
    right = _score(name, case.right, case.labels)
    wrong = _score(name, case.wrong, case.labels)
    assert isinstance(right, float)
    if name.endswith("similarity_correlation"):
        assert right > 0.99
        assert wrong < 0.0
    else:
        assert right == pytest.approx(1.0)
        assert wrong == pytest.approx(case.worse)


def test_every_metric_of_the_manifest_is_tried() -> None:
    named = {str(entry.task.metric).removeprefix("onnxopt_zoo.") for entry in onnxopt_zoo.models() if entry.task.metric}
    assert named == set(CASES)


def test_frames_of_a_sequence_count_one_by_one() -> None:
    outputs = [{"speech_probs": np.array([0.1, 0.9, 0.8]), "hn": np.zeros(1)}, {"speech_probs": np.array([0.2, 0.7])}]
    labels = [np.array([False, True, True]), np.array([False, True])]
    assert _score("tasks.voice_activity:frame_area_under_curve", outputs, labels) == 1.0


def test_a_part_of_the_texts_can_be_scored() -> None:
    case = _similar()
    some = [0, 1, 2]
    outputs = [case.right[number] for number in some]
    labels = [np.concatenate([case.labels[number], np.zeros(5)]) for number in some]
    assert _score("tasks.sentences:similarity_correlation", outputs, labels) > 0.99


def test_an_edit_is_an_insertion_a_deletion_or_a_substitution() -> None:
    score = "tasks.ocr:character_accuracy"
    label = np.arange(1, 11)
    for read, edits in (([1, 2, 3, 4, 5, 6, 7, 8, 9], 1), ([2, 3, 4, 5, 6, 7, 8, 9, 10, 11], 2), ([5], 9)):
        steps = [character for number in read for character in (0, number)]
        assert _score(score, [{"y": _one_hot(steps, 14)[None]}], [label]) == pytest.approx(1 - edits / 10)


def test_nothing_read_scores_zero() -> None:
    blank = {"y": _one_hot([0, 0, 0], 4)[None]}
    assert _score("tasks.ocr:character_accuracy", [blank], [np.array([1, 2])]) == 0.0
    assert _score("tasks.ocr:line_recall", [{"m": np.zeros((1, 1, 8, 8))}], [np.array([[0, 0, 8, 8]])]) == 0.0


def test_transitions_change_the_best_path() -> None:
    """The tag that scores best by itself cannot follow; without transitions it would."""
    scores = {"y": np.array([[[5, 0, 0], [0, 1, 2]]], np.float32)}
    for penalty, expected in ((0.0, 0.0), (-9.0, 1.0)):
        transitions = np.zeros((3, 3), np.float32)
        transitions[0, 2] = penalty
        label = np.concatenate([[1, 0], transitions.ravel()]).astype(np.float32)
        assert _score("tasks.segmentation:word_f1", [scores], [label]) == expected


def test_area_under_the_curve() -> None:
    truth = np.array([1, 0, 1, 0])
    assert area_under_curve(np.array([3.0, 1.0, 2.0, 0.0]), truth) == 1.0
    assert area_under_curve(np.array([1.0, 1.0, 1.0, 1.0]), truth) == 0.5
    assert area_under_curve(np.array([0.0, 2.0, 1.0, 3.0]), truth) == 0.0
    assert np.isnan(area_under_curve(np.array([1.0]), np.array([1])))


def test_an_output_that_is_not_a_number_scores_zero() -> None:
    assert area_under_curve(np.array([np.nan, 1.0, np.nan, 0.0]), np.array([1, 0, 1, 0])) == 0.0
    case = _similar()
    broken = [{"hidden": np.full((1, 2, 2), np.nan, np.float32)}] * 3
    assert _score("tasks.sentences:similarity_correlation", broken, case.labels) == 0.0


def test_inverse_perplexity_of_a_uniform_guess() -> None:
    outputs = [{"logits": np.zeros((1, 5, 8), np.float32)}]
    assert inverse_perplexity(outputs, [np.arange(5)]) == pytest.approx(1 / 8)
