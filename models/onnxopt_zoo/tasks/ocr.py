"""Reading text: the three networks of PP-OCR on rendered lines and pages, whose text is known."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from onnxopt_zoo.media.images import resize, to_planes
from onnxopt_zoo.media.text import FONTS, TRANSCRIPTS, Box, Image, render_line, render_page, sentences
from onnxopt_zoo.samples import Array, Ingredients, Outputs, Sample, Samples

_HALF = (0.5, 0.5, 0.5)
_LINE_HEIGHT = 48  # pixels; what the networks for lines were trained on
_CLASSIFIER_WIDTH = 192  # pixels
_SHORTEST_WIDTH = 320  # pixels; narrower lines are padded

_LINES = 60
_PAGES = 8
_CALIBRATION_PAGES = 16
_PAGE_LINES = 16  # offered to each page; those that fit are drawn

_TEXT = 0.3  # a pixel of the detector's map above this is text
_COVERED = 0.8  # a line is found if this part of its columns has a pixel of text near its middle


# --- samples ---------------------------------------------------------------------------------------------------


def orientation_of_lines(ingredients: Ingredients) -> Samples:
    """Lines, each upright (label 0) and turned by 180 degrees (label 1): x float32 [1, 3, 48, 192]."""
    calibration, evaluation = _texts(ingredients, _LINES, 32)
    return Samples(_both_ways(ingredients, calibration, 1), _both_ways(ingredients, evaluation, 0))


def recognition(ingredients: Ingredients) -> Samples:
    """Lines: x float32 [1, 3, 48, width]; the label has the class of each character that is not a space."""
    calibration, evaluation = _texts(ingredients, _LINES, 64)
    return Samples(_to_read(ingredients, calibration, 1), _to_read(ingredients, evaluation, 0))


def detection(ingredients: Ingredients) -> Samples:
    """Pages: x float32 [1, 3, height, width]; the label has a row left, top, right, bottom for each line."""
    calibration, evaluation = _texts(ingredients, _PAGES * _PAGE_LINES, _CALIBRATION_PAGES * _PAGE_LINES)
    return Samples(_pages(ingredients, calibration, 1), _pages(ingredients, evaluation, 0))


def _texts(ingredients: Ingredients, evaluated: int, calibrated: int) -> tuple[list[str], list[str]]:
    """Return sentences to calibrate on, repeated if they are too few, and others to evaluate on."""
    known = sentences(ingredients.packages[TRANSCRIPTS], 8, 50)
    shuffled = [known[index] for index in np.random.default_rng(0).permutation(len(known))]
    return list(islice(cycle(shuffled[evaluated:]), calibrated)), shuffled[:evaluated]


def _fonts(ingredients: Ingredients) -> list[Path]:
    contents = ingredients.packages[FONTS]
    return [contents.path(name) for name in contents.like("*.ttf")]


def _lines(ingredients: Ingredients, texts: Sequence[str], seed: int) -> Iterator[tuple[str, Image]]:
    """Draw each text in one of the faces, at 14 to 40 pixels."""
    rng = np.random.default_rng(seed)
    fonts = _fonts(ingredients)
    for text in texts:
        yield text, render_line(text, fonts[int(rng.integers(len(fonts)))], int(rng.integers(14, 41)), rng)


def _both_ways(ingredients: Ingredients, texts: Sequence[str], seed: int) -> Iterator[Sample]:
    for text, line in _lines(ingredients, texts, seed):
        for label, turned in enumerate((line, line[::-1, ::-1])):
            planes = _line_planes(np.ascontiguousarray(turned), _CLASSIFIER_WIDTH, _CLASSIFIER_WIDTH)
            yield Sample({"x": planes}, (text,), np.array([label]))


def _to_read(ingredients: Ingredients, texts: Sequence[str], seed: int) -> Iterator[Sample]:
    alphabet = _alphabet(ingredients.model)
    for text, line in _lines(ingredients, texts, seed):
        label = np.array([alphabet[character] for character in text if character != " "])
        yield Sample({"x": _line_planes(line, _SHORTEST_WIDTH, None)}, (text,), label)


def _alphabet(model: Path) -> dict[str, int]:
    """Return the class of each character; class 0 is the blank, and the last one is the space."""
    import onnx

    properties = onnx.load(model, load_external_data=False).metadata_props
    characters = next(entry.value for entry in properties if entry.key == "character").split("\n")
    return {character: number for number, character in enumerate(characters, start=1)}


def _line_planes(line: Image, shortest: int, longest: int | None) -> npt.NDArray[np.float32]:
    """Return a line at 48 pixels height, blue first, in -1 to 1, padded with zeros to ``shortest`` pixels."""
    width = math.ceil(_LINE_HEIGHT * line.shape[1] / line.shape[0])
    width = width if longest is None else min(width, longest)
    planes = to_planes(resize(line, width, _LINE_HEIGHT)[..., ::-1], _HALF, _HALF)
    return np.pad(planes, ((0, 0), (0, 0), (0, 0), (0, max(0, shortest - width))))


def _pages(ingredients: Ingredients, texts: Sequence[str], seed: int) -> Iterator[Sample]:
    rng = np.random.default_rng(seed)
    for first in range(0, len(texts), _PAGE_LINES):
        lines = texts[first : first + _PAGE_LINES]
        width, height = 32 * int(rng.integers(18, 25)), 32 * int(rng.integers(18, 25))
        page, boxes = render_page(lines, _fonts(ingredients), width, height, rng)
        label = np.array([(box.left, box.top, box.right, box.bottom) for box in boxes])
        yield Sample({"x": to_planes(page[..., ::-1], _HALF, _HALF)}, tuple(lines), label)


# --- scores ----------------------------------------------------------------------------------------------------


def orientation_accuracy(outputs: Sequence[Outputs], labels: Sequence[Array]) -> float:
    """Return the part of lines whose most probable turn, of [1, 2], is right."""
    return float(np.mean([np.argmax(_only(output)) == label[0] for output, label in zip(outputs, labels, strict=True)]))


def character_accuracy(outputs: Sequence[Outputs], labels: Sequence[Array]) -> float:
    """Return 1 - edits / characters over all lines, spaces aside; probabilities are [1, steps, classes]."""
    edits = sum(_edits(_greedy(_only(output)[0]), label) for output, label in zip(outputs, labels, strict=True))
    return max(0.0, 1.0 - edits / sum(label.size for label in labels))


def line_recall(outputs: Sequence[Outputs], labels: Sequence[Array]) -> float:
    """Return the part of lines found, times the part of text pixels that lie in a line.

    The maps are [1, 1, height, width]. The second factor is 1 for a good detector; it keeps one that calls
    everything text from finding every line.
    """
    found, lines, inside, text = 0, 0, 0, 0
    for output, label in zip(outputs, labels, strict=True):
        mask = _only(output)[0, 0] > _TEXT
        boxes = [Box(*row) for row in label.tolist()]
        found += sum(_is_found(mask, box) for box in boxes)
        lines += len(boxes)
        inside += int((mask & _area(boxes, mask.shape)).sum())
        text += int(mask.sum())
    return found / lines * (inside / text if text else 0.0)


def _only(output: Outputs) -> Array:
    (value,) = output.values()
    return value


def _greedy(probabilities: Array) -> npt.NDArray[np.int64]:
    """Decode CTC, Graves et al. 2006: the best class a step, repeats merged, blanks (and here spaces) dropped."""
    best = probabilities.argmax(axis=-1)
    space = probabilities.shape[-1] - 1
    changed = np.append(True, best[1:] != best[:-1])
    read: npt.NDArray[np.int64] = best[changed & (best != 0) & (best != space)]
    return read


def _edits(read: Array, truth: Array) -> int:
    """Return how many insertions, deletions and substitutions turn one sequence into the other."""
    row = np.arange(len(truth) + 1)
    for number, character in enumerate(read, start=1):
        changed = np.minimum(row[1:] + 1, row[:-1] + (truth != character))
        cheapest = np.concatenate(([number], changed))
        # an insertion costs one a place to the right, so the minimum runs along the row with a slope of one
        row = np.minimum.accumulate(cheapest - np.arange(len(cheapest))) + np.arange(len(cheapest))
    return int(row[-1])


def _is_found(mask: npt.NDArray[np.bool_], box: Box) -> bool:
    third = max(1, (box.bottom - box.top) // 3)
    middle = mask[box.top + third : box.bottom - third + 1, box.left : box.right]
    return bool(middle.any(axis=0).mean() >= _COVERED)


def _area(boxes: Sequence[Box], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    area = np.zeros(shape, np.bool_)
    for box in boxes:
        area[box.top : box.bottom, box.left : box.right] = True
    return area
