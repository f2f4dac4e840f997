"""Sleep spindles: bursts of 12 to 14.5 Hz hidden in pink noise, for a one-dimensional U-Net."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from onnxopt_zoo.samples import Array, Ingredients, Outputs, Sample, Samples

_RATE = 250  # samples a second
_SAMPLES = 7500  # of one window: 30 s
_WINDOWS = 9
_BURSTS = 3  # in a window
_CALIBRATION_WINDOWS = 32
_LONGEST = 2.0  # seconds; the network's durations are parts of it
_CONFIDENT = 0.5
_SAME = 0.3  # two intervals that overlap by this part of their union are the same

# The scalogram that the network was trained on: the complex Shannon wavelet of bandwidth 6 and centre frequency
# 13, sampled at 2**10 points over -20 to 20, at 15 scales. With more points the network hears something else.
_SCALES = np.geomspace(135, 270, num=15)
_BANDWIDTH, _CENTRE = 6.0, 13.0
_GRID = np.linspace(-20.0, 20.0, 2**10)


def windows(_ingredients: Ingredients) -> Samples:
    """Windows of 30 s: raw_signal float32 [1, 1, 7500] and spectrogram float32 [1, 15, 7500].

    The label has a row start, end for each burst, in seconds.
    """
    return Samples(_windows("calibration", _CALIBRATION_WINDOWS, 1), _windows("evaluation", _WINDOWS, 0))


def _windows(name: str, count: int, seed: int) -> Iterator[Sample]:
    rng = np.random.default_rng(seed)
    kernels = [_kernel(scale) for scale in _SCALES]
    for number in range(count):
        signal, bursts = _signal(rng)
        inputs = {
            "raw_signal": _standardized(signal)[None, None].astype(np.float32),
            "spectrogram": _standardized(_scalogram(signal, kernels))[None].astype(np.float32),
        }
        yield Sample(inputs, (f"{name} window {number}",), bursts)


def _signal(rng: np.random.Generator) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return 30 s of pink noise with bursts in it, and the start and end of each burst in seconds."""
    spectrum = np.fft.rfft(rng.normal(size=_SAMPLES))
    signal = np.fft.irfft(spectrum / np.sqrt(np.maximum(1.0, np.arange(spectrum.size))))
    signal /= signal.std()
    time = np.arange(_SAMPLES) / _RATE
    bursts = []
    for part in range(_BURSTS):
        length = rng.uniform(0.7, 1.5)
        start = 30 / _BURSTS * part + rng.uniform(1.0, 7.0)
        inside = np.clip((time - start) / length, 0.0, 1.0)
        signal += 3.0 * np.sin(np.pi * inside) ** 2 * np.sin(2 * np.pi * rng.uniform(12.0, 14.5) * time)
        bursts.append((start, start + length))
    return signal, np.array(bursts)


def _kernel(scale: float) -> npt.NDArray[np.complex128]:
    """Return the derivative of the wavelet's conjugate integral, stretched to ``scale`` samples and reversed."""
    step = _GRID[1] - _GRID[0]
    wavelet = np.sqrt(_BANDWIDTH) * np.sinc(_BANDWIDTH * _GRID) * np.exp(2j * np.pi * _CENTRE * _GRID)
    integral = np.conj(np.cumsum(wavelet) * step)
    places = (np.arange(scale * (_GRID[-1] - _GRID[0]) + 1) / (scale * step)).astype(int)
    stretched = integral[places[places < integral.size]][::-1]
    kernel: npt.NDArray[np.complex128] = -np.sqrt(scale) * np.diff(stretched, prepend=0.0, append=0.0)
    return kernel


def _scalogram(
    signal: npt.NDArray[np.float64], kernels: Sequence[npt.NDArray[np.complex128]]
) -> npt.NDArray[np.float64]:
    """Return the magnitude of the wavelet transform, [15, 7500]."""
    from scipy.signal import fftconvolve

    centred = signal - signal.mean()
    rows = []
    for kernel in kernels:
        whole = fftconvolve(centred, kernel)
        first = (kernel.size - 3) // 2 + 1  # as many are cut from both ends, the odd one from the right
        rows.append(np.abs(whole[first : first + _SAMPLES]))
    return np.stack(rows)


def _standardized(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the rows with zero mean and unit variance."""
    standard: npt.NDArray[np.float64] = (rows - rows.mean(axis=-1, keepdims=True)) / rows.std(axis=-1, keepdims=True)
    return standard


def burst_f1(outputs: Sequence[Outputs], labels: Sequence[Array]) -> float:
    """Return the F1 of bursts; one is found if a confident interval covers its middle.

    The detection is [1, 30, 3]: for each second the logits of confidence, place within it, and duration.
    """
    found, called, bursts = 0, 0, 0
    for output, label in zip(outputs, labels, strict=True):
        intervals = _intervals(output["detection"][0])
        middles = label.mean(axis=1)
        found += sum(any(start <= middle <= end for start, end in intervals) for middle in middles)
        called += len(intervals)
        bursts += len(middles)
    return 2 * found / max(1, called + bursts)


def _intervals(logits: Array) -> list[tuple[float, float]]:
    """Return start and end, in seconds, of the confident intervals; of those that overlap only the surest."""
    confidence, place, duration = (1 / (1 + np.exp(-logits.astype(np.float64)))).T
    middles = np.arange(len(logits)) + place
    starts, ends = middles - duration * _LONGEST / 2, middles + duration * _LONGEST / 2
    kept: list[tuple[float, float]] = []
    for second in np.argsort(-confidence):
        interval = (float(starts[second]), float(ends[second]))
        if confidence[second] >= _CONFIDENT and all(_overlap(interval, other) < _SAME for other in kept):
            kept.append(interval)
    return kept


def _overlap(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Return the intersection of two intervals over their union."""
    shared = max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
    return shared / (one[1] - one[0] + other[1] - other[0] - shared)
