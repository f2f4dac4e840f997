"""Sound as arrays: reading, resampling, loudness, spectra, and the speech that tasks are made of."""

from __future__ import annotations

import io
import wave

import numpy as np
import numpy.typing as npt

from onnxopt_zoo.store import Contents

Wave = npt.NDArray[np.float32]
"""Sound pressure in -1 to 1, [samples]."""

SPEECH_RATE = 16_000  # samples a second; what every speech network here hears
LANGUAGES = ("en", "es", "fr", "it", "ru")

# Sounds of these folders and names are not speech, or are single letters and digits.
_NOT_SPEECH = ("silence/", "letters/", "digits/", "phonetic/", "beep", "tone", "tt-monkeys", "ascending", "descending")


def speech_package(language: str) -> str:
    """Return the manifest's key of the package with speech in ``language``."""
    return f"asterisk-core-sounds-{language}-wav"


def clips(contents: Contents, shortest: float, longest: float) -> dict[str, Wave]:
    """Return the spoken clips whose length in seconds is within bounds, at 16 kHz, by the sound's name."""
    chosen: dict[str, Wave] = {}
    for member in contents.names:
        name = member.split("/", 5)[-1].removesuffix(".wav")
        if name.startswith(_NOT_SPEECH):
            continue
        sound, rate = read_wav(contents.read(member))
        if shortest <= sound.size / rate <= longest:
            chosen[name] = resample(sound, rate, SPEECH_RATE)
    return chosen


def read_wav(content: bytes) -> tuple[Wave, int]:
    """Return a 16-bit mono WAV file's sound, [samples] in -1 to 1, and its rate in samples a second."""
    with wave.open(io.BytesIO(content)) as opened:
        frames = opened.readframes(opened.getnframes())
        rate = opened.getframerate()
    return np.frombuffer(frames, "<i2").astype(np.float32) / np.float32(32768), rate


def resample(sound: Wave, rate: int, new_rate: int) -> Wave:
    """Return the sound at another rate, by polyphase filtering."""
    from scipy.signal import resample_poly

    divisor = int(np.gcd(rate, new_rate))
    changed = resample_poly(sound.astype(np.float64), new_rate // divisor, rate // divisor)
    return np.asarray(changed, np.float32)


def loudness(sound: Wave) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(np.square(sound, dtype=np.float64))))


def trimmed(sound: Wave, rate: int = SPEECH_RATE, threshold: float = 0.1) -> Wave:
    """Return the sound without the quiet 10 ms frames at its ends, quiet as a part of its loudest frame."""
    frame = rate // 100
    frames = sound[: sound.size // frame * frame].reshape(-1, frame)
    levels = np.sqrt(np.mean(np.square(frames), axis=1))
    loud = np.flatnonzero(levels > threshold * levels.max())
    return sound[loud[0] * frame : (loud[-1] + 1) * frame]


def power_spectrogram(sound: Wave, window: int, hop: int, padding: str) -> npt.NDArray[np.float64]:
    """Return |STFT|^2, [window // 2 + 1, frames], with a periodic Hann window and frames centred on samples.

    Args:
        sound: [samples].
        window: Length of the window, and of the transform, in samples.
        hop: Distance of two frames, in samples.
        padding: How the ends are extended by half a window, a mode of ``numpy.pad``.
    """
    padded = np.pad(sound.astype(np.float64), window // 2, mode=padding)  # type: ignore[call-overload]
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    hann = np.hanning(window + 1)[:-1]
    spectrum: npt.NDArray[np.float64] = np.abs(np.fft.rfft(frames * hann, axis=-1)).T ** 2
    return spectrum


def mel_filters(bands: int, window: int, rate: int) -> npt.NDArray[np.float64]:
    """Return triangular filters of equal area, [bands, window // 2 + 1], on the mel scale of Slaney's Auditory Toolbox.

    That scale (Interval Research report 1998-010) is linear below 1 kHz, 200/3 Hz a mel, and logarithmic above,
    27 mels for each factor of 6.4.
    """
    highest = 15.0 + 27.0 * np.log(rate / 2 / 1000.0) / np.log(6.4)
    mels = np.linspace(0.0, highest, bands + 2)
    corners = np.where(mels < 15.0, mels * 200.0 / 3.0, 1000.0 * np.exp((mels - 15.0) * np.log(6.4) / 27.0))
    frequencies = np.fft.rfftfreq(window, 1 / rate)
    distances = frequencies - corners[:, None]
    rising = distances[:-2] / np.diff(corners)[:-1, None]
    falling = -distances[2:] / np.diff(corners)[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    filters: npt.NDArray[np.float64] = triangles * (2.0 / (corners[2:] - corners[:-2]))[:, None]
    return filters
