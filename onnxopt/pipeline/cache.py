"""Results by what they were made from. An entry appears whole or not at all, and is checked before it is used.

The key is the SHA-256 of named parts: pass, options, input digest, data, versions, machine. The parts are stored
with the entry, so that "why did this run again?" has an answer. Failures are never stored.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxopt.errors import OutputError

Parts = Mapping[str, Any]
FORMAT = "v1"
_ENTRY = "entry.json"
_MAKING = "making-"
_ABANDONED_SECONDS = 24 * 3600.0
"""A folder in the making and this old belongs to a process that was killed."""


@dataclass(frozen=True)
class Entry:
    """A stored result.

    Attributes:
        folder: Where its files are.
        value: What the step returned besides files, as JSON.
        parts: What it was made from.
        seconds: How long it took to make.
        files: SHA-256 by file name.
    """

    folder: Path
    value: Any
    parts: dict[str, Any]
    seconds: float
    files: dict[str, str]


@dataclass(frozen=True)
class Lookup:
    """An answer from the cache: the entry, or why there is none."""

    entry: Entry | None
    reason: str


class Cache:
    """A folder of entries; several processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._entries = root / FORMAT
        self._last = root / "last"
        self.kept = root / "kept"
        """Where steps keep what they have of unfinished work, in files named by content."""

    def look_up(self, parts: Parts, label: str) -> Lookup:
        """Return the entry made from exactly these parts, or the reason why there is none.

        Args:
            parts: Everything the result depends on.
            label: Names the step over several runs, so that a miss can tell what changed since the last.
        """
        folder = self._folder(parts)
        entry = _read(folder)
        if entry is None:
            return Lookup(None, self._why_missing(parts, label))
        damaged = _damaged_file(entry)
        if damaged is not None:
            self._remove(folder)
            return Lookup(None, f"the cached {damaged} was damaged")
        self._remember(parts, label)
        return Lookup(entry, "cached")

    def store(self, parts: Parts, label: str, make: Callable[[Path], Any]) -> Entry:
        """Make an entry: ``make`` writes files into the folder it is given and returns a JSON value.

        Nothing is stored if it raises. If another process stored the same entry meanwhile, that one is returned.
        """
        folder = self._folder(parts)
        with self._scratch() as scratch:
            started = time.perf_counter()
            value = make(scratch)
            seconds = time.perf_counter() - started
            files = {file.name: file_digest(file) for file in sorted(scratch.iterdir())}
            body = {"value": value, "parts": dict(parts), "seconds": seconds, "files": files}
            (scratch / _ENTRY).write_text(json.dumps(body))
            folder.parent.mkdir(parents=True, exist_ok=True)
            if folder.exists() and _read(folder) is None:
                self._remove(folder)
            try:
                os.rename(scratch, folder)  # noqa: PTH104  (must fail if the target is a full folder)
            except OSError:
                if _read(folder) is None:
                    raise
        self._remember(parts, label)
        entry = _read(folder)
        assert entry is not None
        return entry

    def entries(self) -> Iterator[Entry]:
        """Yield every entry."""
        for folder in self._folders():
            entry = _read(folder)
            if entry is not None:
                yield entry

    def size(self) -> int:
        """Return the bytes of all entries and of unfinished work."""
        folders = (self._entries, self.kept)
        return sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file())

    def clear(self) -> None:
        """Remove every entry; what else lies in the folder is not this cache's."""
        for folder in (self._entries, self._last, self.kept):
            if folder.is_dir():
                shutil.rmtree(folder)

    def clean(self) -> int:
        """Remove damaged entries and what killed processes left; return how many folders went."""
        now = time.time()
        making = [f for f in self._entries.glob(f"{_MAKING}*") if now - f.stat().st_mtime > _ABANDONED_SECONDS]
        gone = [*self.damaged(), *making]
        for folder in gone:
            self._remove(folder)
        return len(gone)

    def damaged(self) -> list[Path]:
        """Return the folders of entries that cannot be read, or whose files are not what was stored."""
        return [folder for folder in self._folders() if not _is_whole(folder)]

    def _folders(self) -> list[Path]:
        return sorted(self._entries.glob("[0-9a-f][0-9a-f]/*"))

    def _remove(self, folder: Path) -> None:
        """Remove a folder that other processes may be looking at: under its name it is gone at once."""
        try:
            aside = Path(tempfile.mkdtemp(prefix=_MAKING, dir=self._entries))
            folder.rename(aside / "removed")
        except OSError:
            return  # another process was faster, or may write here and we may not
        shutil.rmtree(aside, ignore_errors=True)

    def _folder(self, parts: Parts) -> Path:
        key = parts_key(parts)
        return self._entries / key[:2] / key

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        folder: Path | None = None
        try:
            self._entries.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=_MAKING, dir=self._entries))
            yield folder
        except OSError as error:
            if not self._is_ours(error):
                raise
            hint = "choose another with --cache, or free some space"
            raise OutputError(f"the cache {self.root} cannot be written: {error.strerror}", hint=hint) from error
        finally:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    def _is_ours(self, error: OSError) -> bool:
        """Whether an error is about this folder, and not about something a step read."""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
        return full or (isinstance(error.filename, str) and Path(error.filename).is_relative_to(self.root))

    def _why_missing(self, parts: Parts, label: str) -> str:
        try:
            before: dict[str, Any] = json.loads(self._label_file(label).read_text())
        except (OSError, ValueError):
            return "never run before"
        changed = [name for name, value in _plain(parts).items() if before.get(name) != value]
        return f"changed: {', '.join(changed)}" if changed else "its cached result is gone"

    def _remember(self, parts: Parts, label: str) -> None:
        """Note what a step was made from; where nothing can be written, only the next miss is explained worse."""
        with suppress(OSError):
            self._write_label(parts, label)

    def _write_label(self, parts: Parts, label: str) -> None:
        file = self._label_file(label)
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent)
        with os.fdopen(handle, "w") as stream:
            json.dump(_plain(parts), stream)
        Path(name).replace(file)

    def _label_file(self, label: str) -> Path:
        return self._last / f"{hashlib.sha256(label.encode()).hexdigest()[:32]}.json"


def parts_key(parts: Parts) -> str:
    """Return the SHA-256 of parts, whatever their order."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes; empty if it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""


def _read(folder: Path) -> Entry | None:
    try:
        body = json.loads((folder / _ENTRY).read_text())
        return Entry(folder, body["value"], body["parts"], body["seconds"], body["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_whole(folder: Path) -> bool:
    entry = _read(folder)
    return entry is not None and _damaged_file(entry) is None


def _damaged_file(entry: Entry) -> str | None:
    """Return the name of a file that no longer has the content it was stored with."""
    return next((name for name, sha in entry.files.items() if file_digest(entry.folder / name) != sha), None)


def _plain(parts: Parts) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(parts))
    return plain
