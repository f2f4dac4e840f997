"""Is a ``.pt2`` file only a graph and tensors? torch's loader unpickles, evaluates and compiles what else it finds.

So the archive is read before torch reads it: pickled objects, compiled code, and operators and expressions other than
known ones are refused.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from onnxopt.errors import ModelError

_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prim|prims|higher_order|quantized_decomposed|torchvision)"
    r"\.((?!__)\w+|__(and|or|xor|lshift|rshift)__)(\.(?!__)\w+)?"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|pow|neg|pos|getitem|eq|ne|lt|le|gt|ge|and_|or_|not_)"
    r"|math\.(ceil|floor|trunc|sqrt|pow)"
    r"|torch\.sym_\w+"
)
_NAMED = re.compile(r"Symbol\('\w+'|Float\('[-+.\w]+'|L(\['\w+'\]|\[\d+\])+")
_ARITHMETIC = re.compile(r"[\w\s()\[\],.<>=!+*/%&|~-]*")
_WORD = re.compile(
    "Add|And|CeilDiv|CeilToInt|CleanDiv|Eq|FloatPow|FloatTrueDiv|FloorDiv|FloorToInt|Ge|Gt|Integer|IntTrueDiv|"
    "IsNonOverlappingAndDenseIndicator|LShift|Le|Lt|Max|Min|Mod|ModularIndexing|Mul|Ne|Not|Or|Pow|PowByNatural|"
    "PythonMod|RShift|Rational|RoundToInt|ToFloat|TruncToFloat|TruncToInt|Where|and|ceil|finite|floor|integer|max|min|"
    "nonnegative|not|or|positive|precision|real|size|storage_offset|stride|true|false|True|False"
)
_OBJECTS = ("custom_obj_", "opaque_obj_")
_HINT = "nothing in a file is run: load it in your own code and give that as module:function"


def refuse_code(path: Path) -> None:
    """Raise ModelError if a ``.pt2`` file holds anything but a graph of known operators and tensors."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.lower() for name in archive.namelist()]
            for name in archive.namelist():
                problem = "it is there twice" if names.count(name.lower()) > 1 else _problem(archive, name)
                if problem:
                    raise ModelError(
                        f"{path} is not only a graph and tensors: {problem}", where=f"{path}: {name}", hint=_HINT
                    )
    except (zipfile.BadZipFile, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is no exported program: {error}") from error


def _problem(archive: zipfile.ZipFile, name: str) -> str | None:
    """Return what is wrong with a member; torch's reader takes small letters for large ones."""
    kind = name.lower()
    if "aotinductor/" in kind:
        return "it holds compiled code"
    if kind.endswith(".json"):
        return next(
            (text for key, value in _entries(json.loads(archive.read(name))) if (text := _entry(key, value))), None
        )
    return _pickle_problem(archive.read(name)) if kind.endswith(".pt") else None


def _pickle_problem(content: bytes) -> str | None:
    """Return what stops a pickle from being tensors alone; an empty file is one of nothing."""
    try:
        torch.load(io.BytesIO(content), map_location="cpu", weights_only=True) if content else None
    except Exception as error:  # noqa: BLE001  (whatever it is, this is not tensors alone)
        return pickle_reason(error)
    return None


def pickle_reason(error: Exception) -> str:
    """Return why torch would not load a file with ``weights_only``, in place of its advice to load it without."""
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f"it holds the Python object {named[1]}" if named else "it is damaged, or no file of torch.save"


def _entries(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every leaf of a JSON value with the key it stands under."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield "key", name
            yield from _entries(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner, key)
    else:
        yield key, value


def _entry(key: str, value: Any) -> str | None:
    match key, value:
        case ("key", "__enum__") | ("use_pickle", True):
            return "it holds a pickled object"
        case "path_name", str() if value.startswith(_OBJECTS):
            return f"it holds the object {value!r}"
        case "target", str() if not _OPERATOR.fullmatch(value):
            return f"it calls {value!r}"
        case (("expr_str" | "guards_code"), str()) if not _is_arithmetic(value):
            return f"it evaluates {value!r}"
    return None


def _is_arithmetic(text: str) -> bool:
    """Whether an expression is made of sizes, numbers and known functions of them."""
    bare = _NAMED.sub("(", text)
    words = re.findall(r"[A-Za-z_]\w*", bare)
    return _ARITHMETIC.fullmatch(bare) is not None and all(_WORD.fullmatch(word) for word in words)
