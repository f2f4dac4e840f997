import importlib
import inspect
from pathlib import Path

import pytest

import onnxopt
from onnxopt.options import describe
from onnxopt.passes import Pass
from onnxopt.registry import BUILTIN, names, resolve

ROOMS = {
    "passes": ("rewrite", "quantize", "prune"),
    "backends": ("compile",),
    "sources": ("data",),
    "metrics": ("evaluate",),
}
ENTRIES = [(kind, name) for kind in BUILTIN for name in names(kind)]


def test_there_are_at_most_25_public_names_and_all_resolve():
    assert len(onnxopt.__all__) <= 25
    for name in onnxopt.__all__:
        if name == "export_model":
            pytest.importorskip("torch")
        assert inspect.getdoc(getattr(onnxopt, name))


def test_no_public_name_is_a_module_that_hides_it_once_imported():
    package = Path(onnxopt.__file__).parent
    assert not {path.stem for path in package.iterdir()} & set(onnxopt.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'optimise'"):
        getattr(onnxopt, "optimise")  # noqa: B009


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_every_entry_of_the_registry_is_in_its_room_and_documented(kind, name):
    cls = resolve(kind, name)
    assert cls.name == name
    assert cls.__module__.split(".")[1] in ROOMS[kind]
    first = inspect.getdoc(cls).splitlines()[0]
    assert first.endswith(".")
    assert len(first) <= 120
    assert all(option.text for option in describe(cls))


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_every_entry_of_the_registry_has_a_test(kind, name):
    room = resolve(kind, name).__module__.split(".")[1]
    texts = "".join(file.read_text() for file in (Path(__file__).parent / room).glob("test_*.py"))
    cls = resolve(kind, name)
    assert f'"{name}"' in texts or f"{cls.__name__}(" in texts or f"import {cls.__name__}" in texts


@pytest.mark.parametrize("name", names("passes"))
def test_a_pass_has_defaults_for_every_option(name):
    cls = resolve("passes", name)
    assert issubclass(cls, Pass)
    assert cls().options.keys() == {option.name for option in describe(cls)}
    assert "-" in name or name == "rewrite"


def test_no_module_has_a_name_that_says_nothing():
    banned = {"core", "common", "utils", "helpers", "base", "manager", "misc"}
    package = Path(importlib.import_module("onnxopt").__file__).parent
    assert not [file for file in package.rglob("*.py") if file.stem in banned]
