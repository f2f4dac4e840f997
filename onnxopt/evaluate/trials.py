"""Trying variants of a model: what each does to the outputs on a few samples, in a child that is kept."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx_ir

from onnxopt.compile.isolation import Limits, PersistentChild
from onnxopt.compile.ort import OnnxRuntime
from onnxopt.data.files import SampleFiles, write_samples
from onnxopt.data.sample import InMemory, Samples
from onnxopt.errors import UnverifiableError
from onnxopt.evaluate.drift import EXACT_DB, compare_outputs
from onnxopt.evaluate.store import OutputStore
from onnxopt.ir.model import Model, normalise
from onnxopt.ir.write import write_model
from onnxopt.targets.machine import processor
from onnxopt.targets.target import Target, local_target

_LIMITS = Limits(seconds=1800)


class Trials:
    """Runs variants of a model on a few samples and holds them against the model. Close it."""

    def __init__(self, graph: onnx_ir.Model, samples: Samples, scratch: Path) -> None:
        """Run the model.

        Args:
            graph: Of the model.
            samples: To run; held in memory.
            scratch: A folder for temporary files.

        Raises:
            UnverifiableError: No float output varies, so that no trial could show anything.
        """
        self._folder = Path(tempfile.mkdtemp(dir=scratch))
        self._child = PersistentChild(_LIMITS)
        self.samples = InMemory(tuple(samples))
        write_samples(self.samples, self._folder / "samples")
        (self._folder / "reference").mkdir()
        self.original = self.write(graph, "original")
        self._call("run_reference", self.original)
        if self._call("fidelity_of", self.original) is None:
            raise UnverifiableError("no float output varies on the samples, so that no change's damage would show")

    def fidelity_of(self, graph: onnx_ir.Model) -> float:
        """Return the lowest SQNR of a float output, dB, of a variant, which gets its names put in order."""
        normalise(graph)
        found = self._call("fidelity_of", self.write(graph, "variant"))
        return -EXACT_DB if found is None else found

    def noise_of(self, graph: onnx_ir.Model) -> float:
        """Return the power of the error of the output that loses most, over that of the output."""
        return float(10 ** (-self.fidelity_of(graph) / 10))

    def write(self, graph: onnx_ir.Model, name: str) -> Path:
        """Return the file of a graph; valid until one of that name is written again."""
        path = self._folder / f"{name}.onnx"
        write_model(Model(graph), path)
        return path

    def close(self) -> None:
        """End the process variants are run in."""
        self._child.close()

    def _call(self, function: str, model: Path) -> float | None:
        answer: float | None = self._child.function(f"{__name__}:{function}", str(model), str(self._folder))
        return answer


def run_reference(model: str, folder: str) -> None:
    """Keep the model's outputs; called in the child."""
    store = OutputStore(Path(folder) / "reference")
    with OnnxRuntime(spinning=False).compile(Path(model), _whole_machine()) as engine:
        for index, sample in enumerate(_samples(folder)):
            store.write(index, engine.run(sample.feeds))


def fidelity_of(model: str, folder: str) -> float | None:
    """Return the lowest SQNR of a float output that varies, None if there is none; called in the child."""
    store = OutputStore(Path(folder) / "reference")
    with OnnxRuntime(spinning=False).compile(Path(model), _whole_machine()) as engine:
        pairs = ((store.read(index), engine.run(sample.feeds)) for index, sample in enumerate(_samples(folder)))
        drift = compare_outputs(pairs)
    return -EXACT_DB if any(output.nonfinite for output in drift.outputs) else drift.sqnr_db


def _samples(folder: str) -> SampleFiles:
    return SampleFiles(tuple(sorted((Path(folder) / "samples").glob("*.npz"))))


def _whole_machine() -> Target:
    return local_target().with_threads(processor().cores)
