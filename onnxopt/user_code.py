"""Code a user named as ``module:function``: the only code outside this package and its plug-ins that ever runs."""

from __future__ import annotations

import ast
import hashlib
import importlib
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from onnxopt.errors import OnnxoptError, UsageError, did_you_mean

_PLACE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class UserCodeError(OnnxoptError):
    """A function the user named raised, or returned what it should not."""


def is_function_place(text: str) -> bool:
    """Whether a text has the form ``module:function``."""
    return _PLACE.fullmatch(text) is not None


def load_function(place: str, *, where: str | None = None) -> Callable[..., Any]:
    """Import ``module:function``; modules of the current folder can be named too.

    Raises:
        UsageError: No such module or function, or the text has another form.
        UserCodeError: The module raised while it was imported.
    """
    if not is_function_place(place):
        raise UsageError(f"{place!r} names no function", where=where, hint="write it as module:function")
    module_name, _, name = place.partition(":")
    module = _import(module_name, where)
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key in vars(module) if callable(getattr(module, key)) and not key.startswith("_")]
        raise UsageError(f"{module_name!r} has no function {name!r}", where=where, hint=did_you_mean(name, known))
    return function  # type: ignore[no-any-return]


def call_user(function: Callable[..., Any], place: str, *arguments: Any, **options: Any) -> Any:
    """Call a user's function; what it raises becomes a UserCodeError that says where."""
    try:
        with _current_folder():
            return function(*arguments, **options)
    except OnnxoptError:
        raise
    except Exception as error:
        raise raised(place, error) from error


def raised(place: str, error: Exception) -> UserCodeError:
    """Return the error for a user's function that raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    line = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else place
    return UserCodeError(
        f"{place} raised {type(error).__name__}: {error}", where=line, hint="--debug shows the traceback"
    )


def code_fingerprint(place: str) -> str:
    """Return the SHA-256 of the code behind ``module:function``.

    It covers the function's own file and every module it imports from its own package, or from its own folder, so that
    editing a helper counts too.
    """
    load_function(place)
    module = sys.modules[place.partition(":")[0]]
    sha = hashlib.sha256(place.encode())
    for file in sorted(_sources(module)):
        sha.update(file.read_bytes())
    return sha.hexdigest()


def _import(name: str, where: str | None) -> ModuleType:
    try:
        with _current_folder():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        hint = "is it installed, or in the current folder?"
        raise UsageError(f"there is no module {error.name!r}", where=where, hint=hint) from error
    except Exception as error:
        raise raised(name, error) from error


@contextmanager
def _current_folder() -> Iterator[None]:
    """Let modules of the current folder be imported, as Python does for a script that lies there."""
    here = str(Path.cwd())
    if here in sys.path:
        yield
        return
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _sources(module: ModuleType) -> set[Path]:
    """Return the files of a module and of all it imports from its own package, or from its own folder.

    Imports are read from the source, those inside functions too, so that it does not matter what is loaded already.
    """
    if module.__file__ is None:
        return set()
    own = Path(module.__file__).resolve()
    root = own.parents[module.__name__.count(".") + (own.name == "__init__.py")]
    top = module.__name__.partition(".")[0]
    alone = (root / top).is_dir() or str(root) in sysconfig.get_paths().values()
    files, names, seen = {own}, [module.__name__], {""}
    while names:
        name = names.pop()
        if name in seen or (alone and name.partition(".")[0] != top):
            continue
        seen.add(name)
        names.append(name.rpartition(".")[0])
        file = _file_of(root, name)
        if file is not None:
            files.add(file)
            names += _imported(file, name)
    return files


def _file_of(root: Path, name: str) -> Path | None:
    place = root.joinpath(*name.split("."))
    candidates = (place / "__init__.py", place.parent / f"{place.name}.py")
    return next((file for file in candidates if file.is_file()), None)


def _imported(file: Path, name: str) -> Iterator[str]:
    """Yield what a module may import, as absolute names; what is taken from a module may be a module itself."""
    package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    try:
        nodes = [*ast.walk(ast.parse(file.read_bytes()))]
    except SyntaxError:
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
