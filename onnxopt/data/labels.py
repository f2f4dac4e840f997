"""Ground truth in a CSV file beside the samples."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from onnxopt.data.sample import Array
from onnxopt.errors import DataError


def read_labels(path: Path) -> dict[str, Array]:
    """Return labels by file name from a CSV with the columns ``file`` and ``label``.

    A label becomes an integer, else a float, else a string: whatever the text reads as first.

    Raises:
        DataError: The file is missing or has other columns.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            rows = list(csv.DictReader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read the labels: {error}", where=str(path)) from error
    if not rows or not {"file", "label"} <= set(rows[0]):
        raise DataError("labels need a header line 'file,label' and one line a file", where=str(path))
    for number, row in enumerate(rows, start=1):
        if row["file"] is None or row["label"] is None:
            raise DataError("the line has no label", where=f"{path}: line {number} after the header")
    return {row["file"]: parse_label(row["label"]) for row in rows}


def parse_label(text: str) -> Array:
    """Return a text as an int64, float64 or string array of rank 0."""
    for kind in (np.int64, np.float64):
        try:
            return np.asarray(kind(text))
        except (ValueError, OverflowError):
            continue
    return np.asarray(text)


def label_of(labels: dict[str, Array] | None, name: str, where: str) -> Array | None:
    """Return the label of one file; None if there are no labels at all.

    Raises:
        DataError: There are labels, and none for this file.
    """
    if labels is None:
        return None
    if name not in labels:
        raise DataError(f"there is no label for {name!r}", where=where, hint="add a line for it, or remove the file")
    return labels[name]
