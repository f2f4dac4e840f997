"""The child's side of ``collect``: runs samples, several at a time, and keeps a statistic of each tensor.

It is apart from ``collect`` so that the child imports the runtime and little else, which takes a third of the time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from onnxopt.compile.engine import Feeds
from onnxopt.compile.ort import OnnxRuntime, OrtSession
from onnxopt.evaluate.statistic import Statistic
from onnxopt.targets.machine import processor
from onnxopt.targets.target import local_target

_MOST_BYTES = 1 << 28
"""Of tensors that are held for all samples run at a time; models with larger ones run one, on all cores."""

_AT_A_TIME = 8
"""Samples given at a time, and the most that run at once; as many again are read meanwhile."""


class Collector:
    """Runs a sample on each core: faster than one sample on all of them. While some run, others are taken in.

    What is gathered does not depend on how many that are: tensors are taken in in the order of the samples.
    """

    def __init__(self, model: str, statistics: Mapping[str, Statistic]) -> None:
        """Load a model whose outputs are the tensors to watch.

        Args:
            model: Its file.
            statistics: Of tensors by name, inputs among them; they go on from what they have seen.
        """
        self._model = Path(model)
        self._statistics = statistics
        self._idle: SimpleQueue[OrtSession] = SimpleQueue()
        self._pool: ThreadPoolExecutor | None = None

    @property
    def at_a_time(self) -> int:
        """How many samples to give at a time."""
        return _AT_A_TIME

    def add(self, samples: Sequence[Feeds]) -> None:
        """Run samples and take in what their tensors are."""
        self._pool = self._pool or self._started(samples[0])
        tasks: list[Future[None]] = []
        for feeds in samples:
            tasks.append(self._pool.submit(self._take_in, feeds, tasks[-1:]))
        for task in tasks:
            task.result()

    def state(self) -> dict[str, Any]:
        """Return the state of each statistic."""
        return {name: statistic.state() for name, statistic in self._statistics.items()}

    def statistics(self) -> Mapping[str, Statistic]:
        """Return the statistics."""
        return self._statistics

    def _started(self, feeds: Feeds) -> ThreadPoolExecutor:
        """Make an engine for each core, or a single one if the tensors are too large to hold that many times."""
        count, cores = min(processor().cores, _AT_A_TIME), processor().cores
        one = OnnxRuntime().compile(self._model, local_target().with_threads(1))
        held = sum(array.nbytes for array in one.run(feeds).values())
        if held * count > _MOST_BYTES:
            count, one = 1, OnnxRuntime().compile(self._model, local_target().with_threads(cores))
        for engine in [one, *(one.twin() for _ in range(count - 1))]:
            self._idle.put(engine)
        return ThreadPoolExecutor(count)

    def _take_in(self, feeds: Feeds, before: Sequence[Future[None]]) -> None:
        """Run a sample and, after the one before it, add its tensors to the statistics."""
        engine = self._idle.get()
        try:
            tensors = {**feeds, **engine.run_in_place(feeds)}
            for task in before:
                task.result()
            for name, statistic in self._statistics.items():
                statistic.add(tensors[name])
        finally:
            self._idle.put(engine)
