"""YAML with the line of everything in it, so that an error can point there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from onnxopt.errors import RecipeError

Place = tuple[str | int, ...]


def load_yaml(path: Path) -> tuple[Any, Mapping[Place, int]]:
    """Return a YAML file's content and the line (from 1) of each key and item, by its path from the root.

    Raises:
        RecipeError: The file cannot be read, is no YAML, or has a key twice.
    """
    try:
        text = path.read_text()
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[Place, int] = {}
        _walk(root, (), lines, path)
        return yaml.safe_load(text), lines
    except OSError as error:
        raise RecipeError(f"cannot read the recipe: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise RecipeError("the recipe is no text file", where=str(path)) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise RecipeError(f"the recipe is no YAML: {getattr(error, 'problem', error)}", where=place) from error


def line_of(lines: Mapping[Place, int], place: Place) -> int:
    """Return the line of the innermost part of ``place`` that stands in the file."""
    while place and place not in lines:
        place = place[:-1]
    return lines.get(place, 1)


def place_text(place: Place) -> str:
    """Return ``passes[2].quantize-static`` for ("passes", 2, "quantize-static")."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _walk(node: yaml.Node | None, place: Place, lines: dict[Place, int], path: Path) -> None:
    if node is None:
        return
    lines[place] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise RecipeError(
                    "a key is no text", where=f"{path}:{key.start_mark.line + 1}", hint="write  key: value"
                )
            inner = (*place, key.value)
            if inner in lines:
                raise RecipeError(f"the key {key.value!r} stands twice", where=f"{path}:{key.start_mark.line + 1}")
            _walk(value, inner, lines, path)
            lines[inner] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, (*place, index), lines, path)
