"""Which source a description or a --data argument stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxopt.data.source import input_of, make_source, source_at
from onnxopt.errors import DataError, RecipeError, UsageError
from tests.graphs import from_text, mlp


def _refused(path: Path | str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        source_at(str(path))
    return caught.value


# Descriptions


def test_the_first_key_is_the_kind() -> None:
    source = make_source({"files": "samples", "limit": 3}, where="")

    assert (source.name, source.options) == ("files", {"files": "samples", "limit": 3})


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ({"file": "x"}, "did you mean 'files'?"),
        (
            {"files": "x", "images": "y"},
            "give exactly one of: files, stacked, images, text, audio, function, synthetic",
        ),
        ({}, "give exactly one of: files"),
        ({1: "x"}, "give exactly one of: files"),
    ],
)
def test_no_kind_or_two(spec: dict[Any, Any], hint: str) -> None:
    with pytest.raises(RecipeError, match="cannot tell what kind of data") as caught:
        make_source(spec, where="r.yaml:3", error=RecipeError)
    assert caught.value.where == "r.yaml:3"
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        ({"files": "x", "limt": 3}, "there is no option 'limt'"),
        ({"files": "x", "limit": 0}, "limit is 0: it should be greater than or equal to 1"),
        ({"images": "x", "channels": "GBR"}, "channels is \"GBR\": it should be 'RGB', 'BGR' or 'L'"),
        ({"audio": "x"}, "the option 'rate' is required"),
    ],
)
def test_wrong_options(spec: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_source(spec, where="r.yaml:3")
    assert caught.value.what == what


# Arguments


def test_a_folder_of_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones(1))

    assert source_at(str(tmp_path)).options["files"] == str(tmp_path)


@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_one_file_of_samples(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"all.{suffix}").write_bytes(b"whatever")

    assert source_at(str(tmp_path / f"all.{suffix}")).name == "stacked"


def test_a_function() -> None:
    assert source_at("somewhere.else:samples").options["function"] == "somewhere.else:samples"


def test_a_file_that_looks_like_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a:b").mkdir()
    np.savez(tmp_path / "a:b" / "0.npz", x=np.ones(1))

    assert source_at("a:b").name == "files"


@pytest.mark.parametrize(
    ("description", "options"),
    [
        ("files: data/*.npz\nlimit: 3\n", {"files": "{folder}/data/*.npz", "limit": 3}),
        ("images: photos\nlabels: truth.csv\n", {"images": "{folder}/photos", "labels": "{folder}/truth.csv"}),
        ("images: photos\nlabels: folders\n", {"images": "{folder}/photos", "labels": "folders"}),
        ("images: /abs/photos\n", {"images": "/abs/photos"}),
        ("text: t.csv\ntokenizer: t.json\ncolumn: text\n", {"tokenizer": "{folder}/t.json", "column": "text"}),
        ("synthetic: 4\nseed: 2\n", {"synthetic": 4, "seed": 2}),
    ],
)
def test_paths_of_a_description_start_at_its_folder(tmp_path: Path, description: str, options: dict[str, Any]) -> None:
    (tmp_path / "data.yaml").write_text(description)

    found = source_at(str(tmp_path / "data.yaml")).options
    for key, value in options.items():
        assert found[key] == (value.format(folder=tmp_path) if isinstance(value, str) else value)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"[1, 2]", "holds no description of data"),
        (b"", "holds no description of data"),
        (b"a: [", "is no YAML"),
        (b"\xff\xfe\x00", "is no YAML"),
        (b"!!python/object/apply:os.mkdir ['made']", "is no YAML"),
    ],
)
def test_files_that_are_no_description(
    tmp_path: Path, content: bytes, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.yaml").write_bytes(content)

    assert what in _refused(tmp_path / "data.yaml").what
    assert [path.name for path in tmp_path.iterdir()] == ["data.yaml"]


def test_nothing_there(tmp_path: Path) -> None:
    error = _refused(tmp_path / "none")

    assert error.what == f"there is no data at {tmp_path / 'none'}"
    assert error.hint == "give a folder, a file, or module:function"


@pytest.mark.parametrize(
    ("name", "kind", "key"),
    [("a.PNG", "images", "resize"), ("cats/a.png", "images", "mean"), ("a.wav", "audio", "rate")],
)
def test_folders_that_need_a_description(tmp_path: Path, name: str, kind: str, key: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"")

    error = _refused(tmp_path)
    assert error.what == f"{tmp_path} holds {kind}, not .npz samples"
    assert f"describe it in a YAML file and give that: {{{kind}: FOLDER, ...}}; other keys: " in (error.hint or "")
    assert key in (error.hint or "")


def test_a_folder_of_other_files_holds_no_samples(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"")
    assert _refused(tmp_path).what == f"{tmp_path} holds no samples"


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("")

    assert _refused(tmp_path / "a.csv").what == f"cannot tell how to read {tmp_path / 'a.csv'}"


# Inputs


def test_the_only_input_needs_no_name() -> None:
    two = from_text('<ir_version: 8, opset_import: ["" : 17]> g (float a, float b) => (float y) { y = Add (a, b) }')

    assert input_of(mlp(), None, "photos").name == "x"
    assert input_of(two, "b", "photos").name == "b"
    with pytest.raises(DataError) as caught:
        input_of(two, None, "photos")
    assert str(caught.value) == "the model has inputs ['a', 'b']\n  at:   photos\n  hint: add input: NAME"
    with pytest.raises(DataError, match="the model has no input 'X'"):
        input_of(mlp(), "X", "photos")
