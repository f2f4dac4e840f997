"""How much of what pruning saves arrives as speed: the latency's ratio beside that of the multiply-accumulates.

ResNet-18 and ResNet-50 with made-up weights and MobileNetV2 lose channels until half of the multiply-accumulates, or of
the seconds, are left; of the former also with importance held against the seconds that go with a channel. Each pruned
model is timed in turn with its input, over fresh processes. The last column is the ratio of latencies over the ratio of
multiply-accumulates: 1 where time follows them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import onnxopt_zoo
from onnxopt.compile.engine import make_backend
from onnxopt.compile.isolation import IsolatedEngine
from onnxopt.context import Context
from onnxopt.data.sample import Samples
from onnxopt.data.synthetic import Synthetic
from onnxopt.explain.prunable import find_prunable
from onnxopt.export.from_torch import export_model
from onnxopt.ir.model import Model
from onnxopt.ir.read import read_model
from onnxopt.ir.write import write_model
from onnxopt.passes import make_pass
from onnxopt.profile.latency import Plan
from onnxopt.profile.launches import LAUNCHES, compare_launches, timed_feeds
from onnxopt.targets.target import local_target

MODELS = ("resnet18", "light_resnet50", "mobilenet_v2")
WAYS: Mapping[str, Mapping[str, str]] = {
    "macs": {"of": "macs"},
    "macs, per second": {"of": "macs", "per": "seconds"},
    "seconds": {"of": "seconds"},
}


@dataclass(frozen=True)
class Row:
    """A pruned model.

    Attributes:
        model: Its name.
        way: Of ``WAYS``: what half is left of.
        left: Share of the multiply-accumulates that is left.
        speedup: Times faster.
        low: Lower end of its 95 % interval.
        high: Upper end.
    """

    model: str
    way: str
    left: float
    speedup: float
    low: float
    high: float

    @property
    def arrives(self) -> float:
        """The ratio of latencies over that of multiply-accumulates."""
        return self.speedup * self.left


def main() -> None:
    """Measure, and print a line a pruned model."""
    options = _options()
    rows = []
    print(f"{'model':16} {'half of':16} {'fewer MACs':>10} {'faster':>22} {'of MACs':>8}")
    for name in options.models:
        for row in _measured(_model(name, options), name, options.ways, options.seconds):
            rows.append(row)
            faster = f"{row.speedup:.2f} [{row.low:.2f}, {row.high:.2f}]"
            print(f"{row.model:16} {row.way:16} {1 / row.left:10.2f} {faster:>22} {row.arrives:8.2f}", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS, help="resnet18, or models of the zoo")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="what half is left of")
    parser.add_argument("--seconds", type=float, default=12.0, help="of each comparison")
    parser.add_argument("--zoo", type=Path, default=Path("build/zoo"), help="folder of models and samples")
    parser.add_argument("--downloads", type=Path, default=Path.home() / ".cache/onnxopt/zoo", help="folder of packages")
    parser.add_argument("--out", type=Path, default=Path("build/prune_speed.json"), help="file for all figures")
    return parser.parse_args()


def _model(name: str, options: argparse.Namespace) -> Model:
    if name in [model.id for model in onnxopt_zoo.models()]:
        return read_model(onnxopt_zoo.get(name, options.zoo / name, cache=options.downloads).model)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model.onnx"
        export_model(f"onnxopt_zoo.modules:{name}", out, dynamic=["batch=1..4"])
        return read_model(out)


def _measured(model: Model, name: str, ways: Sequence[str], seconds: float) -> Iterator[Row]:
    """Yield the model pruned in each way; by its weights, for the widths are looked at, not what is lost."""
    samples = Synthetic(synthetic=1).open(model, Path())
    before = find_prunable(model, samples).macs
    for way in ways:
        pruned = make_pass("prune-channels", {"keep": 0.5, "criterion": "l2", **WAYS[way]})(model, Context.of())
        left = find_prunable(pruned, samples).macs / before
        yield Row(name, way, left, *_speedup(model, pruned, samples, seconds / LAUNCHES))


def _speedup(model: Model, pruned: Model, samples: Samples, seconds: float) -> tuple[float, float, float]:
    with tempfile.TemporaryDirectory() as folder:
        paths = [write_model(one, Path(folder) / f"{place}.onnx")[0] for place, one in enumerate((model, pruned))]
        start = partial(IsolatedEngine, make_backend("ort"), target=local_target().with_threads(1))
        slow, fast = (partial(start, path) for path in paths)
        found = compare_launches(slow, fast, timed_feeds(samples), Plan(max_seconds=seconds), LAUNCHES)
    return found.speedup.ratio, found.speedup.low, found.speedup.high


if __name__ == "__main__":
    main()
