"""Files → models. Damaged, truncated, foreign and hostile files are refused with the reason."""

from __future__ import annotations

import math
from pathlib import Path

import onnx
import onnx_ir
from google.protobuf.message import DecodeError

from onnxopt.errors import ModelError, UsageError
from onnxopt.ir.check import check_structure
from onnxopt.ir.model import Model, Step, normalise
from onnxopt.ir.traverse import all_tensors

_TRUNCATED = "the file looks cut short or damaged: copy or export it again"


def read_model(path: Path | str) -> Model:
    """Read a model; external tensors stay on disk and are memory-mapped when they are used.

    Args:
        path: An ``.onnx`` file (or ``.textproto``, ``.json``, ``.onnxtxt``: what ``onnx.load`` knows).

    Raises:
        UsageError: There is no such file.
        ModelError: The file is not a model that can be trusted: not ONNX, damaged, from a newer ONNX, or with
            external data that is missing, short, or outside the model's folder.
    """
    path = Path(path)
    _check_file(path)
    graph = _parse(path)
    _check_versions(graph, path)
    _check_tensors(graph, path)
    check_structure(graph, str(path))
    normalise(graph)
    return _with_origin(graph, path)


def _with_origin(graph: onnx_ir.Model, path: Path) -> Model:
    model = Model(graph)
    return Model(graph, (Step("read", {"path": str(path)}, model.digest),))


def _check_file(path: Path) -> None:
    if path.is_dir():
        found = sorted(path.glob("*.onnx"))
        hint = f"did you mean {found[0]}?" if found else "give the .onnx file itself"
        raise UsageError(f"{path} is a folder, not a model file", hint=hint)
    if not path.exists():
        raise UsageError(f"there is no file {path}", hint="check the path of the model")
    if path.stat().st_size == 0:
        raise ModelError(f"{path} is empty", hint=_TRUNCATED)


def _parse(path: Path) -> onnx_ir.Model:
    try:
        proto = onnx.load(path, load_external_data=False)
        if not proto.HasField("graph"):
            raise ModelError(f"{path} is no ONNX model: it holds no graph", hint=_TRUNCATED)
        graph = onnx_ir.from_proto(proto)
    except (DecodeError, ValueError, TypeError, KeyError, RecursionError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{path} is no ONNX model: {reason}", hint=_TRUNCATED) from error
    except PermissionError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", hint="check its permissions") from error
    onnx_ir.external_data.set_base_dir(graph.graph, path.parent.resolve())
    return graph


def _check_versions(graph: onnx_ir.Model, path: Path) -> None:
    newest = onnx.defs.onnx_opset_version()
    opset = graph.opset_imports.get("", graph.opset_imports.get("ai.onnx"))
    hint = f"install a newer onnx (this is {onnx.__version__}), or export the model with an older opset"
    if opset is not None and opset > newest:
        raise ModelError(
            f"the model wants opset {opset}, the newest known here is {newest}", where=str(path), hint=hint
        )
    if (graph.ir_version or 0) > onnx.IR_VERSION:
        raise ModelError(
            f"the model has IR version {graph.ir_version}, the newest known here is {onnx.IR_VERSION}",
            where=str(path),
            hint=hint,
        )


def _check_tensors(graph: onnx_ir.Model, path: Path) -> None:
    for place, tensor in all_tensors(graph):
        where = f"{path}: {place}"
        if any(isinstance(dim, int) and dim < 0 for dim in tensor.shape):
            raise ModelError(f"a tensor has the negative shape {tensor.shape}", where=where, hint=_TRUNCATED)
        if isinstance(tensor, onnx_ir.ExternalTensor):
            _check_external(tensor, path.parent.resolve(), where)
        elif isinstance(tensor, onnx_ir.serde.TensorProtoTensor):
            _check_inline(tensor.raw, tensor, where)


def _check_external(tensor: onnx_ir.ExternalTensor, folder: Path, where: str) -> None:
    location = str(tensor.location)
    target = (folder / location).resolve()
    if not location or Path(location).is_absolute() or not target.is_relative_to(folder):
        raise ModelError(
            f"external data {location!r} lies outside the model's folder",
            where=where,
            hint="external data must sit beside the model; do not use this file if you do not know its author",
        )
    if not target.is_file():
        raise ModelError(f"the external data file {location!r} is missing", where=where, hint=f"put it into {folder}")
    end = (tensor.offset or 0) + (tensor.length if tensor.length is not None else tensor.nbytes)
    if (tensor.offset or 0) < 0 or end > target.stat().st_size or end - (tensor.offset or 0) < tensor.nbytes:
        raise ModelError(
            f"tensor {tensor.name!r} needs {tensor.nbytes} bytes at offset {tensor.offset or 0} of {location!r},"
            f" which has {target.stat().st_size}",
            where=where,
            hint=_TRUNCATED,
        )


def _check_inline(proto: onnx.TensorProto, tensor: onnx_ir.TensorProtocol, where: str) -> None:
    if tensor.dtype in (onnx_ir.DataType.UNDEFINED, onnx_ir.DataType.STRING):
        return
    if proto.HasField("raw_data"):
        have, want = len(proto.raw_data), math.ceil(tensor.size * tensor.dtype.bitwidth / 8)
        if have != want:
            raise ModelError(
                f"tensor {tensor.name!r} {tensor.shape} needs {want} bytes and has {have}", where=where, hint=_TRUNCATED
            )
    elif tensor.size and not any(
        (proto.float_data, proto.int32_data, proto.int64_data, proto.double_data, proto.uint64_data)
    ):
        raise ModelError(f"tensor {tensor.name!r} {tensor.shape} holds no values", where=where, hint=_TRUNCATED)
