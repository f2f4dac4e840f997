"""Calibration: histograms in constant memory, ranges from them, and going on after an interruption."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from onnxopt.context import Context, Event, Progress, Warned
from onnxopt.data.sample import InMemory, Sample, Samples, Subset
from onnxopt.errors import DataError
from onnxopt.evaluate.collector import Collector
from onnxopt.ir.quant import Scheme, dequantize, fit, quantize
from onnxopt.quantize.calibration import Seen, calibrate
from onnxopt.quantize.histogram import BINS, Histogram
from onnxopt.quantize.ranges import Method, find_range
from onnxopt.targets.machine import processor
from tests.graphs import cnn, from_text, samples, saved

F32 = np.float32
UNSIGNED = Scheme("uint8", symmetric=False)
METHODS: list[Method] = ["minmax", "percentile", "entropy", "mse"]

_parts = st.lists(
    arrays.arrays(F32, st.integers(1, 40), elements=st.floats(-1e6, 1e6, width=32)), min_size=1, max_size=5
)


@given(parts=_parts)
def test_a_histogram_knows_all_it_saw(parts: list[Any]) -> None:
    seen = _histogram(*parts)
    everything = np.concatenate(parts)
    assert (seen.low, seen.high) == (everything.min(), everything.max())
    assert seen.seen == everything.size
    assert seen.counts.sum() == (everything.size if np.abs(everything).max() else 0) or seen.bound
    middles = np.repeat(seen.centers, seen.counts)
    assert len(middles) <= everything.size
    if len(middles) == everything.size:
        assert np.abs(np.sort(middles) - np.sort(everything)).max() <= seen.width * 1.001


@given(parts=_parts)
def test_a_histogram_survives_being_written_down(parts: list[Any]) -> None:
    seen = _histogram(*parts)
    again = Histogram.of(seen.state())
    assert again.state() == seen.state()
    assert np.array_equal(again.counts, seen.counts)


def test_a_large_array_is_counted_in_part_and_its_ends_exactly() -> None:
    array = np.random.default_rng(0).standard_normal(1_000_000).astype(F32)
    array[123_457] = 77.0
    seen = _histogram(array)
    assert seen.high == 77.0
    assert 15_000 < seen.counts.sum() < 20_000


@pytest.mark.parametrize("shape", [(224, 224, 3), (1, 256, 768), (3, 70_000), (65_537,)], ids=str)
def test_what_is_counted_falls_into_step_with_no_axis(shape: tuple[int, ...]) -> None:
    """Every index of the last axis is looked at, and nearly as often as the others."""
    array = np.broadcast_to(np.arange(shape[-1], dtype=F32) + 1, shape)
    seen = _histogram(np.ascontiguousarray(array))
    middle = np.searchsorted(np.cumsum(seen.counts), seen.counts.sum() / 2)
    assert abs(seen.centers[middle] - (shape[-1] + 1) / 2) < 0.51 + 0.02 * shape[-1]


def test_masks_and_nan_are_left_out_and_counted() -> None:
    lowest = np.finfo(F32).min
    seen = _histogram(np.array([1, -2, np.inf, -np.inf, np.nan, lowest, 3], F32))
    assert (seen.low, seen.high) == (-2, 3)
    assert (seen.masked, seen.invalid, seen.counts.sum()) == (3, 1, 3)


@pytest.mark.parametrize("method", METHODS)
@given(parts=_parts)
def test_a_range_lies_within_what_was_seen(method: Method, parts: list[Any]) -> None:
    seen = _histogram(*parts)
    low, high = find_range(seen, method, UNSIGNED)
    assert seen.low <= low <= high <= seen.high or (low, high) == (0.0, 0.0) or low <= 0 <= high


@pytest.mark.parametrize("scheme", [UNSIGNED, Scheme("int8", symmetric=True)], ids=["affine", "symmetric"])
def test_mse_has_the_least_error(scheme: Scheme) -> None:
    """One outlier among many small values: cutting it off costs less than telling the others apart badly."""
    random = np.random.default_rng(0)
    array = np.append(random.standard_normal(50_000), [40.0]).astype(F32)
    errors = {method: _error(array, *find_range(_histogram(array), method, scheme), scheme) for method in METHODS}
    assert errors["mse"] == min(errors.values())
    assert errors["mse"] < 0.95 * errors["minmax"]


def test_percentile_and_entropy_cut_outliers_off() -> None:
    array = np.append(np.random.default_rng(0).standard_normal(100_000), [50.0]).astype(F32)
    for method in ("percentile", "entropy"):
        assert 2 < find_range(_histogram(array), method, UNSIGNED)[1] < 10


def test_ranges_are_those_of_the_tensors(tmp_path: Path) -> None:
    model = cnn()
    data = samples(model, 5)
    values = [model.graph.graph.inputs[0], model.graph.graph[2].outputs[0]]
    seen = calibrate(model.graph, values, data, Context.of(scratch=tmp_path))
    given_values = np.stack([one.feeds["image"] for one in data])
    assert seen.histograms["image"].high == given_values.max()
    assert seen.histograms["r1"].low == 0
    assert seen.histograms["r1"].high > 0
    assert seen.samples == 5


def test_an_interrupted_calibration_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxopt.evaluate.collect._SECONDS_BETWEEN", 0.0)
    model = cnn()
    count = 4 * processor().cores
    data = samples(model, count)
    whole = _calibrated(model, data, tmp_path, None)
    with pytest.raises(KeyboardInterrupt):
        _calibrated(model, _Interrupted(data, tuple(range(count))), tmp_path, tmp_path / "kept")
    told: list[Event] = []
    after = _calibrated(model, data, tmp_path, tmp_path / "kept", told)
    done = [event.done for event in told if isinstance(event, Progress)]
    assert done[0] > count // 2
    assert done[-1] == count
    assert _states(after) == _states(whole)
    again: list[Event] = []
    assert _states(_calibrated(model, data, tmp_path, tmp_path / "kept", again)) == _states(whole)
    assert not again


def test_large_tensors_are_held_once_and_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = cnn()
    (output,) = (port.name for port in model.signature.outputs)
    saved(model, tmp_path / "cnn.onnx")
    states = []
    for most in (0, 1 << 40):
        monkeypatch.setattr("onnxopt.evaluate.collector._MOST_BYTES", most)
        collector = Collector(str(tmp_path / "cnn.onnx"), {output: Histogram()})
        collector.add([sample.feeds for sample in samples(model, 5)])
        states.append(collector.state()[output])
    assert states[0] == states[1]
    assert sum(states[0]["counts"]) == states[0]["seen"] > 0


def test_other_samples_are_calibrated_anew(tmp_path: Path) -> None:
    model = cnn()
    first = _calibrated(model, samples(model, 3), tmp_path, tmp_path / "kept")
    other = _calibrated(model, samples(model, 3, seed=1), tmp_path, tmp_path / "kept")
    assert _states(first) != _states(other)


def test_a_damaged_state_is_not_used(tmp_path: Path) -> None:
    model = cnn()
    data = samples(model, 3)
    whole = _calibrated(model, data, tmp_path, tmp_path / "kept")
    (state,) = (tmp_path / "kept").iterdir()
    state.write_text(state.read_text()[:100])
    assert _states(_calibrated(model, data, tmp_path, tmp_path / "kept")) == _states(whole)


def test_no_samples_and_nothing_but_nan_are_refused(tmp_path: Path) -> None:
    model = cnn()
    with pytest.raises(DataError, match="there are no samples to calibrate on"):
        _calibrated(model, InMemory(()), tmp_path, None)
    bad = InMemory((Sample("bad", {"image": np.full((1, 3, 8, 8), np.nan, F32)}),))
    with pytest.raises(DataError, match="'r1' took no finite value in any sample"):
        _calibrated(model, bad, tmp_path, None)


def test_masks_are_told(tmp_path: Path) -> None:
    model = from_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n] x) => (float[n] y) { m = Log (x) y = Exp (m) }'
    )
    data = InMemory((Sample("one", {"x": np.array([0.0, 1.0, 2.0, 3.0], F32)}),))
    told: list[Event] = []
    calibrate(model.graph, [model.graph.graph[0].outputs[0]], data, Context.of(scratch=tmp_path, emit=told.append))
    assert any(isinstance(event, Warned) and "25.0% of 'm' are masks" in event.text for event in told)


class _Interrupted(Subset):
    """Samples of which the last quarter is interrupted by the user."""

    @property
    def fingerprint(self) -> str:
        return self.source.fingerprint

    def read(self, index: int) -> Sample:
        if index == len(self) * 3 // 4:
            raise KeyboardInterrupt
        return super().read(index)


def _histogram(*parts: Any) -> Histogram:
    seen = Histogram()
    for part in parts:
        seen.add(part)
    assert len(seen.counts) == BINS
    return seen


def _error(array: Any, low: float, high: float, scheme: Scheme) -> float:
    how = fit(low, high, scheme)
    return float(np.square(dequantize(quantize(array, how), how) - array).mean())


def _calibrated(model: Any, data: Samples, folder: Path, kept: Path | None, told: list[Event] | None = None) -> Seen:
    values = [model.graph.graph[2].outputs[0]]
    emit = (lambda _: None) if told is None else told.append
    return calibrate(model.graph, values, data, Context.of(scratch=folder, emit=emit, kept=kept))


def _states(seen: Seen) -> dict[str, Any]:
    return {name: one.state() for name, one in seen.histograms.items()}


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path) -> Iterator[None]:
    """Let no test leave a half-written state behind."""
    yield
    assert not list(tmp_path.rglob("*.writing"))
