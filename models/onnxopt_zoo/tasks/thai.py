"""Thai captions as windows of characters, without a label, for Deepcut's word segmentation."""

from __future__ import annotations

import numpy as np

from onnxopt_zoo.samples import Ingredients, Sample, Samples

_PACKAGE = "tuxpaint-stamps-default"
_CAPTIONS = 64  # to calibrate, and as many to compare on
_SHORTEST = 12  # characters
_SIDE = 10  # characters before and after one that the network sees

# The network numbers the characters of its training text in order of their code points; "other" is one of them.
_THAI = [chr(point) for point in (*range(0x0E01, 0x0E3B), *range(0x0E40, 0x0E4E), *range(0x0E50, 0x0E5A))]
_LATIN = [chr(point) for point in (*range(0x20, 0x60), *range(0x61, 0x7B), 0x7D, 0x7E)]
_KNOWN = sorted({"\n", "other", "\u2018", "\u2019", "\ufeff", *_LATIN, *_THAI} - {"\u0e26"})
_NUMBERS = {character: number for number, character in enumerate(_KNOWN)}

# Its kinds of characters, in the order of their names; what is in none is of the kind "o".
_KINDS = ("b_e", "c", "d", "n", "o", "p", "q", "s", "s_e", "t", "v", "w")
_MEMBERS = {
    "b_e": "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "c": "กขฃคฆงจชซญฎฏฐฑฒณดตถทธนบปพภมยรลวศษสฬอ",
    "d": "0123456789๑๒๓๔๕๖๗๘๙",
    "n": "ฅฉผฟฌหฮ",
    "p": " ",
    "q": "\"'\u2018\u2019",
    "s": "\u0e4cๆฯ.",
    "s_e": "abcdefghijklmnopqrstuvwxyz",
    "t": "\u0e48\u0e49\u0e4a\u0e4b",
    "v": "\u0e30\u0e32\u0e33\u0e34\u0e35\u0e36\u0e37\u0e38\u0e39",
    "w": "เแโใไ",
}
_KIND_OF = {character: _KINDS.index(kind) for kind, members in _MEMBERS.items() for character in members}


def captions(ingredients: Ingredients) -> Samples:
    """Captions of pictures: input_1 (characters) and input_2 (their kinds) float32 [characters, 21].

    A row has the ten characters after one, the ten before it from near to far, and itself.
    """
    known = _thai_captions(ingredients)
    order = np.random.default_rng(0).permutation(len(known))
    samples = [_windows(known[index]) for index in order[: 2 * _CAPTIONS]]
    return Samples(samples[:_CAPTIONS], samples[_CAPTIONS:])


def _thai_captions(ingredients: Ingredients) -> list[str]:
    """Return the different captions in Thai, sorted; a stamp's text file has a line th.utf8=... for it."""
    contents = ingredients.packages[_PACKAGE]
    found: set[str] = set()
    for name in contents.like("*.txt"):
        lines = contents.read(name).decode("utf-8", errors="replace").splitlines()
        found |= {line.removeprefix("th.utf8=").strip() for line in lines if line.startswith("th.utf8=")}
    return sorted(caption for caption in found if len(caption) >= _SHORTEST)


def _windows(caption: str) -> Sample:
    padded = " " * _SIDE + caption + " " * _SIDE
    rows = [_row(padded, middle) for middle in range(_SIDE, _SIDE + len(caption))]
    numbers = [[_NUMBERS.get(character, _NUMBERS["other"]) for character in row] for row in rows]
    kinds = [[_KIND_OF.get(character, _KINDS.index("o")) for character in row] for row in rows]
    inputs = {"input_1": np.array(numbers, np.float32), "input_2": np.array(kinds, np.float32)}
    return Sample(inputs, (caption,))


def _row(padded: str, middle: int) -> str:
    after = padded[middle + 1 : middle + 1 + _SIDE]
    before = padded[middle - _SIDE : middle][::-1]
    return after + before + padded[middle]
