"""Options declared once: a frozen dataclass whose fields are recipe keys, CLI flags, cache key and help text.

Values are validated strictly by pydantic: ``"8"`` is no integer, and an unknown key is an error.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Hashable, Mapping
from functools import cache
from typing import Any, TypeVar, cast, dataclass_transform, get_type_hints

import pydantic
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic.fields import FieldInfo

from onnxopt.errors import OnnxoptError, UsageError, did_you_mean

T = TypeVar("T")

_STRICT = pydantic.ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)


def option(text: str, *, default: Any = ..., **limits: Any) -> Any:
    """Declare an option: its help text, its default (none: it is required), and limits such as ``ge=1``."""
    if isinstance(default, (dict, list)):
        return pydantic.Field(default_factory=default.copy, description=text, **limits)
    return pydantic.Field(default, description=text, **limits)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(option,))
def options(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass whose fields are validated options."""
    return cast(type[T], pydantic_dataclass(frozen=True, kw_only=True, config=_STRICT)(cls))


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """One option of a class, as help texts and command lines show it."""

    name: str
    type: Any
    default: Any
    required: bool
    text: str


def describe(cls: type[Any]) -> tuple[Option, ...]:
    """Return the options of a class made with ``options``, in the order they were declared."""
    hints = get_type_hints(cls)
    fields: Mapping[str, FieldInfo] = getattr(cls, "__pydantic_fields__", {})
    return tuple(_option(name, hints[name], info) for name, info in fields.items())


def build(cls: type[T], values: Mapping[str, Any], *, where: str, error: type[OnnxoptError] = UsageError) -> T:
    """Return ``cls`` with these options.

    Raises:
        error: A key is unknown, a required one is missing, or a value has the wrong type or is out of range.
            The first such problem is told, with the key's path after ``where``.
    """
    try:
        return adapter(cls).validate_json(json.dumps(values, default=str))
    except pydantic.ValidationError as problem:
        raise _explain(problem, cls, where, error) from problem


def dump(instance: Any) -> dict[str, Any]:
    """Return the options of an instance as JSON values."""
    values: dict[str, Any] = adapter(type(instance)).dump_python(instance, mode="json")
    return values


def adapter(cls: type[T]) -> pydantic.TypeAdapter[T]:
    """Return what turns values of a type into JSON and back; made once, for making it takes longer than using it."""
    made: pydantic.TypeAdapter[T] = _adapter(cast(Hashable, cls))
    return made


@cache
def _adapter(cls: Any) -> Any:
    return pydantic.TypeAdapter(cls)


def _option(name: str, kind: Any, info: FieldInfo) -> Option:
    return Option(name, kind, info.get_default(call_default_factory=True), info.is_required(), info.description or "")


def _explain(problem: pydantic.ValidationError, cls: type[Any], where: str, error: type[OnnxoptError]) -> OnnxoptError:
    first = problem.errors()[0]
    path = ".".join(str(part) for part in first["loc"])
    place = f"{where}: {path}" if path else where
    known = [option.name for option in describe(cls)]
    match first["type"]:
        case "unexpected_keyword_argument" | "extra_forbidden":
            return error(f"there is no option {path!r}", where=where, hint=did_you_mean(path, known))
        case "missing" | "missing_argument" | "missing_keyword_only_argument":
            return error(f"the option {path!r} is required", where=where, hint=_help_of(cls, path))
    given = json.dumps(first["input"], default=str)
    return error(f"{path} is {given}: {_sentence(first['msg'])}", where=place, hint=_help_of(cls, path))


def _help_of(cls: type[Any], path: str) -> str | None:
    return next((f"{o.name}: {o.text}" for o in describe(cls) if o.name == path.split(".")[0] and o.text), None)


def _sentence(message: str) -> str:
    return message.removeprefix("Value error, ").replace("Input should", "it should")
