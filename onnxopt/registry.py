"""The menu: what can be named in a recipe or on the command line, and where it lives.

Entries are strings, so that listing or misspelling a name imports nothing. Other packages add to it with entry
points in the groups ``onnxopt.passes``, ``onnxopt.backends``, ``onnxopt.sources`` and ``onnxopt.metrics``.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Literal

from onnxopt.errors import UsageError, did_you_mean

Kind = Literal["passes", "backends", "sources", "metrics"]

BUILTIN: Mapping[Kind, Mapping[str, str]] = {
    "passes": {},
    "backends": {
        "ort": "onnxopt.compile.ort:OnnxRuntime",
        "openvino": "onnxopt.compile.openvino:OpenVino",
        "reference": "onnxopt.compile.reference:Reference",
        "fake": "onnxopt.compile.fake:Fake",
    },
    "sources": {
        "files": "onnxopt.data.files:Files",
        "stacked": "onnxopt.data.stacked:Stacked",
        "images": "onnxopt.data.images:Images",
        "text": "onnxopt.data.text:Text",
        "audio": "onnxopt.data.audio:Audio",
        "function": "onnxopt.data.function:Function",
        "synthetic": "onnxopt.data.synthetic:Synthetic",
    },
    "metrics": {},
}


def names(kind: Kind) -> tuple[str, ...]:
    """Return every known name of a kind: the built-in ones in the order of the menu, then other packages'."""
    return (*BUILTIN[kind], *(name for name in sorted(_entries(kind)) if name not in BUILTIN[kind]))


def resolve(kind: Kind, name: str) -> Any:
    """Import and return what a name stands for.

    Raises:
        UsageError: No such name; the hint gives the closest one.
    """
    place = BUILTIN[kind].get(name) or _entries(kind).get(name)
    if place is None:
        singular = {"passes": "pass"}.get(kind, kind.removesuffix("s"))
        raise UsageError(f"there is no {singular} {name!r}", hint=did_you_mean(name, names(kind)))
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


@cache
def _entries(kind: Kind) -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=f"onnxopt.{kind}")}
