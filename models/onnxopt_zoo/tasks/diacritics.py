"""Which vowels are spoken: Arabic verses written with all diacritics, for a BiLSTM that puts them back."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

import numpy as np
import numpy.typing as npt
import yaml

from onnxopt_zoo.samples import Array, Ingredients, Outputs, Sample, Samples
from onnxopt_zoo.tasks.scores import only

# The network's tokens: 1 is any other character, 4 and on are these letters, U+0640 the stroke that lengthens, a space.
_UNKNOWN = 1
_LETTERS = [*range(0x0621, 0x063B), *range(0x0640, 0x0649), 0x064A, ord(" ")]
_TOKENS = {chr(point): number for number, point in enumerate(_LETTERS, start=4)}

# The network's classes: none, the eight single marks, then shadda (U+0651) with each of six of them.
_MARKS = "\u064e\u064f\u0650\u0652\u0651\u064b\u064c\u064d"
_SHADDA = "\u0651"
_CLASSES = {mark: number for number, mark in enumerate(["", *_MARKS])}
_CLASSES |= {_SHADDA + mark: 9 + number for number, mark in enumerate("\u064e\u064f\u0650\u064b\u064c\u064d")}


def verses(_ingredients: Ingredients) -> Samples:
    """Verses without their marks: input_ids int64 [1, characters]; the label has a class each, -1 for spaces."""
    text = resources.files("onnxopt_zoo").joinpath("tasks").joinpath("verses.yaml").read_text(encoding="utf-8")
    known = yaml.safe_load(text)
    calibration = [Sample({"input_ids": _tokens(verse)}, (verse,)) for verse in known["bare"]]
    evaluation = []
    for verse in known["vocalized"]:
        bare, classes = separated(verse)
        evaluation.append(Sample({"input_ids": _tokens(bare)}, (bare,), classes))
    return Samples(calibration, evaluation)


def separated(verse: str) -> tuple[str, npt.NDArray[np.int64]]:
    """Return a verse without marks, and the class of what stood on each of its characters, -1 for spaces."""
    bare: list[str] = []
    marks: list[str] = []
    for character in verse:
        if character in _MARKS:
            # the shadda comes first, whichever way round the two are written
            marks[-1] = character + marks[-1] if character == _SHADDA else marks[-1] + character
        else:
            bare.append(character)
            marks.append("")
    classes = [-1 if letter == " " else _CLASSES[mark] for letter, mark in zip(bare, marks, strict=True)]
    return "".join(bare), np.array(classes)


def _tokens(bare: str) -> npt.NDArray[np.int64]:
    return np.array([[_TOKENS.get(character, _UNKNOWN) for character in bare]])


def letter_accuracy(outputs: Sequence[Outputs], labels: Sequence[Array]) -> float:
    """Return the part of letters whose marks are right; logits are [1, characters, 15]."""
    right = [only(output)[0].argmax(axis=-1) == label for output, label in zip(outputs, labels, strict=True)]
    letters = np.concatenate(list(labels)) >= 0
    return float(np.concatenate(right)[letters].mean())
