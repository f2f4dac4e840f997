"""Texts in JSON lines or CSV, and the tokenizer file that turns them into ids."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from onnxopt.data.labels import parse_label
from onnxopt.data.sample import Array, Sample, Samples
from onnxopt.data.source import Source, need
from onnxopt.errors import DataError, MissingExtraError
from onnxopt.ir.model import Model
from onnxopt.options import option, options


@options
class Text(Source):
    """One text, or a pair, a row; each becomes a batch of one, as long as its tokens."""

    name: ClassVar[str] = "text"
    libraries: ClassVar[tuple[str, ...]] = ("tokenizers",)

    text: str = option("a .jsonl or .csv file")
    tokenizer: str = option("a tokenizer.json (Hugging Face tokenizers)")
    column: str = option("the key or column of the text", default="text")
    pair: str | None = option("the key or column of a second text, encoded together with the first", default=None)
    label: str | None = option("the key or column of the ground truth", default=None)
    ids: str = option("the model's input of token ids", default="input_ids")
    mask: str = option("the model's input of ones at tokens; skipped if the model has none", default="attention_mask")
    types: str = option("the model's input of segment ids; skipped if the model has none", default="token_type_ids")
    max_length: int = option("longer texts are cut to so many tokens", default=128, ge=1)
    pad: bool = option("pad every text to max_length, for models of a fixed length", default=False)
    limit: int | None = option("use only the first so many rows", default=None, ge=1)

    def open(self, model: Model, base: Path) -> Samples:
        """Return the rows in order."""
        rows = _read_rows(base / self.text)[: self.limit]
        need(bool(rows), "there are no rows", self.text)
        for number, row in enumerate(rows, start=1):
            have = [key for key, value in row.items() if value is not None]
            for key in filter(None, (self.column, self.pair, self.label)):
                need(key in have, f"row {number} has no {key!r}", self.text, f"it has: {', '.join(have)}")
        tokenizer = base / self.tokenizer
        need(tokenizer.is_file(), f"there is no file {tokenizer}", self.text, "tokenizer: the model's tokenizer.json")
        inputs = {port.name: port.dtype for port in model.signature.inputs}
        return _Rows(self, tuple(rows), tokenizer, inputs)


@dataclass(frozen=True, eq=False)
class _Rows(Samples):
    spec: Text
    rows: tuple[Mapping[str, Any], ...]
    tokenizer_file: Path
    inputs: Mapping[str, str]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the rows, the tokenizer file and how they are used."""
        sha = hashlib.sha256(json.dumps([self.spec.reading, self.rows], sort_keys=True, default=str).encode())
        sha.update(self.tokenizer_file.read_bytes())
        return sha.hexdigest()

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer, set to cut (and pad) as the description says."""
        tokenizer = _load_tokenizer(self.tokenizer_file)
        tokenizer.enable_truncation(self.spec.max_length)
        padding = tokenizer.padding or {}
        tokenizer.no_padding()
        if self.spec.pad:
            tokenizer.enable_padding(**{**padding, "length": self.spec.max_length})
        return tokenizer

    def read(self, index: int) -> Sample:
        """Tokenize one row."""
        row, spec = self.rows[index], self.spec
        encoded = self.tokenizer.encode(str(row[spec.column]), str(row[spec.pair]) if spec.pair else None)
        found = {spec.ids: encoded.ids, spec.mask: encoded.attention_mask, spec.types: encoded.type_ids}
        feeds = {name: np.asarray([found[name]], dtype=kind) for name, kind in self.inputs.items() if name in found}
        return Sample(f"{spec.text}[{index}]", feeds, self._label(row))

    def _label(self, row: Mapping[str, Any]) -> Array | None:
        if self.spec.label is None:
            return None
        value = row[self.spec.label]
        return parse_label(value) if isinstance(value, str) else np.asarray(value)

    def __len__(self) -> int:
        return len(self.rows)


def _read_rows(path: Path) -> list[Mapping[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the texts: {error}", where=str(path)) from error
    return _csv_rows(text, path) if path.suffix == ".csv" else _json_rows(text, path)


def _csv_rows(text: str, path: Path) -> list[Mapping[str, Any]]:
    reader = csv.DictReader(io.StringIO(text), restkey="")
    rows: list[Mapping[str, Any]] = []
    try:
        for row in reader:
            need("" not in row, "the row has more fields than the header", f"{path}:{reader.line_num}", "quote commas")
            rows.append(row)
    except csv.Error as error:
        raise DataError(f"cannot read the texts: {error}", where=f"{path}:{reader.line_num}") from error
    return rows


def _json_rows(text: str, path: Path) -> list[Mapping[str, Any]]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise DataError(f"the line is no JSON: {error.msg}", where=f"{path}:{number}") from error
        need(isinstance(rows[-1], dict), "the line is no JSON object", f"{path}:{number}")
    return rows


def _load_tokenizer(path: Path) -> Any:
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError as error:
        raise MissingExtraError("texts need tokenizers", hint="pip install 'onnxopt[text]'") from error
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:
        raise DataError(f"cannot read the tokenizer: {error}", where=str(path)) from error
