"""TensorRT's own parser takes what is quantized by its rules, and refuses what is quantized for another runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from onnxopt.context import Context
from onnxopt.ir.write import write_model
from onnxopt.passes import make_pass
from tests.graphs import attention_block, cnn, mlp, samples

trt: Any = pytest.importorskip(
    "tensorrt_rtx", reason="needs tensorrt-rtx and its cu13 packages, installed with --no-deps; it parses without a GPU"
)

MODELS = {"cnn": cnn, "mlp": mlp, "attention": attention_block}


@pytest.mark.parametrize("scope", ["compute", "all"])
@pytest.mark.parametrize("name", MODELS)
def test_it_parses(tmp_path: Path, name: str, scope: str) -> None:
    assert _errors(name, tmp_path, runtime="tensorrt", scope=scope) == []


def test_unsigned_activations_are_refused(tmp_path: Path) -> None:
    (error,) = _errors("mlp", tmp_path, runtime="ort")
    assert "zero point" in error


def _errors(name: str, folder: Path, **options: Any) -> list[str]:
    model = MODELS[name]()
    after = make_pass("quantize-static", options)(model, Context.of(data=samples(model, 6), scratch=folder))
    (path,) = write_model(after, folder / "quantized.onnx")
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse(path.read_bytes())
    errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
    assert parsed == (not errors)
    return errors
