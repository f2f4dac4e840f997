"""Code the user named: how it is found, what it may raise, and what its fingerprint covers."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from onnxopt.errors import DataError, UsageError
from onnxopt.user_code import UserCodeError, call_user, code_fingerprint, is_function_place, load_function

Write = Callable[[str, str], Path]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Return a function that writes a module into the current folder, which is a new one."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)

    def write(name: str, text: str) -> Path:
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        importlib.invalidate_caches()
        return path

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize("text", ["a:b", "a.b.c:_d", "_a:b1"])
def test_places(text: str) -> None:
    assert is_function_place(text)


@pytest.mark.parametrize("text", ["", "a", "a:", ":b", "a:b.c", "a b:c", "a/b:c", "C:\\data", "1a:b", "a:b:c"])
def test_what_is_no_place(text: str) -> None:
    assert not is_function_place(text)
    with pytest.raises(UsageError, match="names no function") as caught:
        load_function(text, where="recipe:3")
    assert caught.value.where == "recipe:3"
    assert caught.value.hint == "write it as module:function"


def test_finds_modules_of_the_current_folder_and_leaves_the_path_alone(module: Write) -> None:
    module("mine_1", "def twice(x): return 2 * x")
    path = list(sys.path)

    assert load_function("mine_1:twice")(21) == 42
    assert sys.path == path


def test_missing_module_is_named(module: Write) -> None:
    module("mine_2", "import no_such_package_anywhere")

    for place, name in (("nowhere_2:f", "nowhere_2"), ("mine_2:f", "no_such_package_anywhere")):
        with pytest.raises(UsageError) as caught:
            load_function(place)
        assert caught.value.what == f"there is no module {name!r}"
        assert caught.value.hint == "is it installed, or in the current folder?"


def test_missing_function_suggests_the_closest(module: Write) -> None:
    module("mine_3", "def samples(): ...\nvalue = 3\ndef _hidden(): ...")

    with pytest.raises(UsageError, match="'mine_3' has no function 'sample'") as caught:
        load_function("mine_3:sample")
    assert caught.value.hint == "did you mean 'samples'?"
    with pytest.raises(UsageError, match="has no function 'value'"):
        load_function("mine_3:value")


def test_module_that_raises_tells_its_line(module: Write) -> None:
    path = module("mine_4", "x = 1\nx / 0\n")

    with pytest.raises(UserCodeError, match="mine_4 raised ZeroDivisionError: division by zero") as caught:
        load_function("mine_4:f")
    assert caught.value.where == f"{path}:2"


def test_function_that_raises_tells_its_line(module: Write) -> None:
    path = module("mine_5", "def f(x, *, y):\n    return {}[x + y]\n")

    with pytest.raises(UserCodeError, match="mine_5:f raised KeyError: 3") as caught:
        call_user(load_function("mine_5:f"), "mine_5:f", 1, y=2)
    assert caught.value.where == f"{path}:2"
    assert caught.value.hint == "--debug shows the traceback"


def test_own_errors_pass_through() -> None:
    def refuse() -> None:
        raise DataError("no such day", hint="choose another")

    with pytest.raises(DataError, match="no such day"):
        call_user(refuse, "a:b")


def test_fingerprint_covers_the_file_and_its_helpers(module: Write) -> None:
    own = module("mine_6", "import helper_6\ndef f(): return helper_6.VALUE")
    helper = module("helper_6", "VALUE = 1")
    first = code_fingerprint("mine_6:f")

    assert code_fingerprint("mine_6:f") == first
    helper.write_text("VALUE = 2")
    second = code_fingerprint("mine_6:f")
    own.write_text("import helper_6\ndef f(): return helper_6.VALUE + 1")
    assert len({first, second, code_fingerprint("mine_6:f")}) == 3


def test_fingerprint_of_a_package_covers_all_it_imports(module: Write) -> None:
    module("pack_7/__init__", "")
    module("pack_7/deep/__init__", "")
    module("pack_7/deep/code", "from pack_7 import other\ndef f(): return other.VALUE")
    other = module("pack_7/other", "VALUE = 1")
    first = code_fingerprint("pack_7.deep.code:f")

    other.write_text("VALUE = 2")
    assert code_fingerprint("pack_7.deep.code:f") != first


def test_fingerprint_leaves_out_what_is_not_imported(module: Write) -> None:
    module("mine_8", "def f(): return 1")
    first = code_fingerprint("mine_8:f")

    module("notes_8", "VALUE = 1")
    assert code_fingerprint("mine_8:f") == first


def test_fingerprint_leaves_out_modules_that_only_claim_a_file(module: Write) -> None:
    """``torch.classes`` says that it lies in ``_classes.py``, which is nowhere."""
    module("mine_10", "def f(): return 1")
    first = code_fingerprint("mine_10:f")
    sys.modules["claims_10"] = ModuleType("claims_10")
    sys.modules["claims_10"].__file__ = "_nowhere.py"

    assert code_fingerprint("mine_10:f") == first


def test_fingerprint_does_not_depend_on_the_folder(
    module: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module("mine_9", "def f(): return 1")
    first = code_fingerprint("mine_9:f")
    del sys.modules["mine_9"]
    (tmp_path / "elsewhere").mkdir()
    module("elsewhere/mine_9", "def f(): return 1")
    (tmp_path / "mine_9.py").unlink()
    monkeypatch.chdir(tmp_path / "elsewhere")
    importlib.invalidate_caches()

    assert code_fingerprint("mine_9:f") == first


@pytest.mark.parametrize(
    "line",
    [
        "from pack_11 import late",
        "from pack_11.late import VALUE",
        "from . import late",
        "from .late import VALUE",
        "import pack_11.late",
    ],
)
def test_fingerprint_covers_what_a_function_imports_when_it_is_called(module: Write, line: str) -> None:
    """It is the same before and after, or a second run would find nothing of the first."""
    package = f"pack_11_{abs(hash(line))}"
    module(f"{package}/__init__", "")
    module(f"{package}/code", f"def f():\n    {line.replace('pack_11', package)}\n    return 1")
    late = module(f"{package}/late", "VALUE = 1\nfrom . import code")
    first = code_fingerprint(f"{package}.code:f")
    call_user(load_function(f"{package}.code:f"), f"{package}.code:f")
    assert code_fingerprint(f"{package}.code:f") == first
    late.write_text("VALUE = 2")
    assert code_fingerprint(f"{package}.code:f") != first
