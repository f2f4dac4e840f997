"""A runtime for tests: right answers, scripted latencies, and failures on demand."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from onnxopt.compile.engine import Backend, Engine, Feeds, Results
from onnxopt.compile.reference import Reference
from onnxopt.errors import EngineError
from onnxopt.ir.signature import Signature
from onnxopt.options import option, options
from onnxopt.targets.target import Target

_FOREVER = 3600.0


@options
class Fake(Backend):
    """Computes with the reference evaluator and claims the latencies it is told to claim."""

    name: ClassVar[str] = "fake"
    libraries: ClassVar[tuple[str, ...]] = ("onnx",)

    latency: float = option("median seconds an inference claims to take", default=0.001, gt=0)
    noise: float = option("relative standard deviation of the claimed latencies", default=0.01, ge=0)
    seed: int = option("of the noise", default=0)
    error: float = option("relative error added to float outputs", default=0.0, ge=0)
    fails: Literal["never", "raise", "crash", "hang", "memory"] = option("what goes wrong", default="never")
    fails_at: Literal["compile", "run"] = option("where it goes wrong", default="compile")

    def unavailable(self) -> str | None:
        """Return None: nothing needs installing."""
        return None

    def compile(self, model: Path, target: Target) -> Engine:
        """Load the model into the reference evaluator, or fail as told."""
        if self.fails_at == "compile":
            _fail(self.fails)
        return _FakeEngine(Reference().compile(model, target), self)


class _FakeEngine(Engine):
    def __init__(self, inner: Engine, script: Fake) -> None:
        self._inner = inner
        self._script = script
        self._random = np.random.default_rng(script.seed)

    @property
    def signature(self) -> Signature:
        """That of the reference evaluator."""
        return self._inner.signature

    def run(self, feeds: Feeds) -> Results:
        """Return the reference results, with the scripted error, or fail as told."""
        if self._script.fails_at == "run":
            _fail(self._script.fails)
        return {name: self._disturbed(array) for name, array in self._inner.run(feeds).items()}

    def time(self, feeds: Feeds, repeats: int) -> list[float]:
        """Return scripted seconds; nothing is waited for."""
        if self._script.fails_at == "run":
            _fail(self._script.fails)
        factors = 1 + self._script.noise * self._random.standard_normal(repeats)
        return [float(self._script.latency * max(factor, 0.1)) for factor in factors]

    def close(self) -> None:
        """Close the reference evaluator."""
        self._inner.close()

    def _disturbed(self, array: np.ndarray) -> np.ndarray:
        if not self._script.error or array.dtype.kind != "f":
            return array
        size = self._script.error * float(np.sqrt(np.mean(np.square(array))))
        return (array + size * np.random.default_rng(self._script.seed).standard_normal(array.shape)).astype(
            array.dtype
        )


def _fail(how: str) -> None:
    if how == "raise":
        raise EngineError("the fake runtime was told to fail")
    if how == "crash":
        os.abort()
    if how == "hang":
        time.sleep(_FOREVER)
    if how == "memory":
        hoard = [np.ones(1 << 27) for _ in range(1 << 20)]
        raise AssertionError(len(hoard))
