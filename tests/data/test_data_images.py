"""Images become the arrays a model expects, by arithmetic that can be done by hand."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxopt.data.images import Images
from onnxopt.data.sample import Samples
from onnxopt.errors import DataError, UsageError
from onnxopt.ir.model import Model
from onnxopt.options import build
from tests.graphs import Array, cnn, from_text

Image = pytest.importorskip("PIL.Image", reason="needs the [images] extra")

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
BYTES = from_text(f"{HEAD} g (uint8[1, h, w, 3] bytes) => (uint8[1, h, w, 3] y) {{ y = Identity (bytes) }}")
TWO = from_text(f"{HEAD} g (float[n] a, float[n] b) => (float[n] y) {{ y = Add (a, b) }}")


def _pixels(height: int, width: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def _save(path: Path, pixels: Array) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def _open(folder: Path, model: Model | None = None, **options: Any) -> Samples:
    return Images(images=str(folder), **options).open(model or cnn(), Path())


def _array(folder: Path, **options: Any) -> Array:
    (array,) = _open(folder, **options)[0].feeds.values()
    return array


# Arithmetic


def test_scale_mean_std_and_layout(tmp_path: Path) -> None:
    pixels = _pixels(5, 7)
    _save(tmp_path / "a.png", pixels)

    found = _array(tmp_path, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

    expected = (pixels / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    assert (found.dtype, found.shape) == (np.float32, (1, 3, 5, 7))
    np.testing.assert_allclose(found[0], expected.transpose(2, 0, 1), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [[[[200 / 255]], [[100 / 255]], [[50 / 255]]]]),
        ({"channels": "BGR", "scale": 1.0}, [[[[50]], [[100]], [[200]]]]),
        ({"layout": "NHWC", "scale": 1.0, "mean": (128.0,)}, [[[[72, -28, -78]]]]),
        ({"scale": 0.1, "mean": (1.0,), "std": (2.0,)}, [[[[9.5]], [[4.5]], [[2]]]]),
        ({"channels": "BGR", "scale": 1.0, "mean": (1.0, 2.0, 3.0)}, [[[[49]], [[98]], [[197]]]]),
        ({"channels": "L", "scale": 1.0}, [[[[124]]]]),
    ],
)
def test_one_pixel_of_red_200_green_100_blue_50(tmp_path: Path, options: dict[str, Any], expected: Any) -> None:
    """Grey is 0.299 red + 0.587 green + 0.114 blue (ITU-R BT.601), here 124.2."""
    _save(tmp_path / "a.png", np.array([[[200, 100, 50]]], np.uint8))

    np.testing.assert_allclose(_array(tmp_path, **options), expected, rtol=1e-6)


@pytest.mark.parametrize("mode", ["P", "LA", "RGBA", "CMYK", "1"])
def test_every_kind_of_image_has_three_channels(tmp_path: Path, mode: str) -> None:
    suffix = "tiff" if mode == "CMYK" else "png"
    image = Image.fromarray(_pixels(4, 6)).convert("L").convert(mode)
    image.save(tmp_path / f"a.{suffix}")
    (tmp_path / f"a.{suffix}").rename(tmp_path / "a.png")

    assert _array(tmp_path).shape == (1, 3, 4, 6)


@pytest.mark.parametrize(
    ("crop", "rows", "columns"),
    [(3, slice(1, 4), slice(2, 5)), ((5, 3), slice(0, 5), slice(2, 5)), ((1, 7), slice(2, 3), slice(0, 7))],
)
def test_crop_takes_the_centre(tmp_path: Path, crop: Any, rows: slice, columns: slice) -> None:
    pixels = _pixels(5, 7)
    _save(tmp_path / "a.png", pixels)

    found = _array(tmp_path, crop=crop, layout="NHWC", scale=1.0)
    np.testing.assert_array_equal(found[0], pixels[rows, columns])


def _halving(length: int) -> Array:
    """Return the matrix of a bilinear filter that is widened by 2, so that every pixel counts (antialiasing)."""
    centres = 2 * np.arange(length // 2)[:, None] + 1
    weights = np.maximum(0, 1 - np.abs(np.arange(length)[None] + 0.5 - centres) / 2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("resize", [4, (4, 6)])
def test_resize_is_bilinear_with_antialiasing(tmp_path: Path, resize: Any) -> None:
    pixels = _pixels(8, 12)
    _save(tmp_path / "a.png", pixels)

    found = _array(tmp_path, resize=resize, layout="NHWC", scale=1.0)[0]

    expected = np.einsum("ij,jkc,lk->ilc", _halving(8), pixels.astype(float), _halving(12))
    assert np.ptp(expected) > 50
    np.testing.assert_allclose(found, expected, atol=1.01)


@pytest.mark.parametrize(
    ("height", "width", "resize", "shape"),
    [
        (10, 20, 5, (5, 10)),
        (20, 10, 5, (10, 5)),
        (49, 98, 256, (256, 512)),
        (375, 500, 256, (256, 341)),
        (10, 20, (7, 3), (7, 3)),
    ],
)
def test_resize_scales_the_shorter_side(
    tmp_path: Path, height: int, width: int, resize: Any, shape: tuple[int, int]
) -> None:
    _save(tmp_path / "a.png", _pixels(height, width))

    assert _array(tmp_path, resize=resize).shape[2:] == shape


def test_resize_comes_before_crop(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[2:6, 2:6] = 255
    _save(tmp_path / "a.png", pixels)

    whole, cropped = (_array(tmp_path, resize=4, layout="NHWC", **more) for more in ({}, {"crop": 2}))
    np.testing.assert_array_equal(cropped[0], whole[0, 1:3, 1:3])


def test_the_input_decides_the_type(tmp_path: Path) -> None:
    pixels = _pixels(2, 3)
    _save(tmp_path / "a.png", pixels)

    sample = _open(tmp_path, BYTES, layout="NHWC", scale=1.0)[0]
    assert sample.feeds["bytes"].dtype == np.uint8
    np.testing.assert_array_equal(sample.feeds["bytes"][0], pixels)


# Files and labels


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for index, name in enumerate(["dog/b.png", "cat/a.png", "cat/z.BMP", "bird/deep/q.png"]):
        _save(tmp_path / "photos" / name, _pixels(3, 3, seed=index))
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


def test_order_is_that_of_paths(photos: Path) -> None:
    names = [str(Path(sample.name).relative_to(photos)) for sample in _open(photos)]

    assert names == ["bird/deep/q.png", "cat/a.png", "cat/z.BMP", "dog/b.png"]
    assert len(_open(photos, limit=2)) == 2


def test_folders_are_classes(photos: Path) -> None:
    assert [int(sample.label) for sample in _open(photos, labels="folders") if sample.label is not None] == [0, 1, 1, 2]


def test_an_image_in_no_folder_has_no_class(photos: Path) -> None:
    _save(photos / "lost.png", _pixels(3, 3))

    with pytest.raises(DataError, match=r"there is no label for 'lost\.png'"):
        list(_open(photos, labels="folders"))


def test_labels_of_a_file(photos: Path) -> None:
    csv = photos / "truth.csv"
    csv.write_text("file,label\nbird/deep/q.png,7\ncat/a.png,8\ncat/z.BMP,9\ndog/b.png,7\nnot/there.png,1\n")

    samples = _open(photos, labels=str(csv))
    assert [int(sample.label) for sample in samples if sample.label is not None] == [7, 8, 9, 7]
    csv.write_text("file,label\nbird/deep/q.png,7\n")
    with pytest.raises(DataError) as caught:
        list(_open(photos, labels=str(csv)))
    assert caught.value.what == "there is no label for 'cat/a.png'"
    assert caught.value.where == str(photos / "cat" / "a.png")


# Fingerprint


def test_fingerprint_follows_content_and_preprocessing(photos: Path) -> None:
    first = _open(photos).fingerprint
    variants = [
        _open(photos, **options).fingerprint
        for options in ({"resize": 2}, {"mean": (0.5,)}, {"labels": "folders"}, {"limit": 2}, {"channels": "BGR"})
    ]
    moved = photos.rename(photos.parent / "elsewhere")
    for path in moved.rglob("*"):
        os.utime(path, (1, 1))

    assert _open(moved).fingerprint == first
    assert _open(moved, limit=4).fingerprint == first
    assert len({first, *variants}) == 6
    with (moved / "cat" / "a.png").open("ab") as handle:
        handle.write(b"\0")
    assert _open(moved).fingerprint != first


def test_fingerprint_counts_one_label(photos: Path) -> None:
    csv = photos / "truth.csv"
    rows = "file,label\nbird/deep/q.png,7\ncat/a.png,8\ncat/z.BMP,9\ndog/b.png,{}\n"
    found = set()
    for label in ("7", "7.0", "seven", "0.1", "0.1000000000001"):
        csv.write_text(rows.format(label))
        found.add(_open(photos, labels=str(csv)).fingerprint)

    assert len(found) == 5


# What cannot be used


@pytest.mark.parametrize("keep", [0, 20, 40, 60])
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_damaged_images(tmp_path: Path, keep: int, suffix: str) -> None:
    path = _save(tmp_path / f"a.{suffix}", _pixels(9, 9))
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(DataError, match=r"cannot read the image: .") as caught:
        _open(tmp_path)[0]
    assert caught.value.where == str(path)


@pytest.mark.parametrize("spoil", [(12, b"IHDX"), (37, b"IDAX"), (8, b"\0\0\0\x05")])
def test_pngs_of_another_structure(tmp_path: Path, spoil: tuple[int, bytes]) -> None:
    path = _save(tmp_path / "a.png", _pixels(9, 9))
    content = bytearray(path.read_bytes())
    content[spoil[0] : spoil[0] + len(spoil[1])] = spoil[1]
    path.write_bytes(bytes(content))

    with pytest.raises(DataError, match="cannot read the image"):
        _open(tmp_path)[0]


def test_no_folder_and_no_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"there is no folder {tmp_path}/none"):
        _open(tmp_path / "none")
    with pytest.raises(DataError, match="there are no images in") as caught:
        _open(tmp_path)
    assert caught.value.hint == "known: .bmp, .jpeg, .jpg, .png, .webp"


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"mean": (0.5, 0.5)}, "mean has 2 values for channels RGB"),
        ({"std": (0.5, 0.5, 0.5), "channels": "L"}, "std has 3 values for channels L"),
        ({"input": "photo"}, "the model has no input 'photo'"),
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, options: dict[str, Any], what: str) -> None:
    _save(tmp_path / "a.png", _pixels(3, 3))

    with pytest.raises(DataError) as caught:
        _open(tmp_path, **options)
    assert caught.value.what == what


def test_two_inputs_need_a_name(tmp_path: Path) -> None:
    _save(tmp_path / "a.png", _pixels(3, 3))

    with pytest.raises(DataError, match="the model has inputs"):
        _open(tmp_path, TWO)
    assert list(_open(tmp_path, TWO, input="b")[0].feeds) == ["b"]


def test_a_model_of_bytes_gets_pixels_as_they_are(tmp_path: Path) -> None:
    pixels = _pixels(4, 5)
    _save(tmp_path / "a.png", pixels)
    sample = _open(tmp_path, BYTES, layout="NHWC")[0]
    assert sample.feeds["bytes"].dtype == np.uint8
    np.testing.assert_array_equal(sample.feeds["bytes"][0], pixels)


@pytest.mark.parametrize("wrong", [{"resize": 0}, {"crop": (8, 0)}])
def test_a_size_of_nothing_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        build(Images, {"images": str(tmp_path), **wrong}, where="photos.yaml")
