"""Which way up is a page: rendered pages, each turned four ways."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from onnxopt_zoo.media.images import IMAGENET_MEAN, IMAGENET_STD, crop_center, resize_shorter, to_planes
from onnxopt_zoo.media.text import FONTS, TRANSCRIPTS, render_page, sentences
from onnxopt_zoo.samples import Ingredients, Sample, Samples

_PAGES = 25
_CALIBRATION_PAGES = 16
_PAGE_LINES = 40  # offered to each page; those that fit are drawn


def pages(ingredients: Ingredients) -> Samples:
    """Pages turned by 0, 90, 180 and 270 degrees (the label, 0 to 3): x float32 [1, 3, 224, 224]."""
    known = sentences(ingredients.packages[TRANSCRIPTS], 8, 90)
    order = np.random.default_rng(0).permutation(len(known))
    texts = [known[index] for index in order]
    half = len(texts) // 2
    return Samples(
        _turned_pages(ingredients, texts[half:], _CALIBRATION_PAGES, 1),
        _turned_pages(ingredients, texts[:half], _PAGES, 0),
    )


def _turned_pages(ingredients: Ingredients, texts: Sequence[str], count: int, seed: int) -> Iterator[Sample]:
    rng = np.random.default_rng(seed)
    contents = ingredients.packages[FONTS]
    fonts = [contents.path(name) for name in contents.like("*.ttf")]
    for _ in range(count):
        lines = [texts[index] for index in rng.choice(len(texts), _PAGE_LINES, replace=False)]
        width, height = int(rng.integers(560, 800)), int(rng.integers(700, 1000))
        page, _boxes = render_page(lines, fonts, width, height, rng)
        for turns in range(4):
            # numpy turns against the clock, and the classes count with it
            turned = np.ascontiguousarray(np.rot90(page, -turns))
            square = crop_center(resize_shorter(turned, 256, "LANCZOS"), 224)
            planes = to_planes(square, IMAGENET_MEAN, IMAGENET_STD)
            yield Sample({"x": planes}, tuple(lines), np.array([turns]))
