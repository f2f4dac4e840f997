"""What leaving out residual blocks does to a model on samples: each has a switch, and the model runs in a child."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir

from onnxopt.compile.engine import Array, Engine, Feeds, Results
from onnxopt.compile.isolation import Child, Limits
from onnxopt.compile.ort import OnnxRuntime
from onnxopt.context import Context, Progress
from onnxopt.data.files import SampleFiles, write_samples
from onnxopt.data.sample import InMemory, Samples
from onnxopt.errors import PassError, UnverifiableError, UsageError, did_you_mean
from onnxopt.evaluate.collect import write_watched
from onnxopt.evaluate.drift import EXACT_DB, Drift, compare_outputs
from onnxopt.evaluate.kept import Kept
from onnxopt.evaluate.store import OutputStore
from onnxopt.ir.model import Model, normalise, private_copy
from onnxopt.ir.write import write_model
from onnxopt.prune.blocks import Block, named_values
from onnxopt.targets.machine import processor
from onnxopt.targets.target import local_target

_LIMITS = Limits(seconds=1800)
_LEAST_OPSET = 9
"""Of Where, which a switch is."""

_SWITCH = "onnxopt_dropped_{}"


class DropTrials:
    """Runs a model with blocks left out and holds it against the whole one. Close it.

    One engine runs all trials, for each block's end is chosen by an input: no model is written or loaded for a trial.
    """

    def __init__(
        self, graph: onnx_ir.Model, blocks: Sequence[Block], samples: Samples, outputs: Collection[str], ctx: Context
    ) -> None:
        """Make the model with switches.

        Args:
            graph: Sorted and uniquely named.
            blocks: Of it, in its order.
            samples: To run; held in memory.
            outputs: Names of the outputs that count; all if there are none.
            ctx: Gives ``scratch``, and ``kept``, where damage is found again; told of progress.

        Raises:
            PassError: The opset is too old for switches.
            UsageError: There is no output of a name.
        """
        _check(graph, outputs)
        self._graph, self._blocks, self._outputs, self._ctx = graph, blocks, tuple(outputs), ctx
        self._samples = InMemory(tuple(samples))
        self._folder = Path(tempfile.mkdtemp(dir=ctx.scratch))
        self._child: Child | None = None
        self._kept = Kept.of(ctx.kept, "blocks", Model(graph).digest, self._samples.fingerprint, blocks, self._outputs)
        self._known: dict[str, float] = self._kept.read() or {}

    def damage(self, dropped: Collection[int]) -> float:
        """Return the power of the error over that of the outputs with these blocks left out, at the worst output.

        Raises:
            UnverifiableError: No float output that counts varies on the samples.
        """
        key = ",".join(map(str, sorted(dropped)))
        if key not in self._known:
            found: float | None = self._started().call("sqnr_db", sorted(dropped))
            if found is None:
                raise UnverifiableError(
                    "no float output varies on the samples, so that no block's damage would show",
                    hint="give other data, or choose criterion=similarity",
                )
            self._known[key] = found
            self._kept.write(self._known)
            self._ctx.emit(Progress("leaving out blocks", len(self._known)))
        return float(10 ** (-self._known[key] / 10))

    def close(self) -> None:
        """End the process models run in."""
        if self._child is not None:
            self._child.close()

    def _started(self) -> Child:
        if self._child is None:
            path = self._folder / "switched.onnx"
            write_model(Model(switched(self._graph, self._blocks)), path)
            write_samples(self._samples, self._folder / "samples")
            self._child = Child(_LIMITS)
            place = "onnxopt.prune.dropping:SwitchedModel"
            self._child.make(place, str(path), str(self._folder), len(self._blocks), self._outputs)
        return self._child


def block_influences(graph: onnx_ir.Model, blocks: Sequence[Block], samples: Samples, ctx: Context) -> Sequence[float]:
    """Return one minus the mean cosine similarity of what each block starts from and ends in (arXiv:2403.03853).

    It is taken along the channels: the last axis, or the second of images.

    Args:
        graph: Sorted and uniquely named.
        blocks: Of it.
        samples: To run.
        ctx: Gives ``scratch``.
    """
    values = named_values(graph.graph)
    watched = [values[name] for name in dict.fromkeys(name for block in blocks for name in (block.start, block.end))]
    folder = Path(tempfile.mkdtemp(dir=ctx.scratch))
    path = write_watched(graph, watched, folder)
    write_samples(samples, folder / "samples")
    pairs = [(block.start, block.end) for block in blocks]
    with Child(_LIMITS) as child:
        found: Sequence[float] = child.function("onnxopt.prune.dropping:influences_of", str(path), str(folder), pairs)
    return found


def switched(graph: onnx_ir.Model, blocks: Sequence[Block]) -> onnx_ir.Model:
    """Return a copy with an input a block, bool, that lets what it starts from stand for what it ends in."""
    copy = private_copy(graph)
    values = named_values(copy.graph)
    for place, block in enumerate(blocks):
        end = values[block.end]
        node = end.producer()
        assert node is not None
        switch = onnx_ir.Value(
            name=_SWITCH.format(place), type=onnx_ir.TensorType(onnx_ir.DataType.BOOL), shape=onnx_ir.Shape([])
        )
        copy.graph.inputs.append(switch)
        chosen = onnx_ir.Node("", "Where", [switch, values[block.start], None], name=f"{block.end}_chosen")
        made = chosen.outputs[0]
        made.name, made.type, made.shape = f"{block.end}_chosen", end.type, end.shape
        end.replace_all_uses_with(made, replace_graph_outputs=True)
        chosen.replace_input_with(2, end)
        copy.graph.insert_after(node, chosen)
        values[block.end] = made
    normalise(copy)
    return copy


class SwitchedModel:
    """The child's side: a model with switches, and what it gives with none of them on."""

    def __init__(self, model: str, folder: str, switches: int, outputs: Sequence[str]) -> None:
        """Load a model and run it on samples.

        Args:
            model: The file.
            folder: With the samples; reference outputs are kept there.
            switches: How many there are.
            outputs: Names of the outputs that count; all if there are none. The names of those with a switch differ.
        """
        self._engine = _engine(model)
        self._samples = _samples(folder)
        self._switches = switches
        self._outputs = {name for one in outputs for name in (one, f"{one}_chosen")}
        self._store = OutputStore(Path(folder) / "reference")
        self._store.folder.mkdir()
        for index, sample in enumerate(self._samples):
            self._store.write(index, self._run(sample.feeds, ()))

    def sqnr_db(self, dropped: Collection[int]) -> float | None:
        """Return the lowest SQNR of a float output that varies with these blocks left out; None if there is none."""
        pairs = (
            (self._store.read(index), self._run(sample.feeds, dropped)) for index, sample in enumerate(self._samples)
        )
        drift: Drift = compare_outputs(pairs)
        return -EXACT_DB if any(output.nonfinite for output in drift.outputs) else drift.sqnr_db

    def _run(self, feeds: Feeds, dropped: Collection[int]) -> Results:
        switches = {_SWITCH.format(place): np.asarray(place in dropped) for place in range(self._switches)}
        made = self._engine.run({**feeds, **switches})
        return {name: array for name, array in made.items() if not self._outputs or name in self._outputs}


