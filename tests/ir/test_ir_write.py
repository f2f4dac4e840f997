"""A model is written whole or not at all, and what is read again is the same."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper

from onnxopt.errors import OutputError
from onnxopt.ir.model import Model, normalise
from onnxopt.ir.read import read_model
from onnxopt.ir.traverse import all_tensors
from onnxopt.ir.write import files_size, replaced_files, tensors_size, write_model
from tests.graphs import cnn, from_text, mlp


def _mixed() -> Model:
    """Return a model with weights of bfloat16, of 4 bits, of no elements, and in a branch's Constant node."""
    proto = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]>
        mixed (bool c, float[n] x) => (float[n] y, int64[3] e) {
            y = If (c) <
                then_branch = t () => (float[n] a) { k = Constant <value = float[3] {1, 2, 3}> () a = Add (x, k) },
                else_branch = e () => (float[n] b) { h = Cast <to = 1> (half) b = Mul (x, h) }>
            e = Cast <to = 7> (quarters)
        }"""
    )
    proto.graph.initializer.extend(
        [
            helper.make_tensor("half", TensorProto.BFLOAT16, [3], [0.5, 1.0, 2.0]),
            helper.make_tensor("quarters", TensorProto.INT4, [3], [1, -2, 3]),
            helper.make_tensor("none", TensorProto.INT64, [0, 2], []),
        ]
    )
    graph = onnx_ir.from_proto(proto)
    normalise(graph)
    return Model(graph)


MODELS: dict[str, Callable[[], Model]] = {"mlp": mlp, "cnn": cnn, "mixed": _mixed}


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", MODELS)
def test_inline_and_external_files_hold_the_same(tmp_path: Path, name: str) -> None:
    model = MODELS[name]()

    (inline,) = write_model(model, tmp_path / "inline.onnx")
    external = write_model(model, tmp_path / "external.onnx", external_above=0)

    assert external == (tmp_path / "external.onnx", tmp_path / "external.onnx.data")
    read = read_model(external[0])
    assert read.digest == read_model(inline).digest == model.digest
    (back,) = write_model(read, tmp_path / "back.onnx")
    assert read_model(back).digest == model.digest
    again, _ = write_model(read, tmp_path / "again.onnx", external_above=0)
    assert read_model(again).digest == model.digest


def test_tensors_decide_where_tensors_go(tmp_path: Path) -> None:
    model = mlp()
    size = tensors_size(model.graph)

    assert size == 4 * (8 * 16 + 16 + 16 * 4 + 4)
    assert len(write_model(model, tmp_path / "a.onnx", external_above=size)) == 1
    assert len(write_model(model, tmp_path / "b.onnx", external_above=size - 1)) == 2


def test_a_tensor_used_twice_counts_once() -> None:
    model = mlp()
    graph = model.graph.clone()
    first = graph.graph.initializers["w1"].const_value
    graph.graph.register_initializer(onnx_ir.Value(name="again", const_value=first))

    assert tensors_size(graph) == tensors_size(model.graph)


@pytest.mark.parametrize("external_above", [0, 10**9])
def test_size_is_that_of_all_files(tmp_path: Path, external_above: int) -> None:
    written = write_model(mlp(), tmp_path / "m.onnx", external_above=external_above)

    assert files_size(read_model(written[0]).graph, written[0]) == sum(path.stat().st_size for path in written)


def test_writing_changes_no_model(tmp_path: Path) -> None:
    model = _mixed()
    kinds = [type(tensor) for _, tensor in all_tensors(model.graph)]

    write_model(model, tmp_path / "m.onnx", external_above=0)

    assert [type(tensor) for _, tensor in all_tensors(model.graph)] == kinds
    assert Model(model.graph).digest == model.digest


def test_folders_are_made(tmp_path: Path) -> None:
    (path,) = write_model(mlp(), tmp_path / "a" / "b" / "m.onnx")

    assert _names(path.parent) == ["m.onnx"]


# Overwriting


@pytest.mark.parametrize("external_above", [0, 10**9])
def test_a_model_may_overwrite_the_file_it_is_mapped_from(tmp_path: Path, external_above: int) -> None:
    path, _ = write_model(mlp(), tmp_path / "m.onnx", external_above=0)
    model = read_model(path)

    write_model(model, path, external_above=external_above)

    assert read_model(path).digest == mlp().digest


def test_a_mapped_model_outlives_its_file(tmp_path: Path) -> None:
    path, _ = write_model(mlp(), tmp_path / "m.onnx", external_above=0)
    model = read_model(path)

    write_model(mlp(seed=9), path, external_above=0)

    (copy,) = write_model(model, tmp_path / "copy.onnx")
    assert read_model(copy).digest == mlp().digest
    assert read_model(path).digest == mlp(seed=9).digest


# Failures


def _fail_half_way(code: int) -> Callable[..., None]:
    def save(proto: Any, path: Path, **_: object) -> None:
        Path(path).write_bytes(b"half a model")
        raise OSError(code, os.strerror(code))

    return save


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize(
    ("code", "what", "hint"),
    [
        (errno.ENOSPC, "no space left to write in {folder}", "free some space; nothing half-written was left"),
        (errno.EDQUOT, "no space left to write in {folder}", "free some space; nothing half-written was left"),
        (errno.EACCES, "{folder} cannot be written: Permission denied", "choose another --out folder"),
        (errno.EROFS, "{folder} cannot be written: Read-only file system", "choose another --out folder"),
        (errno.EIO, "cannot write in {folder}: Input/output error", "choose another --out folder"),
    ],
)
def test_a_failure_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool, code: int, what: str, hint: str
) -> None:
    path = tmp_path / "m.onnx"
    if existing:
        write_model(mlp(), path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    monkeypatch.setattr(onnx, "save", _fail_half_way(code))

    with pytest.raises(OutputError) as caught:
        write_model(mlp(seed=2), path)

    assert caught.value.what == what.format(folder=tmp_path)
    assert caught.value.hint == hint
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_any_other_failure_leaves_nothing_too(tmp_path: Path) -> None:
    def interrupted() -> None:
        with replaced_files(tmp_path) as folder:
            (folder / "a.onnx").write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert _names(tmp_path) == []


def test_files_appear_together_and_the_model_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[str] = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, to: (moved.append(Path(to).name), replace(self, to))[1])

    with replaced_files(tmp_path) as folder:
        (folder / "sub").mkdir()
        for name in ("a.onnx", "a.onnx.data", "sub/b.txt"):
            (folder / name).write_text(name)
        assert [name for name in _names(tmp_path) if not name.startswith(".")] == []

    assert moved[-1] == "a.onnx"
    assert (tmp_path / "sub" / "b.txt").read_text() == "sub/b.txt"
    assert _names(tmp_path) == ["a.onnx", "a.onnx.data", "sub"]


@pytest.mark.parametrize("external_above", [0, 10**9])
def test_a_disk_that_fills_up(tmp_path: Path, external_above: int) -> None:
    """The child may write files of 8 KiB at most; the kernel refuses the rest, as it does on a full disk."""
    code = f"""
