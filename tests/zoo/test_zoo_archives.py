from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from zoo_stand_ins import FILES, debian, tarball, wheel

from onnxopt_zoo.archives import matching, unpack
from onnxopt_zoo.errors import ArchiveError


def _saved(tmp_path: Path, name: str, content: bytes) -> Path:
    file = tmp_path / name
    file.write_bytes(content)
    return file


@pytest.mark.parametrize(("name", "pack"), [("a.whl", wheel), ("a.tgz", tarball), ("a.deb", debian)])
def test_wanted_files_are_unpacked(tmp_path: Path, name: str, pack: Callable[..., bytes]) -> None:
    archive = _saved(tmp_path, name, pack(FILES))
    assert unpack(archive, tmp_path / "out", matching(["tiny/data/*"])) == ["tiny/data/words.txt"]
    assert (tmp_path / "out/tiny/data/words.txt").read_bytes() == b"one two"
    assert not (tmp_path / "out/tiny/model.onnx").exists()


def test_a_leading_dot_of_a_debian_member_is_dropped(tmp_path: Path) -> None:
    archive = _saved(tmp_path, "a.deb", debian({"./usr/share/a.txt": b"a"}))
    assert unpack(archive, tmp_path / "out", matching(["usr/*"])) == ["usr/share/a.txt"]


@pytest.mark.parametrize("pack", [wheel, tarball])
@pytest.mark.parametrize("name", ["../evil.txt", "/etc/evil.txt", "tiny/../../evil.txt", "..\\evil.txt"])
def test_members_may_not_leave_the_folder(tmp_path: Path, name: str, pack: Callable[..., bytes]) -> None:
    archive = _saved(tmp_path, "archive", pack({**FILES, name: b"evil"}))
    with pytest.raises(ArchiveError, match="outside its folder") as raised:
        unpack(archive, tmp_path / "a" / "out", matching(["*"]))
    assert raised.value.where == str(archive)
    assert not list(tmp_path.rglob("evil.txt"))


def test_even_an_unwanted_member_that_leaves_condemns_the_archive(tmp_path: Path) -> None:
    archive = _saved(tmp_path, "a.whl", wheel({**FILES, "../evil.txt": b"evil"}))
    with pytest.raises(ArchiveError, match="hostile"):
        unpack(archive, tmp_path / "out", matching(["tiny/*"]))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_a_wanted_link_or_device_in_a_tarball_is_refused(tmp_path: Path, kind: bytes) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as opened:
        info = tarfile.TarInfo("tiny/link")
        info.type, info.linkname = kind, "/etc/passwd"
        opened.addfile(info)
    archive = _saved(tmp_path, "a.tar", buffer.getvalue())
    with pytest.raises(ArchiveError, match="a link or a device"):
        unpack(archive, tmp_path / "out", matching(["*"]))
    assert unpack(archive, tmp_path / "out", matching(["other"])) == []


def test_a_wanted_link_in_a_wheel_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        info = zipfile.ZipInfo("tiny/link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened.writestr(info, "/etc/passwd")
    with pytest.raises(ArchiveError, match="a link or a device"):
        unpack(_saved(tmp_path, "a.whl", buffer.getvalue()), tmp_path / "out", matching(["*"]))


@pytest.mark.parametrize("name", ["a.whl", "a.tgz", "a.deb"])
@pytest.mark.parametrize("content", [b"", b"not an archive at all", wheel(FILES)[:40], debian(FILES)[:200]])
def test_a_damaged_archive_is_an_error_that_says_so(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(ArchiveError) as raised:
        unpack(_saved(tmp_path, name, content), tmp_path / "out", matching(["*"]))
    assert raised.value.where == str(tmp_path / name)
