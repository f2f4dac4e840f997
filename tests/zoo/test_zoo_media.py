from __future__ import annotations

import gzip
import io
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from onnxopt_zoo.media import audio, images, text
from onnxopt_zoo.store import Contents

pytest.importorskip("PIL", reason="needs the [zoo] extra")

Maker = Callable[..., Contents]


def _wav(sound: audio.Wave, rate: int) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as opened:
        opened.setnchannels(1)
        opened.setsampwidth(2)
        opened.setframerate(rate)
        opened.writeframes((sound * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


@pytest.fixture
def face(font: bytes, tmp_path: Path) -> Path:
    file = tmp_path / "face.ttf"
    file.write_bytes(font)
    return file


def test_a_line_is_rendered_the_same_each_time(face: Path) -> None:
    one, two, other = (text.render_line("A brown hen.", face, 24, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert np.array_equal(one, two)
    assert one.dtype == np.uint8
    assert one.shape[2] == 3
    assert other.shape == one.shape
    assert not np.array_equal(one, other)


def test_the_boxes_of_a_page_hold_its_ink(face: Path) -> None:
    lines = ["A brown hen.", "Goodbye, and thank you for calling.", "One"]
    page, boxes = text.render_page(lines, [face], 320, 256, np.random.default_rng(0))
    again, _ = text.render_page(lines, [face], 320, 256, np.random.default_rng(0))
    assert np.array_equal(page, again)
    ink = page.mean(axis=2) < 120
    inside = np.zeros_like(ink)
    for box in boxes:
        assert ink[box.top : box.bottom, box.left : box.right].any()
        inside[box.top : box.bottom, box.left : box.right] = True
    assert len(boxes) == 3
    assert not (ink & ~inside).any()


def test_a_page_stops_before_its_bottom(face: Path) -> None:
    _, boxes = text.render_page(["line"] * 50, [face], 320, 256, np.random.default_rng(0))
    assert 2 < len(boxes) < 20
    assert max(box.bottom for box in boxes) <= 256 - 20


def test_transcripts_leave_out_what_is_not_spoken(contents: Maker) -> None:
    listed = b"; a comment\n\nagent-pass: Please  enter: it.\nbeep: [a beep]\nempty:\nagain: Please enter: it.\n"
    package = contents(text.TRANSCRIPTS, {"core.txt.gz": gzip.compress(listed)})
    assert text.transcripts(package) == {"agent-pass": "Please enter: it.", "again": "Please enter: it."}
    assert text.sentences(package, 5, 20) == ["Please enter: it."]


def test_clips_are_chosen_by_length_and_resampled(contents: Maker) -> None:
    pytest.importorskip("scipy", reason="needs the [zoo] extra")
    tone = np.sin(np.arange(8000) * 2 * np.pi * 400 / 8000).astype(np.float32) / 2
    root = "usr/share/asterisk/sounds/xx"
    files = {f"{root}/hello.wav": tone, f"{root}/long.wav": np.tile(tone, 9), f"{root}/digits/1.wav": tone}
    package = contents("sounds", {name: _wav(sound, 8000) for name, sound in files.items()})
    found = audio.clips(package, 0.5, 2.0)
    assert list(found) == ["hello"]
    assert found["hello"].shape == (16000,)
    spectrum = np.abs(np.fft.rfft(found["hello"]))
    assert spectrum.argmax() == 400


def test_quiet_ends_are_trimmed() -> None:
    sound = np.concatenate([np.zeros(1600), np.ones(3200), np.full(800, 0.01)]).astype(np.float32)
    assert audio.trimmed(sound).shape == (3200,)


def test_mel_filters_have_equal_areas_and_cover_all_frequencies() -> None:
    filters = audio.mel_filters(40, 400, 16000)
    assert filters.shape == (40, 201)
    wide = filters[20:]  # the narrow ones fall between two bins of the transform
    assert (wide.sum(axis=1) * 40) == pytest.approx(1.0, rel=0.02)
    assert (filters.sum(axis=0)[3:-3] > 0).all()


def test_the_spectrum_of_a_tone_peaks_at_its_frequency() -> None:
    tone = np.sin(np.arange(1600) * 2 * np.pi * 1000 / 16000).astype(np.float32)
    power = audio.power_spectrogram(tone, 400, 160, "reflect")
    assert power.shape == (201, 11)
    assert (power[:, 1:-1].argmax(axis=0) == 25).all()


def test_transparent_parts_become_white() -> None:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGBA", (4, 2), (255, 0, 0, 0)).save(buffer, "PNG")
    decoded = images.decode(buffer.getvalue())
    assert decoded.shape == (2, 4, 3)
    assert (decoded == 255).all()


def test_geometry_of_images() -> None:
    image = np.zeros((40, 20, 3), np.uint8)
    assert images.resize_shorter(image, 10).shape == (20, 10, 3)
    assert images.crop_center(image, 16).shape == (16, 16, 3)
    pasted = images.paste_on_white(image, 46)
    assert pasted.shape == (46, 46, 3)
    assert (pasted == 0).sum() == image.size


def test_planes_are_normalized_by_channel() -> None:
    image = np.full((2, 3, 3), 255, np.uint8)
    planes = images.to_planes(image, (0.5, 0.0, 1.0), (0.5, 1.0, 0.5))
    assert planes.shape == (1, 3, 2, 3)
    assert planes.dtype == np.float32
    assert planes[0, :, 0, 0].tolist() == [1.0, 1.0, 0.0]
