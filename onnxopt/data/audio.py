"""A folder of WAV files as waveforms."""

from __future__ import annotations

import wave
from dataclasses import dataclass
from functools import cached_property
from math import gcd
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from onnxopt.data.labels import label_of, read_labels
from onnxopt.data.sample import Array, Sample, Samples, files_fingerprint
from onnxopt.data.source import Source, input_of, need
from onnxopt.errors import DataError
from onnxopt.ir.model import Model
from onnxopt.options import option, options

_FORMATS = {1: ("u1", 128.0, 128.0), 2: ("<i2", 0.0, 32768.0), 4: ("<i4", 0.0, 2147483648.0)}
"""Bytes a sample → numpy dtype, zero level and full scale of linear PCM."""


@options
class Audio(Source):
    """PCM files: mixed to mono, resampled, cut or padded, scaled to [-1, 1]."""

    name: ClassVar[str] = "audio"
    libraries: ClassVar[tuple[str, ...]] = ("scipy",)

    audio: str = option("a folder of .wav files; its subfolders are searched too")
    rate: int = option("samples per second the model expects; files of another rate are resampled", ge=1)
    labels: str | None = option("a CSV with columns file,label", default=None)
    input: str | None = option("the model's input; needed only if it has several", default=None)
    seconds: float | None = option("cut or zero-pad to this length", default=None, gt=0)
    axes: Literal["bt", "bct", "t"] = option("batch, channel and time axes of the input", default="bt")
    limit: int | None = option("use only the first so many, in order of path", default=None, ge=1)

    def open(self, model: Model, base: Path) -> Samples:
        """Return the files in order of path, each a batch of one."""
        folder = base / self.audio
        need(folder.is_dir(), f"there is no folder {folder}", self.audio)
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".wav")
        need(bool(paths), f"there are no .wav files in {folder}", self.audio)
        port = input_of(model, self.input, self.audio)
        labels = read_labels(base / self.labels) if self.labels else None
        return _WavFiles(self, folder, tuple(paths[: self.limit]), port.name, labels)


@dataclass(frozen=True, eq=False)
class _WavFiles(Samples):
    spec: Audio
    folder: Path
    paths: tuple[Path, ...]
    input: str
    labels: dict[str, Array] | None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the preprocessing, the files and the labels."""
        labels = (self._label(index) for index in range(len(self)))
        return files_fingerprint(self.paths, labels, self.spec.reading)

    def read(self, index: int) -> Sample:
        """Decode one file."""
        wave_form = _fit(_resample(*_decode(self.paths[index]), self.spec.rate), self.spec)
        for _ in range(len(self.spec.axes) - 1):
            wave_form = wave_form[None]
        return Sample(str(self.paths[index]), {self.input: wave_form}, self._label(index))

    def _label(self, index: int) -> Array | None:
        relative = str(self.paths[index].relative_to(self.folder))
        return label_of(self.labels, relative, str(self.paths[index]))

    def __len__(self) -> int:
        return len(self.paths)


def _decode(path: Path) -> tuple[Array, int]:
    """Return a mono waveform, float32 in [-1, 1], and its rate in samples per second."""
    try:
        with wave.open(str(path)) as handle:
            width, channels, rate = handle.getsampwidth(), handle.getnchannels(), handle.getframerate()
            frames = handle.getnframes()
            data = handle.readframes(frames)
    except Exception as error:  # wave raises RuntimeError and worse at a damaged file
        raise DataError(f"cannot read the sound: {error}", where=str(path), hint="PCM .wav files only") from error
    need(width in _FORMATS, f"{8 * width}-bit sound is not known", str(path), "convert it to 16 bits")
    have = len(data) // (width * channels)
    need(0 < have == frames, f"the sound has {have} frames of {frames}", str(path), "the file is empty or cut short")
    dtype, offset, scale = _FORMATS[width]
    samples = (np.frombuffer(data, np.dtype(dtype)).astype(np.float32) - offset) / scale
    return samples.reshape(-1, channels).mean(axis=1), rate


def _resample(samples: Array, have: int, want: int) -> Array:
    if have == want:
        return samples
    from scipy.signal import resample_poly

    divisor = gcd(have, want)
    return np.asarray(resample_poly(samples, want // divisor, have // divisor), dtype=np.float32)


def _fit(samples: Array, spec: Audio) -> Array:
    if spec.seconds is None:
        return samples
    length = round(spec.seconds * spec.rate)
    return np.pad(samples[:length], (0, max(0, length - len(samples))))
