"""Hashes of files and folders, and writing that is either complete or absent."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BLOCK = 1 << 20  # bytes


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def listing(folder: Path) -> str:
    """Return one line ``sha256  name`` for every file below ``folder``, sorted by name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return "".join(f"{sha256_of(path)}  {path.relative_to(folder).as_posix()}\n" for path in files)


def sha256_of_folder(folder: Path) -> str:
    """Return the SHA-256 of a folder's listing, which changes with any file's name or content."""
    return hashlib.sha256(listing(folder).encode()).hexdigest()


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``target``; it takes ``target``'s place only if the block succeeds."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        fresh = temporary / "new"
        fresh.mkdir()
        yield fresh
        if target.exists():
            target.rename(temporary / "old")
        fresh.rename(target)
    finally:
        shutil.rmtree(temporary)
