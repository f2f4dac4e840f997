"""Files → models. Damaged, truncated, foreign and hostile files are refused with the reason."""

from __future__ import annotations

import math
from pathlib import Path

import onnx
import onnx_ir
from google.protobuf import json_format, text_format
from google.protobuf.message import DecodeError, Message

from onnxopt.errors import ModelError, UsageError
from onnxopt.ir.check import check_structure
from onnxopt.ir.model import Model, Step, normalise
from onnxopt.ir.traverse import all_tensors

_TRUNCATED = "the file looks cut short or damaged: copy or export it again"
_PARSE_ERRORS = (
    DecodeError,
    json_format.ParseError,
    text_format.ParseError,
    onnx.parser.ParseError,
    onnx_ir.serde.SerdeError,
    ValueError,
    TypeError,
    KeyError,
    RecursionError,
)
"""What onnx, its four file formats and onnx-ir raise at a file that is no model."""

_NO_EXTERNAL = frozenset({onnx_ir.DataType.UNDEFINED, onnx_ir.DataType.STRING})


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
    normalise(graph, str(path))
    return _with_origin(graph, path)


def _with_origin(graph: onnx_ir.Model, path: Path) -> Model:
    model = Model(graph)
    return Model(graph, (Step("read", {"path": str(path)}, model.digest),))


def _check_file(path: Path) -> None:
    try:
        size = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise UsageError(f"there is no file {path}", hint="check the path of the model") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", hint="check its permissions") from error
    if path.is_dir():
        found = sorted(path.glob("*.onnx"))
        hint = f"did you mean {found[0]}?" if found else "give the .onnx file itself"
        raise UsageError(f"{path} is a folder, not a model file", hint=hint)
    if size == 0:
        raise ModelError(f"{path} is empty", hint=_TRUNCATED)


def _parse(path: Path) -> onnx_ir.Model:
    try:
        proto = onnx.load(path, load_external_data=False)
        _check_message(proto, path)
        graph = onnx_ir.from_proto(proto)
        _set_folder(graph, path.parent.resolve())
    except _PARSE_ERRORS as error:
        raise ModelError(f"{path} is no ONNX model: {_reason(error)}", hint=_TRUNCATED) from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", hint="check its permissions") from error
    _spell_default_domain(graph.opset_imports)
    for function in graph.functions.values():
        _spell_default_domain(function.opset_imports)
    return graph


def _set_folder(graph: onnx_ir.Model, folder: Path) -> None:
    """Let external tensors be read from there; onnx-ir's own function leaves those of functions to the cwd."""
    for _, tensor in all_tensors(graph):
        if isinstance(tensor, onnx_ir.ExternalTensor):
            tensor.base_dir = folder


def _check_message(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse what onnx-ir would drop or take as it is."""
    if not proto.HasField("graph"):
        raise ModelError(f"{path} is no ONNX model: it holds no graph", hint=_TRUNCATED)
    if proto.graph.sparse_initializer:
        name = proto.graph.sparse_initializer[0].values.name
        raise ModelError(f"the weight {name!r} is sparse", where=str(path), hint="store it as a dense initializer")
    if not _texts_are_readable(proto):
        raise ModelError(f"{path} is no ONNX model: a name in it is no UTF-8", hint=_TRUNCATED)


def _texts_are_readable(message: Message) -> bool:
    """Whether every text is UTF-8; protobuf hands out what is not as bytes."""
    for field, value in message.ListFields():
        parts = [value] if isinstance(value, (Message, str, bytes)) else value
        if field.type == field.TYPE_STRING and any(isinstance(part, bytes) for part in parts):
            return False
        if field.type == field.TYPE_MESSAGE and not all(map(_texts_are_readable, parts)):
            return False
    return True


def _reason(error: BaseException) -> str:
    """Return the first line of what an error, or the error that caused it, says."""
    while error.__cause__ is not None:
        error = error.__cause__
    said = next((part.decode(errors="replace") for part in error.args if isinstance(part, bytes)), str(error)).strip()
    return said.splitlines()[0] if said else type(error).__name__


def _spell_default_domain(imports: dict[str, int]) -> None:
    """Call the default domain by its shorter name, as everything that reads an opset does."""
    if "ai.onnx" in imports:
        imports.setdefault("", imports.pop("ai.onnx"))


def _check_versions(graph: onnx_ir.Model, path: Path) -> None:
    hint = f"install a newer onnx (this is {onnx.__version__}), or export the model with an older opset"
    for domain, newest in (("", onnx.defs.onnx_opset_version()), ("ai.onnx.ml", onnx.defs.onnx_ml_opset_version())):
        opset = graph.opset_imports.get(domain, 0)
        if opset > newest:
            of = f" of {domain}" if domain else ""
            raise ModelError(
                f"the model wants opset {opset}{of}, the newest known here is {newest}", where=str(path), hint=hint
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
        else:
            _check_inline(tensor, where)


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
    if tensor.dtype in _NO_EXTERNAL:
        raise ModelError(f"a tensor of type {tensor.dtype.name} cannot be external", where=where, hint=_TRUNCATED)
    status = target.stat()
    if status.st_nlink > 1:
        hint = (
            f"onnx refuses such files, for any could be linked into the folder: cp {location} copy; mv copy {location}"
        )
        raise ModelError(f"the external data file {location!r} has several hard links", where=where, hint=hint)
    offset = tensor.offset or 0
    if offset < 0 or tensor.length not in (None, tensor.nbytes) or offset + tensor.nbytes > status.st_size:
        raise ModelError(
            f"tensor {tensor.name!r} needs {tensor.nbytes} bytes at offset {offset} of {location!r},"
            f" which has {status.st_size}" + ("" if tensor.length is None else f", and says it has {tensor.length}"),
            where=where,
            hint=_TRUNCATED,
        )


def _check_inline(tensor: onnx_ir.TensorProtocol, where: str) -> None:
    problem = _shortage(tensor.raw, tensor) if isinstance(tensor, onnx_ir.serde.TensorProtoTensor) else None
    try:
        if problem is None:
            tensor.numpy()
    except (ValueError, TypeError, AssertionError) as error:
        problem = f"cannot be read: {_reason(error)}"
    if problem is not None:
        raise ModelError(f"tensor {tensor.name!r} {tensor.shape} {problem}", where=where, hint=_TRUNCATED)


def _shortage(proto: onnx.TensorProto, tensor: onnx_ir.TensorProtocol) -> str | None:
    """Return what is wrong with the amount of data, where the amount tells."""
    if tensor.dtype == onnx_ir.DataType.UNDEFINED:
        return "has no element type"
    if proto.HasField("raw_data"):
        have, want = len(proto.raw_data), math.ceil(tensor.size * tensor.dtype.bitwidth / 8)
        return None if have == want else f"needs {want} bytes and has {have}"
    fields = (proto.float_data, proto.int32_data, proto.int64_data, proto.double_data, proto.uint64_data)
    return "holds no values" if tensor.size and not any(fields) else None
