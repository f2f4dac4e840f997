"""Functions by name: finding them, and telling when their code has changed."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Changes in these packages can change what is made; the rest of the zoo only carries it around.
_INGREDIENTS = ("onnxopt_zoo.makers", "onnxopt_zoo.media", "onnxopt_zoo.tasks")


def resolve(reference: str) -> Callable[..., Any]:
    """Return the function that ``module:function`` names."""
    module, _, name = reference.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function


def is_installed(module: str) -> bool:
    """Say whether a top-level module can be imported, without importing it."""
    return find_spec(module) is not None


def sha256_of_sources(reference: str) -> str:
    """Return a digest of the code behind ``module:function``: its module and the zoo's ones that it imports."""
    module = reference.partition(":")[0]
    digest = hashlib.sha256()
    for name in sorted(_with_imports(module, set())):
        digest.update(_source(name).read_bytes())
    return digest.hexdigest()


def _with_imports(module: str, seen: set[str]) -> set[str]:
    if module not in seen:
        seen.add(module)
        for name in _imported(_source(module)):
            _with_imports(name, seen)
    return seen


def _imported(source: Path) -> Iterator[str]:
    """Give the zoo's modules that ``source`` imports, wherever in it, without running it."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(_INGREDIENTS):
            yield node.module


def _source(module: str) -> Path:
    spec = find_spec(module)
    assert spec is not None, module
    assert spec.origin is not None, module
    return Path(spec.origin)
