"""The menu: every name resolves, sits in its room, and is documented."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from typing import Any, get_args

import pytest

from onnxopt import registry
from onnxopt.compile.engine import Backend
from onnxopt.data.source import Source
from onnxopt.errors import UsageError
from onnxopt.evaluate.metrics import Metric
from onnxopt.options import describe
from onnxopt.passes import Pass
from onnxopt.registry import BUILTIN, Kind, names, resolve

ROOMS: dict[Kind, tuple[type, tuple[str, ...]]] = {
    "passes": (Pass, ("rewrite", "quantize", "prune", "train")),
    "backends": (Backend, ("compile",)),
    "sources": (Source, ("data",)),
    "metrics": (Metric, ("evaluate",)),
}
ENTRIES = [(kind, name) for kind in get_args(Kind) for name in BUILTIN[kind]]


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_entry_is_what_it_says(kind: Kind, name: str) -> None:
    cls = resolve(kind, name)
    interface, rooms = ROOMS[kind]

    assert issubclass(cls, interface)
    assert cls.name == name
    assert cls.__module__.split(".")[1] in rooms
    assert (cls.__doc__ or "").splitlines()[0].endswith((".", ";", ":", "…"))
    assert all(option.text for option in describe(cls))


def test_naming_a_pass_imports_nothing() -> None:
    code = "import sys, onnxopt.registry as r; r.names('passes'); print(sorted(m for m in sys.modules if 'onnx' in m))"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert "'onnxopt.registry'" in loaded
    assert "rewrite" not in loaded
    assert "onnx_ir" not in loaded


@pytest.mark.parametrize(
    ("kind", "name", "what", "hint"),
    [
        ("passes", "rewrit", "there is no pass 'rewrit'", "did you mean 'rewrite'?"),
        ("backends", "openvin", "there is no backend 'openvin'", "did you mean 'openvino'?"),
        ("sources", "zzz", "there is no source 'zzz'", "known: audio, files, function"),
        ("metrics", "top-1", "there is no metric 'top-1'", "did you mean 'top1'?"),
    ],
)
def test_unknown_name_suggests_the_closest(kind: Kind, name: str, what: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(kind, name)

    assert caught.value.what == what
    assert (caught.value.hint or "").startswith(hint)


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Any:
    def entry_points(*, group: str) -> list[EntryPoint]:
        return [EntryPoint("zap", "collections:OrderedDict", group), EntryPoint("rewrite", "evil:Code", group)]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    registry._entries.cache_clear()
    yield
    registry._entries.cache_clear()


def test_other_packages_add_names_and_replace_none(plugins: None) -> None:
    assert names("passes") == (*BUILTIN["passes"], "zap")
    assert resolve("passes", "zap").__name__ == "OrderedDict"
    assert resolve("passes", "rewrite").__module__ == "onnxopt.rewrite.rewrite"
