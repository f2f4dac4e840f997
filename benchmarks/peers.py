"""What the peers make of a model, used as their own documentation says. Each runs in a child process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from onnxopt.compile.engine import Backend, make_backend
from onnxopt.data.files import SampleFiles

CALIBRATION = 64
"""Samples every peer calibrates on, as ours do."""


def quantize_static(model: str, samples: str, out: str, limit: int = CALIBRATION) -> str:
    """Run onnxruntime's static quantization with its advice for x86: pre-processing, uint8 activations, QDQ."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as quantize
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._feeds = _feeds(samples, limit)

        def get_next(self) -> dict[str, Any] | None:
            return next(self._feeds, None)

    prepared = f"{out}.prepared.onnx"
    quant_pre_process(model, prepared)
    quantize(
        prepared,
        out,
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return out


def quantize_dynamic(model: str, samples: str, out: str) -> str:  # noqa: ARG001  (needs no samples)
    """Run onnxruntime's dynamic quantization with its defaults."""
    from onnxruntime.quantization import quantize_dynamic as quantize

    quantize(model, out)
    return out


def nncf_onnx(model: str, samples: str, out: str) -> str:
    """Run NNCF's post-training quantization on the ONNX model."""
    import nncf
    import onnx

    onnx.save(nncf.quantize(onnx.load(model), nncf.Dataset(list(_feeds(samples)))), out)
    return out


def nncf_openvino(model: str, samples: str, out: str) -> str:
    """Run NNCF's post-training quantization on the OpenVINO model."""
    import nncf
    import openvino

    quantized = nncf.quantize(openvino.Core().read_model(model), nncf.Dataset(list(_feeds(samples))))
    path = str(Path(out).with_suffix(".xml"))
    openvino.save_model(quantized, path, compress_to_fp16=False)
    return path


def unchanged(model: str, samples: str, out: str) -> str:  # noqa: ARG001  (only the runtime differs)
    """Return the model itself."""
    return model


PEERS: Mapping[str, tuple[Callable[[str, str, str], str], Backend]] = {
    "ORT quantize_static": (quantize_static, make_backend("ort")),
    "ORT quantize_dynamic": (quantize_dynamic, make_backend("ort")),
    "NNCF, in ORT": (nncf_onnx, make_backend("ort")),
    "NNCF, in OpenVINO": (nncf_openvino, make_backend("openvino")),
    "OpenVINO float32": (unchanged, make_backend("openvino")),
    "OpenVINO bfloat16": (unchanged, make_backend("openvino", {"precision": "bfloat16"})),
}


def _feeds(samples: str, limit: int = CALIBRATION) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    for sample in SampleFiles(tuple(sorted(Path(samples).glob("*.npz"))[:limit])):
        yield dict(sample.feeds)
