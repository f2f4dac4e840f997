"""A package, a registry and a font that exist only in a test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from zoo_stand_ins import FILES, Registry, described, wheel

from onnxopt_zoo.manifest import Package
from onnxopt_zoo.store import Contents


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return described(wheel(FILES), "tiny-1.0-py3-none-any.whl", tmp_path)


@pytest.fixture
def registry() -> Registry:
    return Registry({"tiny-1.0-py3-none-any.whl": wheel(FILES)})


@pytest.fixture
def contents(tmp_path: Path) -> Callable[[str, Mapping[str, bytes]], Contents]:
    """Return a function that gives a package of the given files, as if fetched."""

    def make(name: str, files: Mapping[str, bytes]) -> Contents:
        folder = tmp_path / "contents" / name
        for member, content in files.items():
            (folder / member).parent.mkdir(parents=True, exist_ok=True)
            (folder / member).write_bytes(content)
        return Contents(folder, tuple(sorted(files)))

    return make


@pytest.fixture
def font() -> bytes:
    """Return the font that Pillow carries inside."""
    image_font = pytest.importorskip("PIL.ImageFont", reason="needs the [zoo] extra")
    loaded = image_font.load_default(20)
    return bytes(loaded.font_bytes)
