"""Is there a face: crops with and without one, for MTCNN's networks and CenterFace."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from onnxopt_zoo.media.images import Floats, decode, resize
from onnxopt_zoo.media.text import Image
from onnxopt_zoo.samples import Array, Ingredients, Outputs, Sample, Samples
from onnxopt_zoo.tasks.scores import area_under_curve

_PACKAGE = "scikit-image"
_FOLDER = "skimage/data"
_FACES = 100  # come first in lfw_subset.npy; as many crops without a face follow
_CALIBRATION_CROPS = 32  # with, and as many without a face

_PORTRAIT = "astronaut.png"
_PORTRAIT_FACE = (222, 118, 100)  # column and row of its middle, and its height, in pixels of the portrait
_FACELESS = ("brick.png", "coffee.png", "coins.png", "gravel.png", "hubble_deep_field.jpg", "motorcycle_left.png")
_CALIBRATION_SCENES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "ihc.png", "retina.jpg")
_EVALUATION_SCENES = ("camera.png", "motorcycle_left.png", "clock_motion.png", "coins.png")

_CANVAS = 160  # pixels; a face takes half of it, grey the rest
_GREY = 128


@dataclass(frozen=True)
class _Crop:
    origin: str
    image: Image
    is_face: bool


# --- samples ---------------------------------------------------------------------------------------------------


def crops_of_24(ingredients: Ingredients) -> Samples:
    """Crops for the refining network: crops float32 [1, 3, 24, 24]; the label is 1 for a face."""
    return _crops_for_mtcnn(ingredients, 24)


def crops_of_48(ingredients: Ingredients) -> Samples:
    """Crops for the output network: crops float32 [1, 3, 48, 48]; the label is 1 for a face."""
    return _crops_for_mtcnn(ingredients, 48)


def canvases(ingredients: Ingredients) -> Samples:
    """Crops in the middle of grey: input.1 float32 [1, 3, 160, 160], 0 to 255; the label is 1 for a face.

    Whole photos in several sizes calibrate too, nothing there having a label.
    """
    scenes = (Sample({"input.1": _bytes(image)}, (name,)) for name, image in _scenes(ingredients, _CALIBRATION_SCENES))
    crops = (replace(_canvas(crop), label=None) for crop in _calibration_crops(ingredients))
    calibration = [*crops, *scenes]
    return Samples(calibration, (_canvas(crop) for crop in _evaluation_crops(ingredients)))


def photos(ingredients: Ingredients) -> Samples:
    """Photos in four sizes for the proposal network, without a label: image float32 [1, 3, h, w]."""

    def samples(names: Sequence[str]) -> Iterator[Sample]:
        return (Sample({"image": _centred(image)}, (name,)) for name, image in _scenes(ingredients, names))

    return Samples(samples(_CALIBRATION_SCENES), samples(_EVALUATION_SCENES))


def _crops_for_mtcnn(ingredients: Ingredients, side: int) -> Samples:
    def sample(crop: _Crop) -> Sample:
        planes = _centred(resize(crop.image, side, side))
        return Sample({"crops": planes}, (crop.origin,), np.array([int(crop.is_face)]))

    return Samples(map(sample, _calibration_crops(ingredients)), map(sample, _evaluation_crops(ingredients)))


def _evaluation_crops(ingredients: Ingredients) -> Iterator[_Crop]:
    content = ingredients.packages[_PACKAGE].read(f"{_FOLDER}/lfw_subset.npy")
    crops = np.load(io.BytesIO(content), allow_pickle=False)
    for number, crop in enumerate(crops):
        grey = (crop * 255).round().astype(np.uint8)
        yield _Crop(f"lfw {number}", np.repeat(grey[..., None], 3, axis=2), number < _FACES)


def _calibration_crops(ingredients: Ingredients) -> Iterator[_Crop]:
    """Give crops around one face, and crops of photos without any; grey like those that are evaluated on."""
    rng = np.random.default_rng(1)
    photo = _grey_photo(ingredients, _PORTRAIT)
    faceless = [_grey_photo(ingredients, name) for name in _FACELESS]
    column, row, height = _PORTRAIT_FACE
    for number in range(_CALIBRATION_CROPS):
        side = int(height * rng.uniform(0.9, 1.3))
        shifts = rng.integers(-height // 10, height // 10 + 1, 2)
        top, left = row + int(shifts[0]) - side // 2, column + int(shifts[1]) - side // 2
        face = photo[top : top + side, left : left + side]
        yield _Crop(f"{_PORTRAIT} {number}", face[:, ::-1] if number % 2 else face, is_face=True)
        yield _Crop(f"no face {number}", _anywhere(faceless[number % len(faceless)], rng), is_face=False)


def _grey_photo(ingredients: Ingredients, name: str) -> Image:
    image = decode(ingredients.packages[_PACKAGE].read(f"{_FOLDER}/{name}"))
    grey = image.mean(axis=2, keepdims=True).astype(np.uint8)
    return np.repeat(grey, 3, axis=2)


def _anywhere(photo: Image, rng: np.random.Generator) -> Image:
    side = int(rng.integers(40, 120))
    top, left = (int(rng.integers(0, extent - side + 1)) for extent in photo.shape[:2])
    return photo[top : top + side, left : left + side]


def _scenes(ingredients: Ingredients, names: Sequence[str]) -> Iterator[tuple[str, Image]]:
    """Give photos in four sizes, multiples of 32 pixels."""
    for name in names:
        photo = decode(ingredients.packages[_PACKAGE].read(f"{_FOLDER}/{name}"))
        for width, height in ((320, 256), (224, 224), (160, 128), (96, 96)):
            yield name, resize(photo, width, height)


def _canvas(crop: _Crop) -> Sample:
    canvas = np.full((_CANVAS, _CANVAS, 3), _GREY, np.uint8)
    middle = slice(_CANVAS // 4, _CANVAS // 4 + _CANVAS // 2)
    canvas[middle, middle] = resize(np.ascontiguousarray(crop.image), _CANVAS // 2, _CANVAS // 2)
    return Sample({"input.1": _bytes(canvas)}, (crop.origin,), np.array([int(crop.is_face)]))


def _centred(image: Image) -> Floats:
    """Return (image - 127.5) / 128, [1, 3, height, width]."""
    return (_bytes(image) - np.float32(127.5)) / np.float32(128)


def _bytes(image: Image) -> Floats:
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32)


# --- scores ----------------------------------------------------------------------------------------------------


def crop_area_under_curve(outputs: Sequence[Outputs], labels: Sequence[Array]) -> float:
    """Return how often a face seems more of a face than what is none; probabilities are [1, 2], the second a face's."""
    return _area([float(output["probabilities"][0, 1]) for output in outputs], labels)


def canvas_area_under_curve(outputs: Sequence[Outputs], labels: Sequence[Array]) -> float:
    """Return the same by the largest value of the heat map `537`, [1, 1, h / 4, w / 4]."""
    return _area([float(output["537"].max()) for output in outputs], labels)


def _area(scores: Sequence[float], labels: Sequence[Array]) -> float:
    truth: npt.NDArray[np.int64] = np.concatenate(list(labels))
    return area_under_curve(np.array(scores), truth)
