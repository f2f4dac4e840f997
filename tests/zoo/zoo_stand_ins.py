"""Packages and registries that exist only in a test."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxopt_zoo.archives import matching, unpack
from onnxopt_zoo.files import listing, sha256_of
from onnxopt_zoo.manifest import Package

FILES = {"tiny/model.onnx": b"not really a model", "tiny/data/words.txt": b"one two"}


@dataclass
class Registry:
    """Stands in for pip, npm and apt-get: it copies archives from a folder, and remembers what it was asked."""

    archives: Mapping[str, bytes]
    asked: list[Sequence[str]] = field(default_factory=list)

    def __call__(self, command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
        self.asked.append(command)
        for name, content in self.archives.items():
            (folder / name).write_bytes(content)
        return subprocess.CompletedProcess(command, 0, "", "")


def refuse(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Stand in for a machine without network."""
    raise AssertionError(f"a process was started: {command}")


def wheel(files: Mapping[str, bytes]) -> bytes:
    """Return a zip archive of the files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, content in files.items():
            opened.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def tarball(files: Mapping[str, bytes], mode: str = "w:gz") -> bytes:
    """Return a tar archive of the files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as opened:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def debian(files: Mapping[str, bytes]) -> bytes:
    """Return a Debian package with the files: an ar archive of a version, a control part and the data."""
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": tarball({"./control": b"Package: x\n"}, "w:xz"),
        "data.tar.xz": tarball(files, "w:xz"),
    }
    packed = b"!<arch>\n"
    for name, content in parts.items():
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n"
        packed += header.encode() + content + b"\n" * (len(content) % 2)
    return packed


def described(archive: bytes, name: str, tmp_path: Path, **changes: Any) -> Package:
    """Return the manifest's entry for an archive, all of its hashes right."""
    folder = tmp_path / f"described-{hashlib.sha256(archive).hexdigest()[:8]}"
    (folder / "files").mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_bytes(archive)
    unpack(file, folder / "files", matching(["*"]))
    fields: dict[str, Any] = {
        "kind": "pypi",
        "name": "tiny",
        "version": "1.0",
        "archive": name,
        "sha256": sha256_of(file),
        "wanted": ("*",),
        "contents_sha256": hashlib.sha256(listing(folder / "files").encode()).hexdigest(),
        "megabytes": 0.1,
        "licence": "MIT",
    }
    return Package.model_validate(fields | changes)
