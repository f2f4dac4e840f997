"""What is in the picture: photos of ImageNet's classes, for its classifiers; clothes, for Fashion-MNIST's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib import resources
from itertools import islice
from pathlib import PurePosixPath

import numpy as np

from onnxopt_zoo.media.fashion import PACKAGE as _CLOTHES
from onnxopt_zoo.media.fashion import load
from onnxopt_zoo.media.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Floats,
    crop_center,
    decode,
    paste_on_white,
    resize_shorter,
    to_planes,
)
from onnxopt_zoo.media.text import Image
from onnxopt_zoo.samples import Ingredients, Sample, Samples
from onnxopt_zoo.store import Contents

_PHOTOS = "foolbox"
_STAMPS = "tuxpaint-stamps-default"
_SCENES = "scikit-image"
_STAMP_FOLDER = "usr/share/tuxpaint/stamps"
_MARGIN = 1.15  # side of the white square around a stamp, in longer sides of the stamp
_CALIBRATION_STAMPS = 100
_UNLABELLED = 32  # half of them to calibrate on

# Kinds of stamps that are mostly photos; the others are drawings, flags and signs.
_PHOTOGRAPHED = ("animals/", "food/", "vehicles/", "household/", "plants/", "hobbies/", "clothes/")
# Photographs among the scenes that are not textures, microscopy or drawings.
_SCENE_PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "camera.png")

_CLOTHES_BATCH = 100
_CALIBRATION_CLOTHES = 12_800


def imagenet(ingredients: Ingredients) -> Samples:
    """Photos and photo stamps: input float32 [1, 3, 224, 224]; the label lists the right classes, of 0 to 999."""
    photos = _photos(ingredients)
    classes = stamp_classes()
    stamps = ((name, _stamp(ingredients, name), np.array(right)) for name, right in classes.items())
    evaluation = (_classified(name, image, label) for name, image, label in [*photos, *stamps])
    calibration = (_classified(name, image, None) for name, image in _unlabelled(ingredients, classes))
    return Samples(calibration, evaluation)


def unlabelled(ingredients: Ingredients) -> Samples:
    """Photos without a label, for networks with made-up weights: their input float32 [1, 3, 224, 224]."""
    import onnx

    graph = onnx.load(ingredients.model).graph
    weights = {tensor.name for tensor in graph.initializer}
    (name,) = (value.name for value in graph.input if value.name not in weights)
    photos = islice(_unlabelled(ingredients, ()), _UNLABELLED)
    samples = [Sample({name: _planes(image)}, (origin,)) for origin, image in photos]
    return Samples(samples[0::2], samples[1::2])


def clothes(ingredients: Ingredients) -> Samples:
    """Fashion-MNIST in batches: image float32 [100, 1, 28, 28]; the label has a class for each, of 0 to 9.

    The test images are evaluated on. Of those for training, all with labels, only ones that the maker does not
    train on calibrate.
    """
    contents = ingredients.packages[_CLOTHES]
    return Samples(
        _clothes(contents, "train", slice(-_CALIBRATION_CLOTHES, None)), _clothes(contents, "t10k", slice(None))
    )


def stamp_classes() -> dict[str, list[int]]:
    """Return the ImageNet classes, chosen by hand, that are right for a photo stamp, by the stamp's name."""
    text = resources.files("onnxopt_zoo").joinpath("tasks").joinpath("stamps_imagenet.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: [int(number) for number in numbers.split(",")] for name, numbers in rows}


def _photos(ingredients: Ingredients) -> Iterator[tuple[str, Image, np.typing.NDArray[np.int64]]]:
    """Give ImageNet's own photos; the class ends the name, as in imagenet_07_609.jpg."""
    contents = ingredients.packages[_PHOTOS]
    for name in contents.like("*/imagenet_*.jpg"):
        right = int(PurePosixPath(name).stem.rsplit("_", 1)[1])
        yield name, decode(contents.read(name)), np.array([right])


def _stamp(ingredients: Ingredients, name: str) -> Image:
    image = decode(ingredients.packages[_STAMPS].read(f"{_STAMP_FOLDER}/{name}"))
    return paste_on_white(image, round(_MARGIN * max(image.shape)))


def _unlabelled(ingredients: Ingredients, evaluated: Iterable[str]) -> Iterator[tuple[str, Image]]:
    """Give photos of scenes, then photo stamps that show nothing that is evaluated on."""
    scenes = ingredients.packages[_SCENES]
    for name in _SCENE_PHOTOS:
        yield name, decode(scenes.read(f"skimage/data/{name}"))
    taken = {_subject(name) for name in evaluated}
    every = (name.removeprefix(f"{_STAMP_FOLDER}/") for name in ingredients.packages[_STAMPS].like("*.png"))
    known = [name for name in every if name.startswith(_PHOTOGRAPHED) and _subject(name) not in taken]
    order = np.random.default_rng(0).permutation(len(known))
    for index in order[:_CALIBRATION_STAMPS]:
        yield known[index], _stamp(ingredients, known[index])


def _subject(name: str) -> str:
    """Return a stamp's folder and the first word of its name: pig for pig, pig_golden and pig_golden2."""
    path = PurePosixPath(name)
    return f"{path.parent}/{re.split('[-_0-9]', path.stem)[0]}"


def _classified(name: str, image: Image, label: np.typing.NDArray[np.int64] | None) -> Sample:
    return Sample({"input": _planes(image)}, (name,), label)


def _planes(image: Image) -> Floats:
    square = crop_center(resize_shorter(image, 256), 224)
    return to_planes(square, IMAGENET_MEAN, IMAGENET_STD)


def _clothes(contents: Contents, part: str, chosen: slice) -> Iterator[Sample]:
    images, labels = (values[chosen] for values in load(contents, part))
    for first in range(0, len(images), _CLOTHES_BATCH):
        batch = slice(first, first + _CLOTHES_BATCH)
        yield Sample({"image": images[batch]}, (f"{part} {first} of {len(images)}",), labels[batch])
