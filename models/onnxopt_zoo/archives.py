"""Take files out of an archive without running anything in it: wheels, source and npm tarballs, Debian packages."""

from __future__ import annotations

import fnmatch
import io
import lzma
import stat
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol

from onnxopt_zoo.errors import ArchiveError

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER = 60  # bytes; name in [0:16], decimal size in [48:58], see deb(5) and ar(5)


class Wanted(Protocol):
    """Says whether a member is to be unpacked."""

    def __call__(self, name: str) -> bool:
        """Answer for one member name."""
        ...


def matching(patterns: Iterable[str]) -> Wanted:
    """Return a test for names that match one of the shell ``patterns`` (``*`` also crosses ``/``)."""
    chosen = tuple(patterns)
    return lambda name: any(fnmatch.fnmatchcase(name, pattern) for pattern in chosen)


def unpack(archive: Path, folder: Path, wanted: Wanted) -> list[str]:
    """Write the wanted regular files of ``archive`` below ``folder`` and return their names, sorted.

    Raises:
        ArchiveError: The archive is damaged, any member name leaves the folder, or a wanted member is a link.
    """
    try:
        names = [_write(folder, name, content) for name, content in _members(archive, wanted)]
    except (zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, EOFError, ValueError) as error:
        raise ArchiveError(
            f"cannot unpack: {error}", where=str(archive), hint="delete the file and fetch it again"
        ) from error
    return sorted(names)


def _members(archive: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    if archive.suffix == ".deb":
        return _tar_members(_debian_data(archive), archive, wanted)
    if zipfile.is_zipfile(archive):
        return _zip_members(archive, wanted)
    return _tar_members(io.BytesIO(archive.read_bytes()), archive, wanted)


def _zip_members(archive: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            name = _safe(info.filename, archive)
            if info.is_dir() or not wanted(name):
                continue
            if stat.S_ISLNK(info.external_attr >> 16):
                raise _link(name, archive)
            yield name, opened.read(info)


def _tar_members(file: io.BytesIO, archive: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=file) as opened:
        for info in opened:
            name = _safe(info.name, archive)
            if info.isdir() or not wanted(name):
                continue
            content = opened.extractfile(info) if info.isreg() else None
            if content is None:
                raise _link(name, archive)
            yield name, content.read()


def _debian_data(archive: Path) -> io.BytesIO:
    """Return the tarball with the files of a Debian package, which is an ar archive of three parts."""
    content = archive.read_bytes()
    if not content.startswith(_AR_MAGIC):
        raise ArchiveError("not a Debian package", where=str(archive), hint="delete the file and fetch it again")
    at = len(_AR_MAGIC)
    while at + _AR_HEADER <= len(content):
        header = content[at : at + _AR_HEADER]
        start, size = at + _AR_HEADER, int(header[48:58])
        if header.startswith(b"data.tar"):
            return io.BytesIO(content[start : start + size])
        at = start + size + size % 2  # parts begin at even offsets
    raise ArchiveError("a Debian package without files", where=str(archive))


def _safe(name: str, archive: Path) -> str:
    """Return ``name`` without a leading ``./``; refuse the archive if it points outside its folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise ArchiveError(
            f"member {name!r} would be written outside its folder",
            where=str(archive),
            hint="do not use this archive: it is hostile or damaged",
        )
    return str(path)


def _link(name: str, archive: Path) -> ArchiveError:
    return ArchiveError(f"member {name!r} is a link or a device, not a file", where=str(archive))


def _write(folder: Path, name: str, content: bytes) -> str:
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    return name
