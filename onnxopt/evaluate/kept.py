"""What a pass keeps of long work between runs, in a file named by the content of all it depends on."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Kept:
    """A JSON value that outlives the run; nothing is kept where ``path`` is None."""

    path: Path | None

    @classmethod
    def of(cls, folder: Path | None, what: str, *parts: object) -> Kept:
        """Return the place of a value.

        Args:
            folder: ``Context.kept``, which is another for each build of this program.
            what: A word for it.
            parts: All it depends on besides the version of onnxruntime.
        """
        key = hashlib.sha256(repr((version("onnxruntime"), parts)).encode()).hexdigest()
        return cls(None if folder is None else folder / f"{what}-{key}.json")

    def read(self) -> Any:
        """Return the value; None if there is none, or it is damaged."""
        if self.path is None or not self.path.exists():
            return None
        try:
            return json.loads(self.path.read_text())
        except ValueError:
            return None

    def write(self, value: Any) -> None:
        """Keep a value; it appears whole or not at all."""
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self.path.parent, suffix=".writing", delete=False) as unfinished:
                json.dump(value, unfinished)
            Path(unfinished.name).replace(self.path)


NOWHERE = Kept(None)
"""For work that is not kept."""
