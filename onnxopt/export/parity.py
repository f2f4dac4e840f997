"""Does the exported model compute what the module does, also for sizes that were not traced?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from onnxopt.compile.isolation import IsolatedEngine
from onnxopt.compile.ort import OnnxRuntime
from onnxopt.errors import EngineError, VerificationError
from onnxopt.export.dynamic import DynamicDim
from onnxopt.export.source import Source
from onnxopt.targets.target import local_target

MAX_ERROR = 1e-4
"""Largest difference allowed, as a share of the output's largest absolute value."""
_SEEDS = 2


@dataclass(frozen=True, slots=True)
class Parity:
    """One comparison.

    Attributes:
        shapes: Of the inputs, by name.
        error: Largest difference over all outputs, as a share of the output's largest absolute value.
        traced: Whether these were the shapes of the example.
    """

    shapes: dict[str, tuple[int, ...]]
    error: float
    traced: bool


def check_parity(source: Source, path: Path, dims: Sequence[DynamicDim]) -> tuple[Parity, ...]:
    """Return comparisons with the module, for several seeds at each size.

    Raises:
        VerificationError: An output differs by more than ``MAX_ERROR``, or a size within the range does not run.
    """
    found = []
    with IsolatedEngine(OnnxRuntime(), path, local_target()) as engine:
        names = [port.name for port in engine.signature.inputs]
        if len(names) != len(source.example):
            raise VerificationError(
                f"the exported model takes {', '.join(names) or 'nothing'}, the module {', '.join(source.example)}",
                hint="the module leaves torch, and what it made of the example was frozen into the model",
            )
        for example in _examples(source.example, dims):
            shapes = {name: tuple(tensor.shape) for name, tensor in example.items()}
            feeds = {name: tensor.numpy() for name, tensor in zip(names, example.values(), strict=True)}
            try:
                results = list(engine.run(feeds).values())
            except EngineError as refused:
                what = f"the exported model does not run: {refused.what}"
                raise VerificationError(what, where=f"shapes {shapes}") from refused
            error = _error(_call(source.module, example), results, shapes)
            traced = all(tuple(source.example[name].shape) == shape for name, shape in shapes.items())
            found.append(Parity(shapes, error, traced))
    return tuple(found)


def _examples(example: Mapping[str, torch.Tensor], dims: Sequence[DynamicDim]) -> Iterator[dict[str, torch.Tensor]]:
    """Yield inputs of the traced sizes, and of other sizes of each dynamic dimension.

    The example with its sign turned is one: it takes the other side of most branches on values.
    """
    yield dict(example)
    yield {name: -tensor if tensor.is_floating_point() else tensor for name, tensor in example.items()}
    for seed in range(_SEEDS):
        yield {name: _random(tensor, tuple(tensor.shape), seed) for name, tensor in example.items()}
        for dim in dims:
            traced = next(t.shape[axis] for n, t in example.items() for axis in dim.axes_of(n))
            for size in dim.untraced(traced):
                yield {n: _random(t, _resized(t, dim.axes_of(n), size), seed) for n, t in example.items()}


def _resized(tensor: torch.Tensor, axes: Sequence[int], size: int) -> tuple[int, ...]:
    return tuple(size if axis in axes else old for axis, old in enumerate(tensor.shape))


def _random(like: torch.Tensor, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Return random values in the range of the example: indices stay valid, floats keep mean and deviation."""
    generator = torch.Generator().manual_seed(seed)
    if like.dtype == torch.bool:
        return torch.rand(shape, generator=generator) < 0.5
    if not like.dtype.is_floating_point:
        low, high = int(like.min()), int(like.max())
        return torch.randint(low, high + 1, shape, generator=generator).to(like.dtype)
    spread = float(like.std()) if like.numel() > 1 else 1.0
    return (torch.randn(shape, generator=generator) * (spread or 1.0) + float(like.mean())).to(like.dtype)


def output_names(source: Source) -> list[str]:
    """Return a name for each output: the keys of a dict, else ``output``, or ``output_0`` and so on."""
    with torch.no_grad():
        returned = source.module(*source.example.values())
    if isinstance(returned, Mapping):
        return [str(key) for key in returned]
    count = len(list(_tensors(returned)))
    return ["output"] if count == 1 else [f"output_{index}" for index in range(count)]


def _call(module: torch.nn.Module, example: Mapping[str, torch.Tensor]) -> list[np.ndarray]:
    with torch.no_grad():
        returned = module(*example.values())
    return [tensor.detach().numpy() for tensor in _tensors(returned)]


def _tensors(returned: object) -> Iterator[torch.Tensor]:
    """Yield the tensors of what a module returns, in the exporter's order."""
    if isinstance(returned, torch.Tensor):
        yield returned
    elif isinstance(returned, Mapping):
        for value in returned.values():
            yield from _tensors(value)
    elif isinstance(returned, (tuple, list)):
        for value in returned:
            yield from _tensors(value)


def _error(want: Sequence[np.ndarray], have: Sequence[np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> float:
    if len(want) != len(have):
        raise VerificationError(f"the module has {len(want)} outputs, the exported model {len(have)}")
    worst = 0.0
    for index, (a, b) in enumerate(zip(want, have, strict=True)):
        error = _relative(a, b)
        if not error <= MAX_ERROR:
            raise VerificationError(
                f"output {index} of the exported model differs from the module's by {error:.2g} of its largest value",
                where=f"shapes {dict(shapes)}",
                hint="the module may branch on sizes or values; export with fixed sizes, or report the operator",
            )
        worst = max(worst, error)
    return worst


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest difference as a share of the largest value; NaN and infinities must be in the same places."""
    if a.shape != b.shape:
        return float("inf")
    a, b = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(b[finite]).all():
        return float("inf")
    scale = float(np.abs(a[finite]).max(initial=0.0))
    largest = float(np.abs(a[finite] - b[finite]).max(initial=0.0))
    return largest / scale if scale else (0.0 if not largest else float("inf"))
