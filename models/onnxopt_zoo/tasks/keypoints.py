"""Do two views of a scene match: photos and themselves under a known homography, for XFeat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from onnxopt_zoo.media.images import Floats, decode, resize
from onnxopt_zoo.media.text import Image
from onnxopt_zoo.samples import Array, Ingredients, Outputs, Sample, Samples

_PACKAGE = "scikit-image"
_EVALUATED = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "camera.png")
_CALIBRATED = ("brick.png", "coins.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "retina.jpg", "page.png")
_WIDTH, _HEIGHT = 320, 256  # pixels
_VIEWS = 5  # of each photo that calibrates
_CELL = 8  # pixels of the image for one of the maps
_KEYPOINTS = 400  # the surest ones of a view
_NEAR = 6.0  # pixels
_BORDER = 8  # pixels of the other view that a point must keep from its edge to be counted

_Matrix = npt.NDArray[np.float64]


# --- samples ---------------------------------------------------------------------------------------------------


def views(ingredients: Ingredients) -> Samples:
    """Pairs of views: image float32 [2, 3, 256, 320], 0 to 1; the label is the homography, float64 [3, 3].

    It takes a point (column, row, 1) of the first view to the second.
    """
    return Samples(_views(ingredients, _CALIBRATED * _VIEWS, 1), _views(ingredients, _EVALUATED, 0))


def _views(ingredients: Ingredients, names: Sequence[str], seed: int) -> Iterator[Sample]:
    rng = np.random.default_rng(seed)
    for name in names:
        photo = decode(ingredients.packages[_PACKAGE].read(f"skimage/data/{name}"))
        first = resize(photo, _WIDTH, _HEIGHT, "LANCZOS")
        homography = _homography(rng)
        second = _warped(first, homography)
        pair = np.stack([_planes(first), _planes(second)])
        yield Sample({"image": pair}, (name,), homography)


def _homography(rng: np.random.Generator) -> _Matrix:
    """Return a turn, a scaling, a shift and a tilt about the middle of the image."""
    turn, scale = rng.uniform(-0.3, 0.3), rng.uniform(0.85, 1.15)
    shift = rng.uniform(-12, 12, 2)
    tilt = rng.uniform(-4e-4, 4e-4, 2)
    cosine, sine = scale * np.cos(turn), scale * np.sin(turn)
    about_middle = np.array([[cosine, -sine, shift[0]], [sine, cosine, shift[1]], [tilt[0], tilt[1], 1.0]])
    middle = np.array([[1, 0, _WIDTH / 2], [0, 1, _HEIGHT / 2], [0, 0, 1]])
    homography: _Matrix = middle @ about_middle @ np.linalg.inv(middle)
    homography /= homography[2, 2]
    return homography


def _warped(image: Image, homography: _Matrix) -> Image:
    from PIL import Image as Pillow

    inverse = np.linalg.inv(homography)  # Pillow asks where each new pixel comes from
    coefficients = (inverse / inverse[2, 2]).ravel()[:8].tolist()
    opened = Pillow.fromarray(image)
    turned = opened.transform(opened.size, Pillow.Transform.PERSPECTIVE, coefficients, Pillow.Resampling.BICUBIC)
    return np.array(turned)


def _planes(image: Image) -> Floats:
    return (image.transpose(2, 0, 1) / np.float32(255)).astype(np.float32)


# --- score -----------------------------------------------------------------------------------------------------


def matches_within_6_pixels(outputs: Sequence[Outputs], labels: Sequence[Array]) -> float:
    """Return the part of mutual nearest neighbours that lie where the homography says.

    Features are [2, 64, h / 8, w / 8], keypoint logits [2, 65, ...], reliabilities [2, 1, ...]. Points that the
    homography takes out of the second view are not counted.
    """
    near: list[bool] = []
    for output, homography in zip(outputs, labels, strict=True):
        (first, from_first), (second, from_second) = (_points(output, view) for view in (0, 1))
        likeness = from_first @ from_second.T
        best = likeness.argmax(axis=1)
        mutual = likeness.argmax(axis=0)[best] == np.arange(len(best))
        expected = _moved(first, homography)
        size = np.array(output["features"].shape[:1:-1]) * _CELL
        inside = ((expected > _BORDER) & (expected < size - _BORDER)).all(axis=1)
        distances = np.linalg.norm(expected - second[best], axis=1)
        near += (distances[mutual & inside] <= _NEAR).tolist()
    return float(np.mean(near)) if near else 0.0


def _points(output: Outputs, view: int) -> tuple[_Matrix, _Matrix]:
    """Return the surest points, one a cell: column and row in pixels, [n, 2], and unit descriptors, [n, 64]."""
    logits = output["keypoints"][view].reshape(65, -1).astype(np.float64)
    chances = np.exp(logits - logits.max(axis=0))
    chances /= chances.sum(axis=0)
    places = chances[:64].argmax(axis=0)  # the 65th says that the cell has no keypoint
    sureness = chances[:64].max(axis=0) * output["reliability"][view].ravel()
    chosen = np.argsort(-sureness, kind="stable")[:_KEYPOINTS]
    rows, columns = np.divmod(chosen, output["features"].shape[-1])
    points = np.stack([columns * _CELL + places[chosen] % _CELL, rows * _CELL + places[chosen] // _CELL], axis=1)
    features = output["features"][view].reshape(64, -1)[:, chosen].T.astype(np.float64)
    return points.astype(np.float64), features / np.linalg.norm(features, axis=1, keepdims=True)


def _moved(points: _Matrix, homography: _Matrix) -> _Matrix:
    homogeneous = np.column_stack([points, np.ones(len(points))]) @ homography.T
    moved: _Matrix = homogeneous[:, :2] / homogeneous[:, 2:]
    return moved
