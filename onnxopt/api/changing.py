"""Apply passes to a model file, each verified if it must not change the answer."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from onnxopt.api.arguments import Place, cache_at, calibration_of, ignore, onnx_file
from onnxopt.errors import UsageError
from onnxopt.ir.read import read_model
from onnxopt.ir.write import refuse_overwriting, write_model
from onnxopt.passes import Pass, make_pass
from onnxopt.pipeline.events import Listener
from onnxopt.pipeline.making import Maker, ModelFile
from onnxopt.pipeline.steps import CachedSteps
from onnxopt.targets.target import target


def apply_pass(
    model: Place,
    name: str,
    options: Mapping[str, Any],
    out: Place,
    *,
    data: str | None = None,
    cache: Place | None = None,
    verify: bool = True,
    seed: int = 0,
    original: Place | None = None,
    listen: Listener | None = None,
) -> ModelFile:
    """Apply one pass to a model file, verify it if it must not change the answer, and write the result.

    Args:
        model: The ``.onnx`` file.
        name: Of the pass.
        options: Its fields.
        out: The file to write.
        data: Calibration samples, as ``--data``.
        cache: Folder of results.
        verify: Whether to hold the pass to its promise.
        seed: Of every random choice.
        original: The file before it was changed, for a pass that holds the model against it.
        listen: Told what happens.

    Raises:
        OnnxoptError: The model, the options or the data cannot be used, or the answer changed.
    """
    change = make_pass(name, options, where=f"options of {name}")
    return _apply(Path(model), (change,), Path(out), data, cache, verify, seed, listen, original)


def bucket_shapes(
    model: Place,
    dims: Mapping[str, Sequence[int]],
    out: Place,
    *,
    data: str | None = None,
    cache: Place | None = None,
    verify: bool = True,
    seed: int = 0,
    listen: Listener | None = None,
) -> tuple[ModelFile, ...]:
    """Write a model for each combination of sizes, its shapes fixed, rewritten and verified, as NAME-DIM8-….onnx.

    Args:
        model: The ``.onnx`` file.
        dims: Sizes by the dimension's name, or by INPUT.AXIS where it has none.
        out: The folder to write to.
        data: Calibration samples, as ``--data``; those of other sizes verify nothing.
        cache: Folder of results.
        verify: Whether to hold each model to the one it was made from.
        seed: Of every random choice.
        listen: Told what happens.

    Raises:
        UsageError: There are no sizes, or too many combinations.
        OnnxoptError: The model cannot take a size, or the answer changed; models written before stay.
    """
    combinations = [dict(zip(dims, sizes, strict=True)) for sizes in product(*dims.values())]
    if not dims or not 1 <= len(combinations) <= _MOST_BUCKETS:
        raise UsageError(
            f"the sizes make {len(combinations) if dims else 0} models",
            hint=f"name sizes for 1 to {_MOST_BUCKETS} models",
        )
    made = []
    for sizes in combinations:
        name = "-".join((Path(model).stem, *(f"{_in_file_name(dim)}{size}" for dim, size in sizes.items())))
        passes = (make_pass("fix-shapes", {"dims": sizes}), make_pass("rewrite"))
        made.append(_apply(Path(model), passes, Path(out) / f"{name}.onnx", data, cache, verify, seed, listen))
    return tuple(made)


_MOST_BUCKETS = 64


def _apply(
    model: Path,
    changes: Sequence[Pass],
    out: Path,
    data: str | None,
    cache: Place | None,
    verify: bool,
    seed: int,
    listen: Listener | None,
    original: Place | None = None,
) -> ModelFile:
    """Apply passes one after the other, each verified if it must not change the answer, and write the result."""
    read = read_model(model)
    refuse_overwriting(model, read.graph, onnx_file(out))
    samples = calibration_of(data, read, seed)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onnxopt-")))
        steps = CachedSteps(cache_at(cache), listen or ignore, f"{changes[0].name} {model.resolve()}")
        maker = Maker(steps, target(), samples, scratch, seed=seed, verify=verify)
        stack.callback(maker.close)
        made = maker.add(model, read)
        if original is not None:
            made = replace(made, original=maker.add(Path(original), read_model(original)))
        for change in changes:
            made = maker.apply(change, made)
        write_model(maker.load(made), out)
        return replace(made, path=out)


def _in_file_name(dim: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in dim)
