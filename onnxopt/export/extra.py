"""What exporting needs and the core install lacks."""

from __future__ import annotations

from importlib.util import find_spec

from onnxopt.errors import MissingExtraError

LIBRARIES = ("torch", "onnxscript", "onnx-ir", "onnx")
"""Distributions the exported file depends on."""


def need_torch() -> None:
    """Raise MissingExtraError unless torch is installed."""
    if find_spec("torch") is None:
        raise MissingExtraError("exporting needs torch", hint="pip install 'onnxopt[torch]'")
