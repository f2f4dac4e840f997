"""``factorise-weights`` on a trained model: times faster, and what of the task is left, by outputs and by weights.

For each criterion and share of the multiply-accumulates: times faster (interleaved, with its interval), the score of
the zoo's own metric before and after, and how far the outputs are from the original's. It calibrates on
``calibration/`` and scores on ``evaluation/``, which no pass sees.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import onnxopt_zoo
from onnxopt.compile.engine import make_backend
from onnxopt.compile.isolation import IsolatedEngine
from onnxopt.context import Context
from onnxopt.data.sample import Samples
from onnxopt.data.split import Split, open_split
from onnxopt.errors import UsageError
from onnxopt.evaluate.metrics import Metric, make_metric
from onnxopt.evaluate.score import evaluate
from onnxopt.evaluate.store import OutputStore
from onnxopt.ir.model import Model
from onnxopt.ir.read import read_model
from onnxopt.ir.write import write_model
from onnxopt.passes import make_pass
from onnxopt.profile.latency import Plan
from onnxopt.profile.launches import compare_launches, timed_feeds
from onnxopt.targets.target import local_target

SHARES = (0.95, 0.9, 0.85, 0.8, 0.75, 0.65, 0.5)
CRITERIA = ("outputs", "weights")


@dataclass(frozen=True)
class Point:
    """A model with thinner layers.

    Attributes:
        criterion: Its ranks follow from.
        keep: Share of the multiply-accumulates asked for.
        seconds: The pass took.
        speedup: Times faster, low and high.
        before: Score of the original.
        after: Score.
        sqnr_db: Of its outputs against the original's.
    """

    criterion: str
    keep: float
    seconds: float
    speedup: tuple[float, float, float]
    before: float
    after: float
    sqnr_db: float | None


def main() -> None:
    """Measure, and print each point as it is done."""
    options = _options()
    files = onnxopt_zoo.get(options.model, options.zoo / options.model, cache=options.downloads)
    if files.metric is None:
        raise UsageError(f"{options.model} has no metric", hint="name another model of the zoo")
    metric, model = make_metric(files.metric), read_model(files.model)
    data = open_split(str(options.zoo / options.model), model)
    points: list[Point] = []
    with tempfile.TemporaryDirectory() as folder:
        original = _original(model, data.evaluation, Path(folder))
        for criterion in options.criteria:
            for keep in options.keep:
                points.append(_point(model, data, criterion, keep, metric, original, options))
                print(_told(points[-1]), flush=True)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps([asdict(point) for point in points], indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="all_minilm_l6_v2", help="model of the zoo, with a metric")
    parser.add_argument("--zoo", type=Path, default=Path("build/zoo"), help="folder of models and samples")
    parser.add_argument("--downloads", type=Path, default=Path.home() / ".cache/onnxopt/zoo", help="folder of packages")
    parser.add_argument("--keep", type=float, nargs="+", default=SHARES, help="shares of the multiply-accumulates")
    parser.add_argument("--criteria", nargs="+", default=CRITERIA, choices=CRITERIA, help="what ranks follow from")
    parser.add_argument("--align", type=int, default=16, help="ranks are multiples of it")
    parser.add_argument("--seconds", type=float, default=2.0, help="to measure at most, each launch")
    parser.add_argument("--launches", type=int, default=3, help="of both processes, for the speed-up")
    parser.add_argument("--json", type=Path, default=Path("build/low_rank.json"), help="file for all figures")
    return parser.parse_args()


def _original(model: Model, samples: Samples, folder: Path) -> OutputStore:
    """Return the outputs of the original."""
    (folder / "original").mkdir()
    store = OutputStore(folder / "original")
    with _engine(write_model(model, folder / "original.onnx")[0]) as engine:
        evaluate(engine, samples, keep=store)
    return store


def _point(
    model: Model,
    data: Split,
    criterion: str,
    keep: float,
    metric: Metric,
    original: OutputStore,
    options: argparse.Namespace,
) -> Point:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.perf_counter()
        ctx = Context.of(data=data.calibration, original=model, scratch=folder)
        values = {"keep": keep, "criterion": criterion, "align": options.align}
        after = make_pass("factorise-weights", values)(model, ctx)
        took = time.perf_counter() - started
        paths = [write_model(one, folder / f"{place}.onnx")[0] for place, one in enumerate((model, after))]
        with _engine(paths[1]) as engine:
            scores = evaluate(engine, data.evaluation, metric, reference=original)
        speedup = _speedup(paths, data.evaluation, options)
    assert scores.baseline is not None
    assert scores.score is not None
    drift = None if scores.drift is None else scores.drift.sqnr_db
    return Point(criterion, keep, took, speedup, scores.baseline, scores.score.value, drift)


def _speedup(paths: Sequence[Path], samples: Samples, options: argparse.Namespace) -> tuple[float, float, float]:
    slow, fast = (partial(_engine, path) for path in paths)
    plan = Plan(max_seconds=options.seconds)
    found = compare_launches(slow, fast, timed_feeds(samples), plan, options.launches).speedup
    return found.ratio, found.low, found.high


def _engine(path: Path) -> IsolatedEngine:
    return IsolatedEngine(make_backend("ort"), path, local_target().with_threads(1))


def _told(point: Point) -> str:
    ratio, low, high = point.speedup
    decibels = "identical" if point.sqnr_db is None else f"{point.sqnr_db:.1f} dB"
    return (
        f"{point.criterion:8} {point.keep:.0%}: {ratio:.2f}x [{low:.2f}, {high:.2f}], score {point.before:.4f} ->"
        f" {point.after:.4f} ({point.after - point.before:+.4f}), {decibels}; the pass took {point.seconds:.0f} s"
    )


if __name__ == "__main__":
    main()
