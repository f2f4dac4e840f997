"""What kind of file is this: members of pinned archives, whose names end in what they are, for Magika."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from onnxopt_zoo.samples import Array, Ingredients, Sample, Samples
from onnxopt_zoo.store import Contents

_PACKAGE = "magika"
_BLOCK = 4096  # bytes looked at from each end
_BYTES = 1024  # of each end that the network sees, without the blanks around the file
_PADDING = 256  # stands for no byte
_FILES = 25  # of a type, to evaluate on
_CALIBRATION_FILES = 8  # of a type that has so many more
_SHORTEST = 16  # bytes; shorter files say too little

# File name endings, and the classes that are right for them.
_TYPES = {
    ".bz2": ("bzip",),
    ".c": ("c",),
    ".cc": ("cpp",),
    ".conf": ("xml",),
    ".css": ("css",),
    ".gz": ("gzip",),
    ".h": ("c", "cpp"),
    ".ini": ("ini",),
    ".jinja2": ("jinja",),
    ".jpg": ("jpeg",),
    ".js": ("javascript",),
    ".md": ("markdown",),
    ".npy": ("npy",),
    ".onnx": ("onnx",),
    ".pkl": ("pickle",),
    ".png": ("png",),
    ".proto": ("proto",),
    ".py": ("python",),
    ".pyx": ("python",),
    ".so": ("elf",),
    ".tif": ("tiff",),
    ".tsv": ("tsv",),
    ".ts": ("typescript",),
    ".tsx": ("typescript",),
    ".ttf": ("ttf",),
    ".wav": ("wav",),
}


@dataclass(frozen=True)
class _File:
    name: str
    content: bytes


def files(ingredients: Ingredients) -> Samples:
    """Files: bytes int32 [1, 2048]; the label lists the classes that are right for the file's ending."""
    config = ingredients.packages[_PACKAGE].read("magika/models/standard_v3_3/config.min.json")
    classes: list[str] = json.loads(config)["target_labels_space"]
    rng = np.random.default_rng(0)
    calibration: list[Sample] = []
    evaluation: list[Sample] = []
    for ending, right in _TYPES.items():
        label = np.array([classes.index(name) for name in right])
        known = _files(ingredients, ending)
        chosen = [known[index] for index in rng.permutation(len(known))[: _FILES + _CALIBRATION_FILES]]
        samples = [Sample({"bytes": _features(file.content)}, (file.name,), label) for file in chosen]
        evaluation += samples[:_FILES]
        calibration += samples[_FILES:]
    return Samples(calibration, evaluation)


def _files(ingredients: Ingredients, ending: str) -> list[_File]:
    """Return the files of one type, none twice, in a fixed order."""
    distinct: dict[bytes, _File] = {}
    for package, contents in sorted(ingredients.packages.items()):
        for file in _members(package, contents, ending):
            distinct.setdefault(_features(file.content).tobytes(), file)
    return list(distinct.values())


def _members(package: str, contents: Contents, ending: str) -> Iterator[_File]:
    for name in contents.like(f"*{ending}"):
        content = contents.read(name)
        if len(content.strip()) >= _SHORTEST:
            yield _File(f"{package} {name}", content)


def _features(content: bytes) -> Array:
    """Return the first 1024 bytes after leading blanks and the last 1024 before trailing ones, [1, 2048]."""
    first = content[:_BLOCK].lstrip()[:_BYTES]
    last = content[-_BLOCK:].rstrip()[-_BYTES:]
    row = np.full((1, 2 * _BYTES), _PADDING, np.int32)
    row[0, : len(first)] = np.frombuffer(first, np.uint8)
    row[0, 2 * _BYTES - len(last) :] = np.frombuffer(last, np.uint8)
    return row
