"""ONNX deployment toolchain: the fastest artefact that is proved to stay within an accuracy budget.

The names below are the whole Python interface; they mirror the commands. Importing this package loads nothing
else: each name is fetched when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxopt.api import (
        apply_pass,
        bucket_shapes,
        compare,
        evaluate_model,
        explain_layers,
        inspect,
        optimize,
        profile_model,
        prune_model,
        quantize_model,
        run,
        write_data,
    )
    from onnxopt.context import Context
    from onnxopt.errors import OnnxoptError
    from onnxopt.export.from_torch import export_model
    from onnxopt.ir.model import Model
    from onnxopt.ir.read import read_model
    from onnxopt.ir.write import write_model
    from onnxopt.passes import Pass, Repeat, Sequence, make_pass
    from onnxopt.pipeline.artefact import open_engine

__version__ = "0.1.0"

_PLACES = {
    "Context": "onnxopt.context",
    "Model": "onnxopt.ir.model",
    "OnnxoptError": "onnxopt.errors",
    "Pass": "onnxopt.passes",
    "Repeat": "onnxopt.passes",
    "Sequence": "onnxopt.passes",
    "apply_pass": "onnxopt.api",
    "bucket_shapes": "onnxopt.api",
    "compare": "onnxopt.api",
    "evaluate_model": "onnxopt.api",
    "explain_layers": "onnxopt.api",
    "export_model": "onnxopt.export.from_torch",
    "inspect": "onnxopt.api",
    "make_pass": "onnxopt.passes",
    "open_engine": "onnxopt.pipeline.artefact",
    "optimize": "onnxopt.api",
    "profile_model": "onnxopt.api",
    "prune_model": "onnxopt.api",
    "quantize_model": "onnxopt.api",
    "read_model": "onnxopt.ir.read",
    "run": "onnxopt.api",
    "write_data": "onnxopt.api",
    "write_model": "onnxopt.ir.write",
}

__all__ = [
    "Context",
    "Model",
    "OnnxoptError",
    "Pass",
    "Repeat",
    "Sequence",
    "apply_pass",
    "bucket_shapes",
    "compare",
    "evaluate_model",
    "explain_layers",
    "export_model",
    "inspect",
    "make_pass",
    "open_engine",
    "optimize",
    "profile_model",
    "prune_model",
    "quantize_model",
    "read_model",
    "run",
    "write_data",
    "write_model",
]


def __getattr__(name: str) -> Any:
    """Fetch a public name."""
    if name not in _PLACES:
        raise AttributeError(f"module 'onnxopt' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
