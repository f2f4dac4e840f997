"""Files that are no model, or none that can be trusted, are refused: what, where, and what to do."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxopt.errors import ModelError, OnnxoptError, UsageError
from onnxopt.ir.read import read_model
from onnxopt.ir.write import write_model
from tests.graphs import mlp, saved

X = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
TEXT_FORMATS = ["json", "onnxjson", "textproto", "pbtxt"]


def _node(op: str, inputs: str, outputs: str, **rest: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **rest)


def _proto(
    *nodes: onnx.NodeProto,
    weights: tuple[onnx.TensorProto, ...] = (),
    inputs: tuple[onnx.ValueInfoProto, ...] = (X,),
    outputs: tuple[onnx.ValueInfoProto, ...] = (Y,),
    opsets: dict[str, int] | None = None,
    ir: int = 8,
    functions: tuple[onnx.FunctionProto, ...] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    imports = [helper.make_opsetid(domain, version) for domain, version in (opsets or {"": 17}).items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir, functions=functions)


def _function(*nodes: onnx.NodeProto, opsets: dict[str, int] | None = None) -> onnx.FunctionProto:
    imports = [helper.make_opsetid(domain, version) for domain, version in (opsets or {"": 17}).items()]
    return helper.make_function("me", "Mine", ["a"], ["b"], nodes, imports)


def _weight(**changes: Any) -> onnx.TensorProto:
    """Return a tensor ``w`` of four floats, with these fields changed."""
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [4], [1.0, 2.0, 3.0, 4.0])
    for name, value in changes.items():
        if name == "dims":
            del tensor.dims[:]
            tensor.dims.extend(value)
        else:
            setattr(tensor, name, value)
    return tensor


def _refused(path: Path, cls: type[OnnxoptError] = ModelError) -> OnnxoptError:
    with pytest.raises(OnnxoptError) as caught:
        read_model(path)
    assert type(caught.value) is cls
    return caught.value


@pytest.fixture
def file(tmp_path: Path) -> Callable[[onnx.ModelProto], Path]:
    def write(proto: onnx.ModelProto) -> Path:
        path = tmp_path / "made.onnx"
        path.write_bytes(proto.SerializeToString())
        return path

    return write


File = Callable[[onnx.ModelProto], Path]


# Files


def test_a_model_knows_where_it_came_from(mlp_file: Path) -> None:
    model = read_model(mlp_file)

    assert model.digest == mlp().digest
    assert [(step.name, step.options, step.digest) for step in model.lineage] == [
        ("read", {"path": str(mlp_file)}, model.digest)
    ]


@pytest.mark.parametrize("name", ["none.onnx", "mlp.onnx/inside.onnx", "a\0b.onnx"])
def test_no_such_file(mlp_file: Path, name: str) -> None:
    error = _refused(mlp_file.parent / name, UsageError)

    assert error.what == f"there is no file {mlp_file.parent / name}"
    assert error.hint == "check the path of the model"


def test_a_folder_names_the_model_in_it(mlp_file: Path, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()

    assert _refused(tmp_path, UsageError).hint == f"did you mean {mlp_file}?"
    error = _refused(tmp_path / "bare", UsageError)
    assert error.what == f"{tmp_path / 'bare'} is a folder, not a model file"
    assert error.hint == "give the .onnx file itself"


def test_an_unreadable_file(mlp_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(onnx, "load", refuse)
    error = _refused(mlp_file)
    assert error.what == f"{mlp_file} cannot be read: Permission denied"
    assert error.hint == "check its permissions"


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    assert "cannot be read: File name too long" in _refused(tmp_path / ("a" * 300)).what


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (np.random.default_rng(0).bytes(4096), "is no ONNX model"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 10\n", "is no ONNX model"),
        (b"\x08\x08", "it holds no graph"),
        (b"\x7fELF" * 100, "is no ONNX model"),
    ],
)
def test_what_is_no_model(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "odd.onnx"
    path.write_bytes(content)

    error = _refused(path)
    assert error.what.startswith(str(path))
    assert what in error.what
    assert error.hint == "the file looks cut short or damaged: copy or export it again"


@pytest.mark.parametrize("suffix", TEXT_FORMATS)
def test_text_formats(tmp_path: Path, suffix: str) -> None:
    path = saved(mlp(), tmp_path / f"model.{suffix}")

    assert path.read_text(encoding="utf-8").isascii()
    assert read_model(path).digest == mlp().digest


@pytest.mark.filterwarnings("ignore:The onnxtxt format is experimental")
def test_the_syntax_for_people(tmp_path: Path) -> None:
    """Some versions of onnx round numbers in it, so it keeps the structure but not the digest."""
    read = read_model(saved(mlp(), tmp_path / "model.onnxtxt"))

    assert (read.operators, read.signature) == (mlp().operators, mlp().signature)


@pytest.mark.filterwarnings("ignore:The onnxtxt format is experimental")
@pytest.mark.parametrize("suffix", [*TEXT_FORMATS, "onnxtxt"])
@pytest.mark.parametrize("damage", [lambda text: text[: len(text) // 2], lambda text: "hello", lambda text: "[1, 2]"])
def test_damaged_text_formats(tmp_path: Path, suffix: str, damage: Callable[[str], str]) -> None:
    path = saved(mlp(), tmp_path / f"model.{suffix}")
    path.write_text(damage(path.read_text()))

    error = _refused(path)
    assert error.what.startswith(f"{path} is no ONNX model: ")
    assert "\n" not in error.what
    assert "b'" not in error.what


# Versions and operators


@pytest.mark.parametrize(
    ("opsets", "node", "what"),
    [
        ({"": 999}, _node("Relu", "x", "y"), "the model wants opset 999, the newest known here is"),
        ({"ai.onnx": 999}, _node("Relu", "x", "y"), "the model wants opset 999, the newest known here is"),
        ({"ai.onnx.ml": 99}, _node("Scaler", "x", "y", domain="ai.onnx.ml"), "the model wants opset 99 of ai.onnx.ml"),
    ],
)
def test_an_opset_from_the_future(file: File, opsets: dict[str, int], node: onnx.NodeProto, what: str) -> None:
    path = file(_proto(node, opsets=opsets))

    error = _refused(path)
    assert error.what.startswith(what)
    assert error.where == str(path)
    assert (error.hint or "").startswith(f"install a newer onnx (this is {onnx.__version__})")


def test_an_ir_version_from_the_future(file: File) -> None:
    path = file(_proto(_node("Relu", "x", "y"), ir=99))

    assert _refused(path).what == f"the model has IR version 99, the newest known here is {onnx.IR_VERSION}"


@pytest.mark.parametrize(
    ("node", "opsets", "what", "hint"),
    [
        (_node("Reluu", "x", "y"), {"": 17}, "opset 17 has no operator 'Reluu'", "did you mean 'Relu'?"),
        (
            _node("Gelu", "x", "y"),
            {"": 17},
            "opset 17 has no operator 'Gelu'",
            "a later opset has it: export the model with opset 20 or above",
        ),
        (_node("Relu", "x", "y"), {"me": 1}, "the model uses domain '' and imports no opset for it", "cut short"),
        (
            _node("Scaler", "x", "y", domain="ai.onnx.ml"),
            {"": 17},
            "the model uses domain 'ai.onnx.ml' and imports no opset for it",
            "cut short",
        ),
    ],
)
def test_unknown_standard_operators(
    file: File, node: onnx.NodeProto, opsets: dict[str, int], what: str, hint: str
) -> None:
    path = file(_proto(node, opsets=opsets))

    error = _refused(path)
    assert error.what == what
    assert error.where == f"{path}: node 'y'"
    assert hint in (error.hint or "")


def test_operators_of_other_domains_are_taken(file: File) -> None:
    model = read_model(file(_proto(_node("Mine", "x", "y", domain="com.me"), opsets={"": 17, "com.me": 1})))

    assert model.operators == {"com.me::Mine": 1}


@pytest.mark.parametrize("opsets", [{"": 17}, {"ai.onnx": 17}])
@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_both_names_of_the_default_domain_are_one(file: File, opsets: dict[str, int], domain: str) -> None:
    model = read_model(file(_proto(_node("Relu", "x", "y", domain=domain), opsets=opsets)))

    assert dict(model.graph.opset_imports) == {"": 17}
    assert model.digest == read_model(file(_proto(_node("Relu", "x", "y")))).digest


def test_a_function_is_judged_by_its_own_opset(file: File) -> None:
    call = _node("Mine", "x", "y", domain="me")
    newer = _function(_node("Gelu", "a", "b"), opsets={"": 20})
    wrong = _function(_node("Gelu", "a", "b"))

    assert read_model(file(_proto(call, opsets={"me": 1}, functions=(newer,)))).operators == {"me::Mine": 1, "Gelu": 1}
    assert (
        "opset 17 has no operator 'Gelu'"
        in _refused(file(_proto(call, opsets={"": 17, "me": 1}, functions=(wrong,)))).what
    )


# Structure


BRANCH = helper.make_graph(
    [_node("Add", "x lost", "o")], "b", [], [helper.make_tensor_value_info("o", TensorProto.FLOAT, None)]
)
LOOSE_ENDS = {
    "a value nothing makes": (_proto(_node("Relu", "lost", "y")), "node 'y' (Relu) reads 'lost', which nothing makes"),
    "an output nothing makes": (_proto(_node("Relu", "x", "z")), "the output 'y' is made by nothing"),
    "a branch that reads it": (
        _proto(
            _node("If", "c", "y", then_branch=BRANCH, else_branch=BRANCH),
            inputs=(X, helper.make_tensor_value_info("c", TensorProto.BOOL, [])),
        ),
        "node 'o' (Add) reads 'lost', which nothing makes",
    ),
    "a function that reads it": (
        _proto(
            _node("Mine", "x", "y", domain="me"),
            opsets={"": 17, "me": 1},
            functions=(_function(_node("Relu", "lost", "b")),),
        ),
        "node 'b' (Relu) reads 'lost', which nothing makes",
    ),
    "no outputs": (_proto(_node("Relu", "x", "y"), outputs=()), "the graph has no outputs"),
    "two inputs of a name": (_proto(_node("Relu", "x", "y"), inputs=(X, X)), "two inputs have the name 'x'"),
    "an input without a name": (
        _proto(_node("Relu", "x", "y"), inputs=(X, helper.make_tensor_value_info("", TensorProto.FLOAT, [1]))),
        "an input has no name",
    ),
    "a cycle": (_proto(_node("Add", "x b", "a"), _node("Relu", "a", "b"), _node("Abs", "b", "y")), "has a cycle"),
    "a node that reads itself": (_proto(_node("Add", "x y", "y")), "has a cycle"),
}


@pytest.mark.parametrize("case", LOOSE_ENDS)
def test_loose_ends(file: File, case: str) -> None:
    proto, what = LOOSE_ENDS[case]
    path = file(proto)

    error = _refused(path)
    assert what in error.what
    assert error.where == str(path)
    assert "export" in (error.hint or "")


def test_a_value_made_twice(file: File) -> None:
    assert "'y' is redeclared" in _refused(file(_proto(_node("Relu", "x", "y"), _node("Abs", "x", "y")))).what


def test_a_name_that_is_no_text(file: File) -> None:
    path = file(_proto(_node("Relu", "x", "y", name="plain")))
    path.write_bytes(path.read_bytes().replace(b"plain", b"pl\xffin"))

    assert _refused(path).what == f"{path} is no ONNX model: a name in it is no UTF-8"


def test_an_attribute_without_a_type(file: File) -> None:
    node = _node("Softmax", "x", "y", axis=1)
    node.attribute[0].ClearField("type")

    assert _refused(file(_proto(node))).what == "the attribute 'axis' has no type"


def test_a_sparse_weight(file: File) -> None:
    proto = _proto(_node("Add", "x w", "y"))
    values = helper.make_tensor("w", TensorProto.FLOAT, [1], [2.0])
    places = helper.make_tensor("w_places", TensorProto.INT64, [1], [3])
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [4]))

    error = _refused(file(proto))
    assert error.what == "the weight 'w' is sparse"
    assert error.hint == "store it as a dense initializer"


# Tensors


@pytest.mark.parametrize(
    ("tensor", "what"),
    [
        (_weight(dims=[-4]), "a tensor has the negative shape [-4]"),
        (_weight(dims=[5]), "tensor 'w' [5] cannot be read: cannot reshape array of size 4"),
        (_weight(dims=[3]), "tensor 'w' [3] cannot be read: cannot reshape array of size 4"),
        (_weight(dims=[2**62, 2**62]), "cannot be read: cannot reshape array of size 4"),
        (_weight(data_type=TensorProto.INT64), "cannot be read: Unsupported dtype INT64 for float_data"),
        (_weight(data_type=TensorProto.UNDEFINED), "tensor 'w' [4] has no element type"),
        (_weight(raw_data=bytes(12)), "tensor 'w' [4] needs 16 bytes and has 12"),
        (_weight(raw_data=bytes(20)), "tensor 'w' [4] needs 16 bytes and has 20"),
        (onnx.TensorProto(name="w", dims=[4], data_type=TensorProto.FLOAT), "tensor 'w' [4] holds no values"),
        (
            onnx.TensorProto(name="w", dims=[3], data_type=TensorProto.STRING, string_data=[b"a", b"b"]),
            "tensor 'w' [3] cannot be read",
        ),
    ],
)
def test_tensors_that_are_not_what_they_say(file: File, tensor: onnx.TensorProto, what: str) -> None:
    path = file(_proto(_node("Add", "x w", "y"), weights=(tensor,)))

    error = _refused(path)
    assert what in error.what
    assert error.where == f"{path}: initializer 'w'"


def test_a_damaged_constant_tells_its_node(file: File) -> None:
    path = file(_proto(_node("Constant", "", "w", value=_weight(dims=[-4])), _node("Add", "x w", "y")))

    assert _refused(path).where == f"{path}: node '' (Constant), attribute 'value'"


@pytest.mark.parametrize(("kind", "what"), [(77, "77 is not a valid DataType"), (0, "UNDEFINED")])
def test_an_unknown_element_type_of_a_constant(file: File, kind: int, what: str) -> None:
    path = file(_proto(_node("Constant", "", "w", value=_weight(data_type=kind)), _node("Add", "x w", "y")))

    error = _refused(path)
    assert error.what.startswith(f"{path} is no ONNX model: ")
    assert what in error.what


def test_an_unknown_element_type_of_a_weight(file: File) -> None:
    path = file(_proto(_node("Add", "x w", "y"), weights=(_weight(data_type=77),)))

    assert "77 is not a valid DataType" in _refused(path).what


def test_packed_and_empty_tensors_are_whole(file: File) -> None:
    packed = onnx.TensorProto(name="p", dims=[3], data_type=TensorProto.INT4, raw_data=b"\x21\x03")
    empty = onnx.TensorProto(name="e", dims=[0, 2], data_type=TensorProto.INT64)
    model = read_model(file(_proto(_node("Relu", "x", "y"), weights=(packed, empty), ir=10)))

    values = {name: value.const_value for name, value in model.graph.graph.initializers.items()}
    assert np.asarray(values["p"].numpy()).astype(int).tolist() == [1, 2, 3]
    assert values["e"].numpy().shape == (0, 2)


# External data


@pytest.fixture
def external(tmp_path: Path) -> Path:
    """A model of weights ``w`` [4], in ``w.bin`` beside it."""
    (tmp_path / "w.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    return _external(tmp_path, location="w.bin")


def _external(folder: Path, **entries: object) -> Path:
    tensor = onnx.TensorProto(name="w", dims=[4], data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.extend(onnx.StringStringEntryProto(key=key, value=str(v)) for key, v in entries.items())
    path = folder / "model.onnx"
    path.write_bytes(_proto(_node("Add", "x w", "y"), weights=(tensor,)).SerializeToString())
    return path


def test_external_data_is_read_from_beside_the_model(external: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (external.parent / "elsewhere").mkdir()
    monkeypatch.chdir(external.parent / "elsewhere")

    tensor = read_model(external).graph.graph.initializers["w"].const_value
    assert tensor is not None
    assert tensor.numpy().tolist() == [0, 1, 2, 3]


def test_external_data_of_a_function_is_read_from_beside_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensor = onnx.TensorProto(name="w", dims=[4], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    tensor.external_data.append(onnx.StringStringEntryProto(key="location", value="w.bin"))
    (tmp_path / "w.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "w.bin").write_bytes(b"x" * 16)
    function = _function(_node("Constant", "", "w", value=tensor), _node("Add", "a w", "b"))
    path = tmp_path / "model.onnx"
    proto = _proto(_node("Mine", "x", "y", domain="me"), opsets={"": 17, "me": 1}, functions=(function,))
    path.write_bytes(proto.SerializeToString())
    monkeypatch.chdir(tmp_path / "here")

    (read,) = read_model(path).graph.functions.values()
    assert read[0].attributes["value"].as_tensor().numpy().tolist() == [0, 1, 2, 3]


def test_missing_external_data(external: Path) -> None:
    (external.parent / "w.bin").unlink()

    error = _refused(external)
    assert error.what == "the external data file 'w.bin' is missing"
    assert error.where == f"{external}: initializer 'w'"
    assert error.hint == f"put it into {external.parent}"


@pytest.mark.parametrize("location", ["../secret", "sub/../../secret", "{folder}/secret", "/etc/passwd", "link", ""])
def test_external_data_outside_the_folder(tmp_path: Path, location: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(64))
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "link").symlink_to(secret)

    error = _refused(_external(folder, location=location.format(folder=tmp_path)))
    assert "lies outside the model's folder" in error.what
    assert "do not use this file if you do not know its author" in (error.hint or "")


def test_a_folder_behind_a_link_is_outside_too(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "w.bin").write_bytes(bytes(16))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "sub").symlink_to(tmp_path / "other")

    assert "lies outside" in _refused(_external(tmp_path / "model", location="sub/w.bin")).what


def test_external_data_in_a_folder_below(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w.bin").write_bytes(bytes(16))

    assert read_model(_external(tmp_path, location="sub/w.bin")).nodes == 1


@pytest.mark.parametrize(
    ("entries", "what"),
    [
        ({"offset": 4}, "needs 16 bytes at offset 4 of 'w.bin', which has 16"),
        ({"offset": 2**63}, "of 'w.bin', which has 16"),
        ({"length": 12}, "which has 16, and says it has 12"),
        ({"length": 20}, "which has 16, and says it has 20"),
        ({"length": 0}, "which has 16, and says it has 0"),
        ({"offset": "four"}, "is no ONNX model"),
    ],
)
def test_external_data_that_is_too_short(external: Path, entries: dict[str, object], what: str) -> None:
    _external(external.parent, location="w.bin", **entries)

    assert what in _refused(external).what


def test_external_data_before_the_file(external: Path) -> None:
    error = _refused(_external(external.parent, location="w.bin", offset=-4))

    assert str(external) in f"{error.what} {error.where}"
    assert error.hint == "the file looks cut short or damaged: copy or export it again"


def test_external_data_with_a_length_that_is_longer_than_the_tensor(external: Path) -> None:
    (external.parent / "w.bin").write_bytes(bytes(64))

    assert "says it has 32" in _refused(_external(external.parent, location="w.bin", length=32)).what


def test_external_data_with_a_second_name(external: Path) -> None:
    os.link(external.parent / "w.bin", external.parent / "again.bin")

    error = _refused(external)
    assert error.what == "the external data file 'w.bin' has several hard links"
    assert "cp w.bin" in (error.hint or "")


def test_external_strings(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(16))
    path = _external(tmp_path, location="w.bin")
    proto = onnx.load(path, load_external_data=False)
    proto.graph.initializer[0].data_type = TensorProto.STRING
    path.write_bytes(proto.SerializeToString())

    assert _refused(path).what == "a tensor of type STRING cannot be external"


def test_reading_writes_nothing(mlp_file: Path) -> None:
    write_model(mlp(), mlp_file.parent / "external.onnx", external_above=0)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in mlp_file.parent.iterdir()}

    read_model(mlp_file)
    read_model(mlp_file.parent / "external.onnx")

    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in mlp_file.parent.iterdir()} == before
