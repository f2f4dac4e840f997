"""Driving onnxruntime's quantizers, in a child process: they write logs, keep caches and are hungry for memory."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir

from onnxopt.compile.isolation import Limits, run_isolated
from onnxopt.data.files import SampleFiles, write_samples
from onnxopt.data.sample import Samples
from onnxopt.ir.model import Model
from onnxopt.ir.read import read_model
from onnxopt.ir.write import write_model

_SECONDS = 1800.0


def quantize_statically(
    graph: onnx_ir.Model, samples: Samples, folder: Path, settings: Mapping[str, Any]
) -> onnx_ir.Model:
    """Return the model with QuantizeLinear and DequantizeLinear inserted, calibrated on samples."""
    with tempfile.TemporaryDirectory(dir=folder) as calibration:
        write_samples(samples, Path(calibration))
        return _in_child(graph, folder, "run_static", calibration, dict(settings))


def quantize_dynamically(graph: onnx_ir.Model, folder: Path, settings: Mapping[str, Any]) -> onnx_ir.Model:
    """Return the model with int8 weights and activations quantized as they come."""
    return _in_child(graph, folder, "run_dynamic", dict(settings))


def run_static(before: str, after: str, samples: str, settings: Mapping[str, Any]) -> None:
    """Call quantize_static; called in the child."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    quantize_static(
        before,
        after,
        _reader(Path(samples)),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=settings["ops"],
        per_channel=settings["per_channel"],
        reduce_range=settings["reduce_range"],
        activation_type=QuantType[settings["activations"]],
        weight_type=QuantType[settings["weights"]],
        nodes_to_exclude=settings["skip"],
        calibrate_method=CalibrationMethod[settings["method"]],
        use_external_data_format=_is_large(before),
        extra_options=settings["extra"],
    )


def run_dynamic(before: str, after: str, settings: Mapping[str, Any]) -> None:
    """Call quantize_dynamic; called in the child."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        before,
        after,
        op_types_to_quantize=settings["ops"],
        per_channel=settings["per_channel"],
        reduce_range=settings["reduce_range"],
        weight_type=QuantType[settings["weights"]],
        nodes_to_exclude=settings["skip"],
        use_external_data_format=_is_large(before),
        extra_options={"MatMulConstBOnly": True},
    )


def _in_child(graph: onnx_ir.Model, folder: Path, function: str, *arguments: Any) -> onnx_ir.Model:
    before, after = folder / "float.onnx", folder / "quantized.onnx"
    write_model(Model(graph), before)
    place = f"onnxopt.quantize.ort_quantizer:{function}"
    run_isolated(place, str(before), str(after), *arguments, limits=Limits(seconds=_SECONDS))
    return read_model(after).graph


def _is_large(model: str) -> bool:
    """Whether the model was too large for one file; then what is made of it on the way may be too."""
    return Path(f"{model}.data").exists()


def _reader(folder: Path) -> Any:
    """Return a calibration reader that holds one sample at a time and can be read in ranges."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._samples = SampleFiles(tuple(sorted(folder.glob("*.npz"))))
            self.set_range(0, len(self._samples))

        def get_next(self) -> dict[str, Any] | None:
            index = next(self._indices, None)
            return None if index is None else dict(self._samples.read(index).feeds)

        def __len__(self) -> int:
            return len(self._samples)

        def set_range(self, start_index: int, end_index: int) -> None:
            self._indices = iter(range(start_index, min(end_index, len(self._samples))))

    return Reader()
