"""Exporting: torch's own exporter, what it leaves undone, and a check against the module."""

from __future__ import annotations

import copy
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir
import onnx_ir.passes.common as onnx_ir_passes
import torch

from onnxopt.errors import PassError, UsageError
from onnxopt.export.dynamic import DynamicDim, check_inputs, parse_dynamic
from onnxopt.export.parity import Parity, check_parity, output_names
from onnxopt.export.source import Source, open_source
from onnxopt.ir.cleanup import remove_identities, remove_unused
from onnxopt.ir.fold import fold
from onnxopt.ir.model import Model, Step, normalise
from onnxopt.ir.opset import convert
from onnxopt.ir.write import check_folder, write_model


@dataclass(frozen=True)
class Exported:
    """What an export came to.

    Attributes:
        model: The model.
        exporter: ``dynamo``, or ``torchscript`` where dynamo failed.
        reason: Why it was not dynamo; None if it was.
        parity: Comparisons with the module.
        parameters: Names of the module's parameters found under the same name, and those that were not.
    """

    model: Model
    exporter: str
    reason: str | None
    parity: tuple[Parity, ...]
    parameters: tuple[tuple[str, ...], tuple[str, ...]]


def export_model(
    place: str,
    out: Path,
    *,
    weights: Path | None = None,
    dynamic: Sequence[str] | Mapping[str, str] = (),
    opset: int = 18,
) -> Exported:
    """Export a torch module, write it, and check it against the module.

    Args:
        place: ``module:function`` returning (module, example), or a ``.pt2`` file.
        out: The ``.onnx`` file to write.
        weights: A state dict to load first.
        dynamic: Dimensions that may vary; see ``export.dynamic``.
        opset: Of the result; it has exactly this one.

    Raises:
        UsageError: The module or the options cannot be used.
        ModelError: The weights do not fit.
        PassError: No exporter can do it; each one's reason is given.
        VerificationError: The result does not compute what the module does. Nothing is written then.
    """
    check_folder(out.parent)
    source = open_source(place, weights)
    dims = parse_dynamic(dynamic)
    check_inputs(dims, {name: tuple(tensor.shape) for name, tensor in source.example.items()})
    graph, exporter, reason = _export(source, dims, opset)
    model = _as_model(graph, source, opset)
    with _beside(out) as draft:
        write_model(model, draft)
        parity = check_parity(source, draft, dims)
    write_model(model, out)
    return Exported(model, exporter, reason, parity, _parameters(source.module, graph))


def _export(source: Source, dims: Sequence[DynamicDim], opset: int) -> tuple[onnx_ir.Model, str, str | None]:
    """Return the graph, the exporter's name, and why the first choice failed."""
    problems = []
    for name, attempt in (("dynamo", _with_dynamo), ("torchscript", _with_torchscript)):
        try:
            with _quiet():
                graph = _at_opset(attempt(source, dims, opset), source, opset)
        except UsageError:
            raise
        except Exception as error:  # noqa: BLE001  (exporters raise anything; all reasons are told below)
            problems.append(f"{name}: {_reason(error)}")
            continue
        return graph, name, problems[0] if problems else None
    raise PassError(
        f"the module cannot be exported: {'; '.join(problems)}", where=source.name, hint="--debug shows the traceback"
    )


def _with_dynamo(source: Source, dims: Sequence[DynamicDim], opset: int) -> onnx_ir.Model:
    """Export without the exporter's optimiser, which ties parameters that happen to be equal."""
    shapes = {name: _torch_dims(name, dims) for name in source.example}
    program = torch.onnx.export(
        source.program or source.module,
        () if source.program else tuple(source.example.values()),
        dynamo=True,
        optimize=False,
        verbose=False,
        opset_version=max(opset, 18),
        output_names=output_names(source),
        dynamic_shapes=None if source.program else shapes,
    )
    assert program is not None
    graph: onnx_ir.Model = program.model
    return graph


def _with_torchscript(source: Source, dims: Sequence[DynamicDim], opset: int) -> onnx_ir.Model:
    """Export a twin whose parameters all differ, then put the real values in: this exporter ties equal ones."""
    if source.program is not None:
        raise PassError("a .pt2 file can only be exported by dynamo")
    twin = _distinct(source.module)
    stream = io.BytesIO()
    names = list(source.example)
    axes = {name: {axis: dim.name for dim in dims for axis in dim.axes_of(name)} for name in names}
    torch.onnx.export(
        twin,
        tuple(source.example.values()),
        stream,
        dynamo=False,
        opset_version=min(opset, 20),
        input_names=names,
        output_names=output_names(source),
        dynamic_axes={name: found for name, found in axes.items() if found},
        do_constant_folding=False,
        training=torch.onnx.TrainingMode.PRESERVE,
    )
    graph = onnx_ir.from_proto(onnx.load_from_string(stream.getvalue()))
    for name, tensor in source.module.state_dict().items():
        if name in graph.graph.initializers:
            graph.graph.initializers[name].const_value = onnx_ir.tensor(tensor.numpy(), name=name)
    return graph


def _distinct(module: torch.nn.Module) -> torch.nn.Module:
    """Return a copy in which no two floating-point parameters or buffers are equal."""
    twin = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (*twin.parameters(), *twin.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return twin


def _torch_dims(name: str, dims: Sequence[DynamicDim]) -> dict[int, Any]:
    made = {dim.name: torch.export.Dim(dim.name, min=dim.low, max=dim.high) for dim in dims}
    return {axis: made[dim.name] for dim in dims for axis in dim.axes_of(name)}


def _at_opset(graph: onnx_ir.Model, source: Source, opset: int) -> onnx_ir.Model:
    """Return the graph in the opset asked for: exporters are known to stay at another one and say nothing."""
    onnx_ir_passes.InlinePass()(graph)
    _tidy(graph, source)
    return graph if graph.opset_imports.get("") == opset else convert(graph, opset)


def _tidy(graph: onnx_ir.Model, source: Source) -> None:
    """Fold shape arithmetic and drop what is unused; the module's parameters stay as they are."""
    remove_identities(graph)
    fold(graph, growth=0, keep=frozenset(source.module.state_dict()))
    remove_unused(graph)


def _as_model(graph: onnx_ir.Model, source: Source, opset: int) -> Model:
    _tidy(graph, source)
    onnx_ir_passes.ClearMetadataAndDocStringPass()(graph)
    normalise(graph)
    model = Model(graph)
    return Model(graph, (Step("export", {"source": source.name, "opset": opset}, model.digest),))


def _parameters(module: torch.nn.Module, graph: onnx_ir.Model) -> tuple[tuple[str, ...], tuple[str, ...]]:
    names = [name for name, _ in module.named_parameters()]
    kept = tuple(name for name in names if name in graph.graph.initializers)
    return kept, tuple(name for name in names if name not in kept)


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """Give a path for a draft beside the final file, gone afterwards with its external data."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".onnxopt-", dir=out.parent) as folder:
        yield Path(folder) / out.name


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' warnings and logs off the terminal; what goes wrong is raised."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
