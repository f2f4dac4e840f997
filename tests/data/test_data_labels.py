"""Ground truth from a CSV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxopt.data.labels import label_of, parse_label, read_labels
from onnxopt.errors import DataError


@pytest.mark.parametrize(
    ("text", "value", "kind"),
    [("7", 7, "i"), ("-3", -3, "i"), ("0.5", 0.5, "f"), ("1e3", 1000.0, "f"), ("cat", "cat", "U"), ("", "", "U")],
)
def test_a_label_is_what_its_text_reads_as(text: str, value: object, kind: str) -> None:
    label = parse_label(text)

    assert (label.item(), label.dtype.kind, label.shape) == (value, kind, ())


@pytest.mark.parametrize(
    "text",
    [
        "file,label\na.png,3\nsub/b.png,cat\n",
        "label,file,other\n3,a.png,x\ncat,sub/b.png,y\n",
        "\ufefffile,label\r\na.png,3\r\nsub/b.png,cat\r\n",
        'file,label\n"a.png","3"\n"sub/b.png",cat\n',
    ],
)
def test_labels_by_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels.csv").write_bytes(text.encode())

    labels = read_labels(tmp_path / "labels.csv")
    assert {name: label.item() for name, label in labels.items()} == {"a.png": 3, "sub/b.png": "cat"}


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "labels need a header line 'file,label' and one line a file"),
        (b"file,label\n", "labels need a header line 'file,label' and one line a file"),
        (b"name,class\na.png,3\n", "labels need a header line 'file,label' and one line a file"),
        (b"a.png,3\nb.png,4\n", "labels need a header line 'file,label' and one line a file"),
        (b"file,label\na.png,3\nb.png\n", "the line has no label"),
        (b"file,label\n\xff\xfe,3\n", "cannot read the labels: "),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(content)

    with pytest.raises(DataError) as caught:
        read_labels(path)
    assert caught.value.what.startswith(what)
    assert (caught.value.where or "").startswith(str(path))


def test_a_line_without_a_label_is_counted(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,label\na.png,3\nb.png\n")

    with pytest.raises(DataError) as caught:
        read_labels(tmp_path / "labels.csv")
    assert caught.value.where == f"{tmp_path}/labels.csv: line 2 after the header"


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read the labels: .*No such file"):
        read_labels(tmp_path / "none.csv")


def test_a_file_without_a_label() -> None:
    labels = {"a.png": np.array(3)}

    assert label_of(None, "b.png", "photos/b.png") is None
    assert label_of(labels, "a.png", "photos/a.png") is labels["a.png"]
    with pytest.raises(DataError) as caught:
        label_of(labels, "b.png", "photos/b.png")
    assert str(caught.value) == (
        "there is no label for 'b.png'\n  at:   photos/b.png\n  hint: add a line for it, or remove the file"
    )
