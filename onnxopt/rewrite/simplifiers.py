"""Other projects' simplifiers and fusions, each in a process of its own because they are known to crash."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import onnx_ir

from onnxopt.compile.isolation import Limits, run_isolated
from onnxopt.errors import EngineError, PassError
from onnxopt.ir.model import Model
from onnxopt.ir.read import read_model
from onnxopt.ir.write import write_model

Simplifier = Literal["onnxslim", "onnxsim"]
Fuser = Literal["bert", "gpt2", "vit"]

FUSERS: tuple[Fuser, ...] = ("bert", "gpt2", "vit")
"""Families of transformers whose attention ``onnxruntime.transformers`` knows; the others are variants of these."""


def is_installed(name: Simplifier) -> bool:
    """Whether the simplifier's package is there."""
    return find_spec(name) is not None


def run_fuser(name: Fuser, graph: onnx_ir.Model, folder: Path, limits: Limits | None = None) -> onnx_ir.Model:
    """Return a model with what ONNX Runtime's transformer optimizer fuses: its own operators, which only it runs.

    Raises:
        PassError: It failed, crashed or did not end in time.
    """
    return _run("fuse_for_onnxruntime", graph, folder, limits, name)


def run_simplifier(name: Simplifier, graph: onnx_ir.Model, folder: Path, limits: Limits | None = None) -> onnx_ir.Model:
    """Return what a simplifier makes of a model; inputs it dropped because nothing reads them are put back.

    Raises:
        PassError: It failed, crashed or did not end in time.
    """
    return _run(f"simplify_with_{name}", graph, folder, limits)


def simplify_with_onnxslim(before: str, after: str) -> None:
    """Run OnnxSlim; called in the child."""
    import onnxslim

    onnxslim.slim(before, after)


def simplify_with_onnxsim(before: str, after: str) -> None:
    """Run onnxsim; called in the child."""
    import onnx
    import onnxsim

    model, _ = onnxsim.simplify(onnx.load(before))
    onnx.save(model, after)


def fuse_for_onnxruntime(before: str, after: str, kind: str) -> None:
    """Run ``onnxruntime.transformers``, which finds the number of heads itself; called in the child."""
    from onnxruntime.transformers.optimizer import optimize_model

    fused = optimize_model(before, model_type=kind, num_heads=0, hidden_size=0, opt_level=0)
    fused.save_model_to_file(after)


def _run(function: str, graph: onnx_ir.Model, folder: Path, limits: Limits | None, *arguments: str) -> onnx_ir.Model:
    name = "-".join((function, *arguments))
    before, after = folder / f"before-{name}.onnx", folder / f"after-{name}.onnx"
    write_model(Model(graph), before)
    place = f"onnxopt.rewrite.simplifiers:{function}"
    try:
        run_isolated(place, str(before), str(after), *arguments, limits=limits)
    except EngineError as error:
        raise PassError(error.what) from error
    result = read_model(after).graph
    _restore_inputs(graph, result)
    return result


def _restore_inputs(original: onnx_ir.Model, result: onnx_ir.Model) -> None:
    """Put back inputs nothing reads: they are part of the interface. Order as in the original."""
    kept: Mapping[str | None, onnx_ir.Value] = {value.name: value for value in result.graph.inputs}
    inputs = [
        kept.get(value.name) or onnx_ir.Value(name=value.name, type=value.type, shape=value.shape)
        for value in original.graph.inputs
        if not value.is_initializer()
    ]
    result.graph.inputs[:] = inputs
