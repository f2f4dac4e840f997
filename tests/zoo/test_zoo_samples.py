from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxopt.errors import DataError
from onnxopt_zoo.files import sha256_of_folder
from onnxopt_zoo.samples import Sample, Samples, write_samples


def _sample(value: float, origin: str, label: int | None = None) -> Sample:
    inputs = {"gpu_0/data:0": np.full((1, 2), value, np.float32)}
    return Sample(inputs, (origin,), None if label is None else np.array([label]))


def test_a_file_has_an_array_for_each_input_and_one_for_the_label(tmp_path: Path) -> None:
    write_samples(Samples([_sample(1, "a")], [_sample(2, "b", 7)]), tmp_path)
    with np.load(tmp_path / "calibration/0000.npz") as saved:
        assert saved.files == ["gpu_0/data:0"]
        assert saved["gpu_0/data:0"].dtype == np.float32
    with np.load(tmp_path / "evaluation/0000.npz") as saved:
        assert saved.files == ["gpu_0/data:0", "label"]
        assert saved["label"].tolist() == [7]


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_samples(Samples([_sample(1, "a")], [_sample(2, "b", 7)]), tmp_path / name)
    assert sha256_of_folder(tmp_path / "one") == sha256_of_folder(tmp_path / "two")


@pytest.mark.parametrize(
    ("calibration", "evaluation", "where"),
    [
        (_sample(1, "a photo"), _sample(2, "a photo"), "origin a photo"),
        (_sample(1, "a"), _sample(1, "b"), "content "),
    ],
    ids=["origin", "content"],
)
def test_what_is_evaluated_on_may_not_calibrate(
    tmp_path: Path, calibration: Sample, evaluation: Sample, where: str
) -> None:
    with pytest.raises(DataError, match="both calibrated and evaluated on") as raised:
        write_samples(Samples([calibration, _sample(3, "c")], [evaluation]), tmp_path)
    assert str(raised.value.where).startswith(where)


def test_objects_are_refused(tmp_path: Path) -> None:
    sample = Sample({"x": np.array([{}], dtype=object)}, ("a",))
    with pytest.raises(DataError, match="Python objects") as raised:
        write_samples(Samples([sample], []), tmp_path)
    assert "calibration/0000.npz" in str(raised.value.where)
    assert not list(tmp_path.rglob("*.npz"))
