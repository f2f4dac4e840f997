"""Models → files, whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir

from onnxopt.errors import OutputError, UsageError
from onnxopt.ir.model import Model
from onnxopt.ir.traverse import all_nodes, all_tensors

PROTOBUF_LIMIT = 2_000_000_000
"""Bytes; protobuf refuses messages of 2 GiB, and the structure needs room beside the tensors."""


def write_model(model: Model, path: Path | str, *, external_above: int = PROTOBUF_LIMIT) -> tuple[Path, ...]:
    """Write a model under its final name only when it is complete.

    Args:
        model: What to write.
        path: The ``.onnx`` file to write; its folder is made.
        external_above: Total size of tensors, in bytes, from which they go to ``<path>.data`` beside it.

    Returns:
        The files written, the model first.

    Raises:
        OutputError: The folder cannot be written or is full. Nothing is left behind.
    """
    path = Path(path)
    external = f"{path.name}.data" if tensors_size(model.graph) > external_above else None
    with replaced_files(path.parent) as folder:
        _save(model.graph, folder / path.name, external)
        names = [name for name in (external, path.name) if name]
    return tuple(path.parent / name for name in reversed(names))


def tensors_size(graph: onnx_ir.Model) -> int:
    """Return the bytes of all distinct tensors of a model."""
    return sum({id(tensor): tensor.nbytes for _, tensor in all_tensors(graph)}.values())


def files_size(graph: onnx_ir.Model, path: Path) -> int:
    """Return the bytes of a model's file and of every file its external tensors lie in."""
    return sum(file.stat().st_size for file in model_files(graph, path))


def model_files(graph: onnx_ir.Model, path: Path) -> set[Path]:
    """Return a model's file and those its external tensors lie in."""
    return {path, *(Path(t.path) for _, t in all_tensors(graph) if isinstance(t, onnx_ir.ExternalTensor))}


def refuse_overwriting(model: Path, graph: onnx_ir.Model, out: Path) -> None:
    """Raise UsageError if writing a model to ``out`` would overwrite the input, or weights it keeps beside itself."""
    own = {
        model.resolve(),
        *(Path(t.path).resolve() for _, t in all_tensors(graph) if isinstance(t, onnx_ir.ExternalTensor)),
    }
    for written in (out, out.with_name(f"{out.name}.data")):
        if written.resolve() in own:
            raise UsageError(f"{written} belongs to the input and would be overwritten", hint="choose another --out")


def check_folder(folder: Path) -> None:
    """Raise OutputError if results could not be written into a folder, which need not be there yet."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise OutputError(f"{there} is a file, and a folder is wanted", hint="choose another --out folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"{there} cannot be written", hint="choose another --out folder")


@contextmanager
def replaced_files(folder: Path) -> Iterator[Path]:
    """Give a temporary folder whose files move into ``folder`` at the end, or vanish on any error.

    A file's name appears in ``folder`` only when its content is complete; files with an extension other than
    ``.onnx`` move first, so that a model never appears before its external data.
    """
    scratch: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".onnxopt-", dir=folder))
        yield scratch
        files = (file for file in scratch.rglob("*") if file.is_file())
        for file in sorted(files, key=lambda file: file.suffix == ".onnx"):
            final = folder / file.relative_to(scratch)
            final.parent.mkdir(parents=True, exist_ok=True)
            file.replace(final)
    except OSError as error:
        raise _output_error(error, folder) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Write texts into files by name, each whole or not at all.

    Raises:
        OutputError: The folder cannot be written or is full.
    """
    with replaced_files(folder) as scratch:
        for name, text in texts.items():
            (scratch / name).write_text(text)


def _save(graph: onnx_ir.Model, path: Path, external: str | None) -> None:
    if external is not None:
        onnx_ir.save(_attributes_in_memory(graph), path, external_data=external)
        return
    clone = _attributes_in_memory(graph)
    if _has_external(clone):
        clone = onnx_ir.external_data.load_to_model(graph.clone() if clone is graph else clone)
    onnx.save(onnx_ir.to_proto(clone), path)


def _has_external(graph: onnx_ir.Model) -> bool:
    return any(isinstance(tensor, onnx_ir.ExternalTensor) for _, tensor in all_tensors(graph))


def _attributes_in_memory(graph: onnx_ir.Model) -> onnx_ir.Model:
    """Return the graph, or a clone of it whose Constant nodes hold no external tensor (onnx-ir moves initializers)."""
    if not any(_external_attributes(node) for node in all_nodes(graph)):
        return graph
    clone = graph.clone()
    for node in all_nodes(clone):
        for attribute in _external_attributes(node):
            tensor = attribute.as_tensor()
            node.attributes[attribute.name] = onnx_ir.AttrTensor(
                attribute.name, onnx_ir.Tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=tensor.name)
            )
    return clone


def _external_attributes(node: onnx_ir.Node) -> list[onnx_ir.Attr]:
    return [
        attribute
        for attribute in node.attributes.values()
        if attribute.type == onnx_ir.AttributeType.TENSOR
        and not attribute.is_ref()
        and isinstance(attribute.as_tensor(), onnx_ir.ExternalTensor)
    ]


def _output_error(error: OSError, folder: Path) -> OutputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"no space left to write in {folder}", hint="free some space; nothing half-written was left")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"{folder} cannot be written: {error.strerror}", hint="choose another --out folder")
    return OutputError(f"cannot write in {folder}: {error.strerror or error}", hint="choose another --out folder")
