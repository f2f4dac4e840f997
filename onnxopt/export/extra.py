"""What an exported file depends on."""

from __future__ import annotations

LIBRARIES = ("torch", "onnxscript", "onnx-ir", "onnx")
"""Distributions."""