def influences_of(model: str, folder: str, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """Return one minus the mean cosine similarity of pairs of tensors over samples; called in a child."""
    totals = np.zeros(len(pairs))
    samples = _samples(folder)
    with _engine(model) as engine:
        for sample in samples:
            tensors: Mapping[str, Any] = {**sample.feeds, **engine.run(sample.feeds)}
            totals += [_distance(tensors[start], tensors[end]) for start, end in pairs]
    return [float(total) for total in totals / len(samples)]


def _distance(one: Array, other: Array) -> float:
    axis = 1 if one.ndim > 3 else -1
    a, b = one.astype(np.float64), other.astype(np.float64)
    sizes = np.sqrt(np.square(a).sum(axis) * np.square(b).sum(axis))
    found = 1 - (a * b).sum(axis)[sizes > 0] / sizes[sizes > 0]
    return float(found.mean()) if found.size else 0.0


def _engine(model: str) -> Engine:
    """Return an engine on all cores, whose threads sleep: where others compute too, spinning takes thrice as long."""
    return OnnxRuntime(spinning=False).compile(Path(model), local_target().with_threads(processor().cores))


def _samples(folder: str) -> SampleFiles:
    return SampleFiles(tuple(sorted((Path(folder) / "samples").glob("*.npz"))))


def _check(graph: onnx_ir.Model, outputs: Collection[str]) -> None:
    known = [value.name or "" for value in graph.graph.outputs]
    for name in outputs:
        if name not in known:
            raise UsageError(f"there is no output {name!r}", hint=did_you_mean(name, known))
    opset = graph.opset_imports.get("", 0)
    if opset < _LEAST_OPSET:
        raise PassError(
            f"blocks cannot be left out on trial at opset {opset}, which has no Where",
            hint=f"run convert-opset to {_LEAST_OPSET} or later before, or choose criterion=similarity",
        )
