"""Photos as arrays: decoding, resizing, cropping, normalizing."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from onnxopt_zoo.media.text import Image

if TYPE_CHECKING:
    from PIL.Image import Resampling

Floats = npt.NDArray[np.float32]

# Means and standard deviations of ImageNet's training set, as torchvision and most of its users state them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def decode(content: bytes) -> Image:
    """Return the pixels of a PNG or JPEG file; transparent parts become white."""
    from PIL import Image as Pillow

    with Pillow.open(io.BytesIO(content)) as opened:
        if opened.mode in ("RGBA", "LA", "P"):
            picture = opened.convert("RGBA")
            ground = Pillow.new("RGBA", picture.size, "white")
            return np.array(Pillow.alpha_composite(ground, picture).convert("RGB"))
        return np.array(opened.convert("RGB"))


def resize(image: Image, width: int, height: int, filter_name: str = "BILINEAR") -> Image:
    """Return the image at another size; ``filter_name`` is one of Pillow's resampling filters."""
    from PIL import Image as Pillow

    chosen: Resampling = Pillow.Resampling[filter_name]
    return np.array(Pillow.fromarray(image).resize((width, height), chosen))


def resize_shorter(image: Image, side: int, filter_name: str = "BILINEAR") -> Image:
    """Return the image with its shorter side ``side`` pixels long, in its proportions."""
    height, width = image.shape[:2]
    scale = side / min(height, width)
    return resize(image, round(width * scale), round(height * scale), filter_name)


def crop_center(image: Image, side: int) -> Image:
    """Return the square of ``side`` pixels in the middle."""
    top, left = ((extent - side) // 2 for extent in image.shape[:2])
    return image[top : top + side, left : left + side]


def paste_on_white(image: Image, side: int) -> Image:
    """Return a white square of ``side`` pixels with the image in its middle."""
    square = np.full((side, side, 3), 255, np.uint8)
    height, width = image.shape[:2]
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = image
    return square


def to_planes(image: Image, mean: tuple[float, ...], std: tuple[float, ...]) -> Floats:
    """Return (image / 255 - mean) / std as [1, 3, height, width]."""
    scaled = (image / np.float32(255) - np.array(mean, np.float32)) / np.array(std, np.float32)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None], dtype=np.float32)
