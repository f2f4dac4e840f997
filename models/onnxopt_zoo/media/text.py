"""Text to render, and rendering it the same way each time: fonts by hash, a basic layout, seeded noise."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from onnxopt_zoo.store import Contents

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import ImageFont

Image = npt.NDArray[np.uint8]
"""Pixels, [height, width, 3], red first."""

TRANSCRIPTS = "asterisk-core-sounds-en"
FONTS = "fonts-dejavu-core"

_NOISE = 16.0  # standard deviation of the noise added to every pixel, in grey levels


@dataclass(frozen=True)
class Box:
    """Where a line stands on a page, in pixels; right and bottom are exclusive."""

    left: int
    top: int
    right: int
    bottom: int


def transcripts(contents: Contents) -> dict[str, str]:
    """Return the words spoken in each English sound, by the sound's name, in the file's order."""
    text = gzip.decompress(contents.read(contents.names[0])).decode("utf-8")
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line and not line.startswith(";"))
    spoken = {name.strip(): " ".join(words.split()) for name, words in pairs}
    return {name: words for name, words in spoken.items() if words and words[0] not in "[("}


def sentences(contents: Contents, shortest: int, longest: int) -> list[str]:
    """Return the different transcripts of that many characters, sorted, in printable ASCII only."""
    words = set(transcripts(contents).values())
    return sorted(text for text in words if shortest <= len(text) <= longest and text.isascii())


def render_line(text: str, font: Path, size: int, rng: np.random.Generator) -> Image:
    """Draw one line of dark text on light ground, with a margin of a quarter of ``size`` pixels and noise."""
    from PIL import Image as Pillow
    from PIL import ImageDraw

    drawn = _font(font, size)
    left, top, right, bottom = drawn.getbbox(text)
    margin = size // 4
    ground, ink = int(rng.integers(200, 256)), int(rng.integers(0, 80))
    extent = (int(right - left) + 2 * margin, int(bottom - top) + 2 * margin)
    image = Pillow.new("L", extent, ground)
    ImageDraw.Draw(image).text((margin - left, margin - top), text, font=drawn, fill=ink)
    return _with_noise(np.asarray(image), rng)


def render_page(
    lines: Sequence[str], fonts: Sequence[Path], width: int, height: int, rng: np.random.Generator
) -> tuple[Image, list[Box]]:
    """Draw lines of text below each other, in sizes of 14 to 40 pixels, as many as fit on the page.

    Returns:
        The page, [height, width, 3], and the box around the ink of each line that was drawn.
    """
    from PIL import Image as Pillow
    from PIL import ImageDraw

    page = Pillow.new("L", (width, height), int(rng.integers(225, 256)))
    pencil = ImageDraw.Draw(page)
    boxes: list[Box] = []
    top = int(rng.integers(20, 40))
    for text in lines:
        font = _fitting(text, fonts[int(rng.integers(len(fonts)))], int(rng.integers(14, 41)), width - 60)
        left = int(rng.integers(20, 40))
        inked = pencil.textbbox((left, top), text, font=font)
        box = Box(*(int(edge) for edge in inked))
        if box.bottom > height - 20:
            break
        pencil.text((left, top), text, font=font, fill=int(rng.integers(0, 80)))
        boxes.append(box)
        top = box.bottom + int(rng.integers(12, 32))
    return _with_noise(np.asarray(page), rng), boxes


def _fitting(text: str, font: Path, size: int, width: int) -> ImageFont.FreeTypeFont:
    """Return the font at ``size``, or at the largest smaller size at which the text is ``width`` wide at most."""
    drawn = _font(font, size)
    while drawn.getlength(text) > width and size > 8:
        size -= 1
        drawn = _font(font, size)
    return drawn


def _font(font: Path, size: int) -> ImageFont.FreeTypeFont:
    # the basic layout engine is always there, so a line looks the same with and without libraqm
    from PIL import ImageFont

    return ImageFont.truetype(str(font), size, layout_engine=ImageFont.Layout.BASIC)


def _with_noise(grey: npt.NDArray[np.uint8], rng: np.random.Generator) -> Image:
    noisy = grey[..., None] + rng.normal(0.0, _NOISE, (*grey.shape, 3))
    return noisy.round().clip(0, 255).astype(np.uint8)
