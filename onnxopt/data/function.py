"""Samples from a user's own Python function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from onnxopt.data.sample import InMemory, Sample, Samples
from onnxopt.data.source import Source
from onnxopt.errors import DataError
from onnxopt.ir.model import Model
from onnxopt.options import option, options
from onnxopt.user_code import call_user, code_fingerprint, load_function, raised


@options
class Function(Source):
    """``module:function`` that yields feeds, or pairs of feeds and label."""

    name: ClassVar[str] = "function"

    function: str = option("module:function; it yields {input: array} or ({input: array}, label)")
    arguments: dict[str, Any] = option("keyword arguments for it", default={})
    limit: int = option("take at most so many samples", default=1024, ge=1)

    def open(self, model: Model, base: Path) -> Samples:
        """Call the function and keep what it yields."""
        function = load_function(self.function)
        yielded = call_user(function, self.function, **self.arguments)
        return InMemory(self._collect(yielded), code=code_fingerprint(self.function))

    def _collect(self, yielded: Any) -> tuple[Sample, ...]:
        if not isinstance(yielded, Iterable):
            raise DataError(f"{self.function} returned {type(yielded).__name__}, nothing to iterate over")
        samples = []
        try:
            for index, item in enumerate(islice(yielded, self.limit)):
                samples.append(self._sample(item, f"{self.function}[{index}]"))
        except DataError:
            raise
        except Exception as error:
            raise raised(self.function, error) from error
        if not samples:
            raise DataError(f"{self.function} yielded no samples")
        return tuple(samples)

    def _sample(self, item: Any, where: str) -> Sample:
        feeds, label = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
        if not isinstance(feeds, Mapping):
            raise DataError(
                f"a sample is a {type(feeds).__name__}, not a mapping of input names to arrays",
                where=where,
                hint="yield {'input': array}, or ({'input': array}, label)",
            )
        arrays = {str(name): np.asarray(array) for name, array in feeds.items()}
        return Sample(where, arrays, None if label is None else np.asarray(label))
