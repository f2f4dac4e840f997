"""A folder of images and how to turn one into what the model is fed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pydantic

from onnxopt.data.labels import label_of, read_labels
from onnxopt.data.sample import Array, Sample, Samples, files_fingerprint
from onnxopt.data.source import FOLDERS, Source, input_of, need
from onnxopt.errors import DataError, MissingExtraError
from onnxopt.ir.model import Model
from onnxopt.options import option, options

_Pixels = Annotated[int, pydantic.Field(ge=1)]
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}


@options
class Images(Source):
    """Image files, preprocessed: resize → crop → scale → (x - mean) / std → layout."""

    name: ClassVar[str] = "images"
    libraries: ClassVar[tuple[str, ...]] = ("pillow",)

    images: str = option("a folder; its subfolders are searched too")
    labels: str | None = option(
        "a CSV with columns file,label; or 'folders': a file's folder is its class", default=None
    )
    input: str | None = option("the model's input; needed only if it has several", default=None)
    resize: _Pixels | tuple[_Pixels, _Pixels] | None = option(
        "shorter side in pixels, or [height, width]; bilinear", default=None
    )
    crop: _Pixels | tuple[_Pixels, _Pixels] | None = option("centre crop in pixels, or [height, width]", default=None)
    channels: Literal["RGB", "BGR", "L"] = option("order of the channels; L is grey", default="RGB")
    layout: Literal["NCHW", "NHWC"] = option("order of the axes", default="NCHW")
    scale: float | None = option(
        "what a pixel of 0 to 255 is multiplied by; if not given, 1/255, and 1 for an integer input", default=None
    )
    mean: tuple[float, ...] = option("subtracted from each channel after scaling", default=(0.0,))
    std: tuple[float, ...] = option("each channel is divided by it", default=(1.0,))
    limit: int | None = option("use only the first so many, in order of path", default=None, ge=1)

    def open(self, model: Model, base: Path) -> Samples:
        """Return the images in order of path, each a batch of one."""
        folder = base / self.images
        need(folder.is_dir(), f"there is no folder {folder}", self.images)
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
        need(bool(paths), f"there are no images in {folder}", self.images, f"known: {', '.join(sorted(_SUFFIXES))}")
        for key, values in (("mean", self.mean), ("std", self.std)):
            fits = len(values) in (1, len(self.channels))
            need(fits, f"{key} has {len(values)} values for channels {self.channels}", self.images, "one, or one each")
        port = input_of(model, self.input, self.images)
        return _ImageFiles(self, folder, tuple(paths[: self.limit]), port.name, port.dtype, self._labels(base, folder))

    def _labels(self, base: Path, folder: Path) -> dict[str, Array] | None:
        if self.labels is None:
            return None
        if self.labels != FOLDERS:
            return read_labels(base / self.labels)
        classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
        return {
            str(path.relative_to(folder)): np.asarray(index)
            for index, name in enumerate(classes)
            for path in (folder / name).rglob("*")
        }


@dataclass(frozen=True, eq=False)
class _ImageFiles(Samples):
    spec: Images
    folder: Path
    paths: tuple[Path, ...]
    input: str
    dtype: str
    labels: dict[str, Array] | None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the preprocessing, the files and the labels."""
        labels = (self._label(index) for index in range(len(self)))
        return files_fingerprint(self.paths, labels, self.spec.reading)

    def read(self, index: int) -> Sample:
        """Decode and preprocess one image."""
        path = self.paths[index]
        array = _preprocess(path, self.spec, self.dtype)
        return Sample(str(path), {self.input: array[None]}, self._label(index))

    def _label(self, index: int) -> Array | None:
        relative = str(self.paths[index].relative_to(self.folder))
        return label_of(self.labels, relative, str(self.paths[index]))

    def __len__(self) -> int:
        return len(self.paths)


def _preprocess(path: Path, spec: Images, dtype: str) -> Array:
    whole = np.issubdtype(np.dtype(dtype), np.integer)
    scale = spec.scale if spec.scale is not None else 1.0 if whole else 1 / 255
    image = _decode(path, spec.channels)
    if spec.resize is not None:
        image = image.resize(_size(image.size, spec.resize), resample=2)
    if spec.crop is not None:
        image = image.crop(_box(image.size, spec.crop))
    pixels: Array = np.asarray(image, dtype=np.float32)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    pixels = pixels[..., ::-1] if spec.channels == "BGR" else pixels
    pixels = (pixels * np.float32(scale) - np.asarray(spec.mean, np.float32)) / np.asarray(spec.std, np.float32)
    pixels = np.rint(pixels) if whole else pixels
    return np.ascontiguousarray(pixels.transpose(2, 0, 1) if spec.layout == "NCHW" else pixels).astype(dtype)


def _decode(path: Path, channels: str) -> Any:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise MissingExtraError("images need pillow", hint="pip install 'onnxopt[images]'") from error
    try:
        return Image.open(path).convert("L" if channels == "L" else "RGB")
    except Exception as error:  # a damaged PNG alone makes Pillow raise SyntaxError, ValueError or OSError
        raise DataError(f"cannot read the image: {error}", where=str(path)) from error


def _size(size: tuple[int, int], resize: int | tuple[int, int]) -> tuple[int, int]:
    """Return (width, height); one number scales the shorter side to it."""
    if not isinstance(resize, int):
        return resize[1], resize[0]
    return resize * size[0] // min(size), resize * size[1] // min(size)


def _box(size: tuple[int, int], crop: int | tuple[int, int]) -> tuple[int, int, int, int]:
    height, width = (crop, crop) if isinstance(crop, int) else crop
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    return left, top, left + width, top + height
