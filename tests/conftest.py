"""Fixtures every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from onnxopt.pipeline.cache import Cache
from tests.graphs import mlp, saved

settings.register_profile("same", derandomize=True)
settings.register_profile("explore", derandomize=False)
settings.load_profile("same")
"""A run is as green as the one before it; ``pytest --hypothesis-profile=explore`` looks for cases not seen yet."""


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """An empty cache."""
    return Cache(tmp_path / "cache")


@pytest.fixture
def mlp_file(tmp_path: Path) -> Path:
    """A small classifier on disk."""
    return saved(mlp(), tmp_path / "mlp.onnx")
