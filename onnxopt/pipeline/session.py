"""What every run needs, opened in one place and closed again: inputs, cache, maker, measurer."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from onnxopt.compile.engine import Backend
from onnxopt.compile.isolation import Limits
from onnxopt.pipeline.cache import Cache
from onnxopt.pipeline.effort import NORMAL, Effort
from onnxopt.pipeline.events import Listener
from onnxopt.pipeline.inputs import Inputs, open_inputs
from onnxopt.pipeline.making import Maker, ModelFile
from onnxopt.pipeline.measuring import Measurer, Runnable
from onnxopt.pipeline.steps import CachedSteps
from onnxopt.recipe.recipe import BASELINE, ExportSpec, Recipe


@dataclass(frozen=True)
class Session:
    """An open run.

    Attributes:
        recipe: What is to be done.
        inputs: What it starts from.
        source: The input model's file.
        maker: Applies passes.
        measurer: Scores and times, against the input in the runtime's defaults.
        effort: Spent on measuring.
        listen: Told what happens.
    """

    recipe: Recipe
    inputs: Inputs
    source: ModelFile
    maker: Maker
    measurer: Measurer
    effort: Effort
    listen: Listener


@contextmanager
def open_session(
    recipe: Recipe,
    baseline: Backend,
    cache: Cache,
    listen: Listener,
    *,
    limits: Limits | None = None,
    effort: Effort = NORMAL,
) -> Iterator[Session]:
    """Open a run.

    Args:
        recipe: What is to be done.
        baseline: The runtime, in its defaults, that results are compared with.
        cache: Where results are kept.
        listen: Told what happens.
        limits: Of each child process.
        effort: Spent on measuring.
    """
    with tempfile.TemporaryDirectory(prefix="onnxopt-") as scratch:
        model = recipe.model.export if isinstance(recipe.model, ExportSpec) else recipe.model.resolve()
        steps = CachedSteps(cache, listen, f"{recipe.source} {model}")
        inputs = open_inputs(recipe, steps)
        maker = Maker(steps, recipe.target, inputs.real_calibration, Path(scratch), seed=recipe.seed, limits=limits)
        source = maker.add(inputs.path, inputs.model)
        original = Runnable(BASELINE, source, baseline)
        measurer = Measurer(steps, recipe.target, inputs.data.evaluation, original, inputs.metric, limits=limits)
        with closing(maker), closing(measurer):
            yield Session(recipe, inputs, source, maker, measurer, effort, listen)
