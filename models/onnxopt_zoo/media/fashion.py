"""The images of Fashion-MNIST, from the IDX files of Debian's package."""

from __future__ import annotations

import gzip

import numpy as np
import numpy.typing as npt

from onnxopt_zoo.store import Contents

PACKAGE = "dataset-fashion-mnist"

# Mean and standard deviation of the training images, as parts of 255.
_MEAN, _STD = 0.2860, 0.3530
_FOLDER = "usr/share/datasets/fashion-mnist"


def load(contents: Contents, part: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return images, float32 [n, 1, 28, 28], normalized, and labels, int64 [n]; ``part`` is train or t10k."""
    images = _idx(contents.read(f"{_FOLDER}/{part}-images-idx3-ubyte.gz"))
    labels = _idx(contents.read(f"{_FOLDER}/{part}-labels-idx1-ubyte.gz"))
    scaled = (images[:, None] / np.float32(255) - np.float32(_MEAN)) / np.float32(_STD)
    return scaled.astype(np.float32), labels.astype(np.int64)


def _idx(content: bytes) -> npt.NDArray[np.uint8]:
    """Read an IDX file of bytes: two zeros, type 8, the number of dimensions, each as big-endian int32, the data."""
    raw = gzip.decompress(content)
    rank = raw[3]
    shape = np.frombuffer(raw, ">i4", count=rank, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)
