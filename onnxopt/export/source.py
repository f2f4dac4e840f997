"""What is exported: a torch module with example inputs, from a user's function or a ``.pt2`` file."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from onnxopt.errors import MissingExtraError, ModelError, UsageError
from onnxopt.export.archive import pickle_reason, refuse_code
from onnxopt.user_code import call_user, load_function

_RETURN = "return (module, example) where example is a tensor, a tuple of tensors, or a dict of them by argument"


@dataclass(frozen=True)
class Source:
    """A module and what it was called with.

    Attributes:
        module: In evaluation mode, on the CPU.
        example: Tensors by argument name, in the order of the arguments.
        name: Where it came from.
        program: The exported program a ``.pt2`` file held; None for a module.
    """

    module: torch.nn.Module
    example: Mapping[str, torch.Tensor]
    name: str
    program: torch.export.ExportedProgram | None = None


def open_source(place: str, weights: Path | None = None) -> Source:
    """Open ``module:function`` or a ``.pt2`` file.

    Raises:
        UsageError: There is no such thing, the function returns something else, or the module is in training mode.
        ModelError: The file or the weights cannot be read, or do not fit.
    """
    source = _from_file(Path(place)) if place.endswith(".pt2") else _from_function(place)
    if weights is not None:
        load_weights(source.module, weights)
    _refuse_training(source)
    return source


def load_weights(module: torch.nn.Module, path: Path) -> None:
    """Load a state dict with ``weights_only``: nothing in the file runs.

    Raises:
        ModelError: It cannot be read as tensors alone, or keys or shapes do not fit.
    """
    try:
        module.load_state_dict(_read_weights(path), strict=True)
    except RuntimeError as error:
        problem = " ".join(line.strip() for line in str(error).splitlines()[1:]) or str(error)
        raise ModelError(f"the weights do not fit the module: {problem}", where=str(path)) from error


def _read_weights(path: Path) -> Mapping[str, torch.Tensor]:
    if not path.is_file():
        raise UsageError(f"there is no file {path}", hint="check --weights")
    if path.suffix == ".safetensors":
        try:
            from safetensors.torch import load_file
        except ModuleNotFoundError as error:
            raise MissingExtraError("safetensors is not installed", hint="pip install safetensors") from error
        try:
            tensors: Mapping[str, torch.Tensor] = load_file(path)
        except Exception as error:
            raise ModelError(f"the weights cannot be read: {error}", where=str(path)) from error
        return tensors
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        hint = "only plain state dicts are loaded: save module.state_dict()"
        raise ModelError(f"the weights cannot be read: {pickle_reason(error)}", where=str(path), hint=hint) from error
    inner = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else loaded
    if not isinstance(inner, Mapping):
        raise ModelError(f"the file holds a {type(inner).__name__}, no state dict", where=str(path))
    return inner


def _from_function(place: str) -> Source:
    returned = call_user(load_function(place), place)
    if not isinstance(returned, tuple) or len(returned) != 2 or not isinstance(returned[0], torch.nn.Module):
        raise UsageError(f"{place} returned {type(returned).__name__}, not (module, example)", hint=_RETURN)
    module, example = returned
    return Source(module, _named(module, example, place), place)


def _from_file(path: Path) -> Source:
    if not path.is_file():
        raise UsageError(f"there is no file {path}", hint="give a .pt2 file of torch.export.save")
    refuse_code(path)
    try:
        program = torch.export.load(path)
    except Exception as error:
        raise ModelError(f"{path} is no exported program: {str(error).splitlines()[0]}") from error
    if program.example_inputs is None:
        raise ModelError(f"{path} holds no example inputs", hint="save it with those it was exported with")
    args, kwargs = program.example_inputs
    module = program.module()
    named = _named(module, args, str(path)) if args else {}
    return Source(module, {**named, **kwargs}, str(path), program)


def _named(module: torch.nn.Module, example: Any, place: str) -> dict[str, torch.Tensor]:
    """Return example tensors by the argument of ``forward`` they are for."""
    names = list(inspect.signature(module.forward).parameters)
    if isinstance(example, torch.Tensor):
        example = (example,)
    if isinstance(example, Mapping):
        ordered = {name: example[name] for name in names if name in example}
        named = ordered if len(ordered) == len(example) else dict(example)
    elif isinstance(example, Sequence):
        if len(example) > len(names):
            raise UsageError(
                f"{place}: the example has {len(example)} tensors, forward takes {len(names)}: {', '.join(names)}",
                hint="give forward one named argument for each tensor",
            )
        named = dict(zip(names, example, strict=False))
    else:
        raise UsageError(f"{place}: the example is a {type(example).__name__}", hint=_RETURN)
    if not named or not all(isinstance(tensor, torch.Tensor) for tensor in named.values()):
        raise UsageError(f"{place}: the example holds something that is no tensor", hint=_RETURN)
    return named


def _refuse_training(source: Source) -> None:
    if source.program is not None:
        return
    training = [name or "the module" for name, module in source.module.named_modules() if module.training]
    if training:
        raise UsageError(
            f"{source.name}: {training[0]} is in training mode, its dropout and batch norm would be exported as such",
            hint="call module.eval() before returning it",
        )