import resource
import numpy as np
from onnxopt.errors import OutputError
from onnxopt.ir.read import read_model
from onnxopt.ir.write import write_model
model = read_model({str(tmp_path / "big.onnx")!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
try:
    write_model(model, {str(tmp_path / "out" / "m.onnx")!r}, external_above={external_above})
except OutputError as error:
    print(error.what)
"""
    big = from_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[4096] x) => (float[4096] y) { y = Add (x, w) }',
        {"w": np.arange(4096, dtype=np.float32)},
    )
    write_model(big, tmp_path / "big.onnx")

    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert child.stdout.strip() == f"cannot write in {tmp_path / 'out'}: File too large", child.stderr
    assert _names(tmp_path / "out") == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)

    with pytest.raises(OutputError, match="closed cannot be written: Permission denied"):
        write_model(mlp(), closed / "m.onnx")


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("file/m.onnx", "cannot write in {folder}/file: File exists"),
        ("taken.onnx", "cannot write in {folder}: Is a directory"),
        ("a" * 300, "cannot write in {folder}: File name too long"),
    ],
)
def test_something_in_the_way(tmp_path: Path, place: str, what: str) -> None:
    (tmp_path / "file").write_text("here already")
    (tmp_path / "taken.onnx").mkdir()

    with pytest.raises(OutputError) as caught:
        write_model(mlp(), tmp_path / place)

    assert caught.value.what == what.format(folder=tmp_path)
    assert _names(tmp_path) == ["file", "taken.onnx"]
