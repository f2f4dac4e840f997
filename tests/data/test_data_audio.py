"""WAV files become waveforms: mono, of the model's rate and length, in [-1, 1]."""

from __future__ import annotations

import os
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxopt.data.audio import Audio
from onnxopt.data.sample import Samples
from onnxopt.errors import DataError
from tests.graphs import Array, from_text

MODEL = from_text(
    '<ir_version: 8, opset_import: ["" : 17]> g (float[b, t] sound) => (float[b, t] y) { y = Tanh (sound) }'
)
RATE = 8000


def _save(path: Path, frames: Array, *, rate: int = RATE, width: int = 2) -> Path:
    """Write frames [count] or [count, channels] of integers of that width."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as handle:
        handle.setnchannels(1 if frames.ndim == 1 else frames.shape[1])
        handle.setsampwidth(width)
        handle.setframerate(rate)
        handle.writeframes(frames.tobytes())
    return path


def _tone(seconds: float = 0.1, rate: int = RATE, pitch: float = 440.0) -> Array:
    return np.asarray(16000 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)).astype("<i2")


def _open(folder: Path, **options: Any) -> Samples:
    return Audio(audio=str(folder), rate=RATE, **options).open(MODEL, Path())


def _sound(folder: Path, **options: Any) -> Array:
    return np.asarray(_open(folder, **options)[0].feeds["sound"])


@pytest.mark.parametrize(
    ("width", "frames", "expected"),
    [
        (2, np.array([0, 16384, -32768, 32767], "<i2"), [0, 0.5, -1, 32767 / 32768]),
        (1, np.array([128, 192, 0, 255], "u1"), [0, 0.5, -1, 127 / 128]),
        (4, np.array([0, 2**30, -(2**31), 2**29], "<i4"), [0, 0.5, -1, 0.25]),
    ],
)
def test_full_scale_is_one(tmp_path: Path, width: int, frames: Array, expected: list[float]) -> None:
    _save(tmp_path / "a.wav", frames, width=width)

    found = _sound(tmp_path)
    assert (found.dtype, found.shape) == (np.float32, (1, 4))
    np.testing.assert_allclose(found[0], expected, atol=1e-7)


def test_channels_are_averaged(tmp_path: Path) -> None:
    _save(tmp_path / "a.wav", np.array([[16384, 0], [8192, -8192], [-32768, -16384]], "<i2"))

    np.testing.assert_allclose(_sound(tmp_path)[0], [0.25, 0, -0.75])


@pytest.mark.parametrize(("axes", "shape"), [("bt", (1, 800)), ("bct", (1, 1, 800)), ("t", (800,))])
def test_axes(tmp_path: Path, axes: str, shape: tuple[int, ...]) -> None:
    _save(tmp_path / "a.wav", _tone())

    found = _sound(tmp_path, axes=axes)
    assert found.shape == shape
    np.testing.assert_allclose(found.reshape(-1), _tone() / 32768, atol=1e-7)


def test_seconds_cut_and_pad(tmp_path: Path) -> None:
    _save(tmp_path / "a.wav", _tone())
    whole = _sound(tmp_path)[0]

    np.testing.assert_array_equal(_sound(tmp_path, seconds=0.05)[0], whole[:400])
    padded = _sound(tmp_path, seconds=0.15)[0]
    np.testing.assert_array_equal(padded[:800], whole)
    assert padded.shape == (1200,)
    assert not padded[800:].any()


@pytest.mark.parametrize("rate", [16000, 44100, 4000])
def test_resampling_keeps_the_tone(tmp_path: Path, rate: int) -> None:
    _save(tmp_path / "a.wav", _tone(1.0, rate), rate=rate)

    found = _sound(tmp_path)[0]

    assert (found.dtype, found.shape) == (np.float32, (RATE,))
    middle = slice(RATE // 10, -RATE // 10)
    np.testing.assert_allclose(found[middle], (_tone(1.0) / 32768)[middle], atol=0.01)


def test_resampling_removes_what_the_rate_cannot_hold(tmp_path: Path) -> None:
    _save(tmp_path / "a.wav", _tone(0.5, 16000, pitch=6000.0), rate=16000)

    assert np.abs(_sound(tmp_path)[0][1000:3000]).max() < 0.01


# Files, labels, fingerprint


def test_files_in_order_with_labels(tmp_path: Path) -> None:
    for index, name in enumerate(["b.wav", "a.WAV", "sub/c.wav"]):
        _save(tmp_path / name, _tone(pitch=100.0 * (index + 1)))
    (tmp_path / "truth.csv").write_text("file,label\na.WAV,yes\nb.wav,no\nsub/c.wav,yes\n")

    samples = _open(tmp_path, labels=str(tmp_path / "truth.csv"))
    assert [Path(sample.name).name for sample in samples] == ["a.WAV", "b.wav", "c.wav"]
    assert [str(sample.label) for sample in samples] == ["yes", "no", "yes"]
    assert len(_open(tmp_path, limit=2)) == 2


def test_fingerprint_follows_content_and_options(tmp_path: Path) -> None:
    path = _save(tmp_path / "sounds" / "a.wav", _tone())
    first = _open(path.parent).fingerprint
    longer = _open(path.parent, seconds=1.0).fingerprint
    moved = path.parent.rename(tmp_path / "moved")
    os.utime(moved / "a.wav", (1, 1))

    assert _open(moved).fingerprint == first
    frames = _tone()
    frames[7] += 1
    _save(moved / "a.wav", frames)
    assert len({first, longer, _open(moved).fingerprint}) == 3


# What cannot be used


@pytest.mark.parametrize("keep", [0, 10, 30, 43, 44, 45, 400, 1643])
def test_cut_files(tmp_path: Path, keep: int) -> None:
    path = _save(tmp_path / "a.wav", _tone())
    assert path.stat().st_size == 44 + 1600
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(DataError, match=r"cannot read the sound: |the sound has") as caught:
        _sound(tmp_path)
    assert caught.value.where == str(path)


def test_a_cut_file_tells_how_much_is_there(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.wav", _tone())
    path.write_bytes(path.read_bytes()[: 44 + 1000])

    with pytest.raises(DataError) as caught:
        _sound(tmp_path)
    assert caught.value.what == "the sound has 500 frames of 800"
    assert caught.value.hint == "the file is empty or cut short"


def test_silence_of_no_length(tmp_path: Path) -> None:
    _save(tmp_path / "a.wav", np.zeros(0, "<i2"))

    with pytest.raises(DataError, match="the sound has 0 frames of 0"):
        _sound(tmp_path)


def test_formats_that_are_not_known(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.wav", np.zeros(30, "u1"), width=3)
    with pytest.raises(DataError, match="24-bit sound is not known") as caught:
        _sound(tmp_path)
    assert caught.value.hint == "convert it to 16 bits"

    content = bytearray(path.read_bytes())
    content[20] = 3
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="cannot read the sound: unknown format: 3"):
        _sound(tmp_path)


def test_no_folder_and_no_sounds(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"there is no folder {tmp_path}/none"):
        _open(tmp_path / "none")
    with pytest.raises(DataError, match=r"there are no \.wav files in"):
        _open(tmp_path)


def test_an_input_that_is_not_there(tmp_path: Path) -> None:
    _save(tmp_path / "a.wav", _tone())

    with pytest.raises(DataError, match="the model has no input 'noise'"):
        _open(tmp_path, input="noise")
