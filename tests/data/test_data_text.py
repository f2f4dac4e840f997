"""Texts become token ids of the length a model takes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxopt.data.sample import Sample, Samples
from onnxopt.data.text import Text
from onnxopt.errors import DataError
from tests.graphs import from_text

tokenizers = pytest.importorskip("tokenizers", reason="needs the [text] extra")

MODEL = from_text(
    """<ir_version: 8, opset_import: ["" : 17]>
    g (int64[b, s] input_ids, int64[b, s] attention_mask, int32[b, s] token_type_ids) => (int64[b, s] y) {
        y = Add (input_ids, attention_mask)
    }"""
)
IDS_ONLY = from_text(
    '<ir_version: 8, opset_import: ["" : 17]> g (int32[b, s] tokens) => (int32[b, s] y) { y = Neg (tokens) }'
)
WORDS = ["[UNK]", "[CLS]", "[SEP]", "a", "small", "cat", "sat", "no"]
UNK, CLS, SEP, A, SMALL, CAT, SAT, NO = range(len(WORDS))


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A tokenizer of eight words that writes ``[CLS] first [SEP] second [SEP]``."""
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.BertProcessing(("[SEP]", SEP), ("[CLS]", CLS))
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def _rows(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _open(path: Path, **options: Any) -> Samples:
    model = options.pop("model", MODEL)
    tokenizer = options.pop("tokenizer", "tokenizer.json")
    return Text(text=path.name, tokenizer=tokenizer, **options).open(model, path.parent)


def _lists(sample: Sample) -> dict[str, list[list[int]]]:
    return {name: array.tolist() for name, array in sample.feeds.items()}


def test_a_row_becomes_ids_masks_and_types(tokenizer: Path) -> None:
    sample = _open(_rows(tokenizer.parent, {"text": "a cat sat", "label": 1}), label="label")[0]

    assert _lists(sample) == {
        "input_ids": [[CLS, A, CAT, SAT, SEP]],
        "attention_mask": [[1, 1, 1, 1, 1]],
        "token_type_ids": [[0, 0, 0, 0, 0]],
    }
    assert [array.dtype.name for array in sample.feeds.values()] == ["int64", "int64", "int32"]
    assert (sample.name, sample.label.item() if sample.label is not None else None) == ("texts.jsonl[0]", 1)


def test_pairs_have_types(tokenizer: Path) -> None:
    sample = _open(_rows(tokenizer.parent, {"one": "a cat", "two": "no dog"}), column="one", pair="two")[0]

    assert _lists(sample)["input_ids"] == [[CLS, A, CAT, SEP, NO, UNK, SEP]]
    assert _lists(sample)["token_type_ids"] == [[0, 0, 0, 0, 1, 1, 1]]


def test_long_texts_are_cut(tokenizer: Path) -> None:
    sample = _open(_rows(tokenizer.parent, {"text": "a small cat sat"}), max_length=4)[0]

    assert _lists(sample)["input_ids"] == [[CLS, A, SMALL, SEP]]


def test_padding_to_a_length(tokenizer: Path) -> None:
    sample = _open(_rows(tokenizer.parent, {"text": "cat"}), max_length=5, pad=True)[0]

    assert _lists(sample)["input_ids"] == [[CLS, CAT, SEP, 0, 0]]
    assert _lists(sample)["attention_mask"] == [[1, 1, 1, 0, 0]]


def test_padding_of_the_tokenizer_is_used_only_if_asked_for(tokenizer: Path) -> None:
    made = tokenizers.Tokenizer.from_file(str(tokenizer))
    made.enable_padding(pad_id=NO, pad_token="no", length=99)
    made.enable_truncation(2)
    made.save(str(tokenizer))
    path = _rows(tokenizer.parent, {"text": "a cat"})

    assert _lists(_open(path, max_length=6, pad=True)[0])["input_ids"] == [[CLS, A, CAT, SEP, NO, NO]]
    assert _lists(_open(path)[0])["input_ids"] == [[CLS, A, CAT, SEP]]


def test_inputs_of_other_names(tokenizer: Path) -> None:
    sample = _open(_rows(tokenizer.parent, {"text": "cat"}), model=IDS_ONLY, ids="tokens")[0]

    assert _lists(sample) == {"tokens": [[CLS, CAT, SEP]]}
    assert sample.feeds["tokens"].dtype == np.int32


@pytest.mark.parametrize(
    ("value", "label"), [(3, 3), ("3", 3), ("0.5", 0.5), ("cat", "cat"), (0.25, 0.25), ([1, 2], [1, 2]), (True, True)]
)
def test_labels(tokenizer: Path, value: object, label: object) -> None:
    sample = _open(_rows(tokenizer.parent, {"text": "cat", "y": value}), label="y")[0]

    assert sample.label is not None
    assert sample.label.tolist() == label


def test_csv(tokenizer: Path) -> None:
    path = tokenizer.parent / "texts.csv"
    path.write_bytes('\ufefftext,label\r\n"a cat, sat",1\r\n"no\nsmall",2\r\n'.encode())

    samples = _open(path, label="label")
    assert [_lists(sample)["input_ids"] for sample in samples] == [
        [[CLS, A, CAT, UNK, SAT, SEP]],
        [[CLS, NO, SMALL, SEP]],
    ]
    assert [int(sample.label) for sample in samples if sample.label is not None] == [1, 2]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085"])
def test_rows_end_at_newlines_only(tokenizer: Path, separator: str) -> None:
    path = tokenizer.parent / "texts.jsonl"
    path.write_text(f'{{"text": "a{separator}cat"}}\n\n', encoding="utf-8")

    (sample,) = _open(path)
    assert _lists(sample)["input_ids"] == [[CLS, A, CAT, SEP]]


def test_limit(tokenizer: Path) -> None:
    assert len(_open(_rows(tokenizer.parent, *[{"text": "cat"}] * 5), limit=3)) == 3


# Fingerprint


def test_fingerprint_follows_rows_tokenizer_and_use(tokenizer: Path) -> None:
    folder = tokenizer.parent
    path = _rows(folder, {"text": "a cat"}, {"text": "no"})
    first = _open(path).fingerprint
    variants = {_open(path, max_length=4).fingerprint, _open(path, limit=1).fingerprint}
    moved = folder / "moved"
    moved.mkdir()
    for name in (path.name, tokenizer.name):
        (folder / name).rename(moved / name)
        os.utime(moved / name, (1, 1))

    assert _open(moved / path.name).fingerprint == first
    _rows(moved, {"text": "a cat"}, {"text": "no "})
    variants.add(_open(moved / path.name).fingerprint)
    _rows(moved, {"text": "a cat"}, {"text": "no"})
    (moved / tokenizer.name).write_text((moved / tokenizer.name).read_text() + " ")
    variants.add(_open(moved / path.name).fingerprint)
    assert len(variants | {first}) == 5


# What cannot be used


@pytest.mark.parametrize(
    ("name", "content", "what", "where"),
    [
        ("t.jsonl", b'{"text": "a"}\n{"text": \n', "the line is no JSON: Expecting value", "t.jsonl:2"),
        ("t.jsonl", b'{"text": "a"}\n\n["text"]\n', "the line is no JSON object", "t.jsonl:3"),
        ("t.jsonl", b"", "there are no rows", "t.jsonl"),
        ("t.jsonl", b"\xff\xfe", "cannot read the texts: ", "t.jsonl"),
        ("t.jsonl", b'{"text": "a"}\n{"txt": "b"}\n', "row 2 has no 'text'", "t.jsonl"),
        ("t.jsonl", b'{"text": null}\n', "row 1 has no 'text'", "t.jsonl"),
        ("t.csv", b"words\nhello\n", "row 1 has no 'text'", "t.csv"),
        ("t.csv", b"text,label\na,1\nb, c,2\n", "the row has more fields than the header", "t.csv:3"),
        ("t.csv", b"label,text\n1,a\n2\n", "row 2 has no 'text'", "t.csv"),
        ("t.csv", b"text,label\n", "there are no rows", "t.csv"),
    ],
)
def test_files_that_are_no_texts(tokenizer: Path, name: str, content: bytes, what: str, where: str) -> None:
    path = tokenizer.parent / name
    path.write_bytes(content)

    with pytest.raises(DataError) as caught:
        _open(path)
    assert caught.value.what.startswith(what)
    assert (caught.value.where or "").endswith(where)


def test_a_missing_column_tells_what_there_is(tokenizer: Path) -> None:
    path = _rows(tokenizer.parent, {"text": "a", "label": 1})

    with pytest.raises(DataError) as caught:
        _open(path, pair="second")
    assert caught.value.what == "row 1 has no 'second'"
    assert caught.value.hint == "it has: text, label"


def test_a_missing_file(tokenizer: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read the texts: .*No such file"):
        _open(tokenizer.parent / "none.jsonl")


def test_a_missing_tokenizer(tokenizer: Path) -> None:
    path = _rows(tokenizer.parent, {"text": "a"})

    with pytest.raises(DataError, match=f"there is no file {tokenizer.parent}/other.json"):
        _open(path, tokenizer="other.json")


def test_a_damaged_tokenizer(tokenizer: Path) -> None:
    path = _rows(tokenizer.parent, {"text": "a"})
    tokenizer.write_text(tokenizer.read_text()[:100])

    with pytest.raises(DataError, match=r"cannot read the tokenizer: .") as caught:
        _open(path)[0]
    assert caught.value.where == str(tokenizer)
