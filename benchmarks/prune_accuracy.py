"""What pruning costs without any training: accuracy by how much is left, each criterion and recovery beside the peers.

Every criterion of ``prune-channels`` removes channels until 80, 70 and 60 % of the multiply-accumulates are left, from
all layers together and from each alike, and every recovery pass has its turn behind it. The peers prune in an
interpreter of their own (``--peer-python``: with torch, torch-pruning, onnx2torch, onnxsim), to the same shares. All
calibrate on the calibration samples and are scored on the evaluation samples by the zoo's metric; the
multiply-accumulates of all artefacts are counted by one program, ours. Results are cached a point: an interrupted run
goes on where it stopped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import get_args

import onnxopt_zoo
from benchmarks.prune_points import OURS, Point, page, tables, told
from onnxopt.compile.engine import make_backend
from onnxopt.compile.isolation import Limits
from onnxopt.errors import OnnxoptError
from onnxopt.evaluate.metrics import make_metric
from onnxopt.ir.read import read_model
from onnxopt.passes import make_pass
from onnxopt.pipeline.cache import Cache, file_digest
from onnxopt.pipeline.making import ModelFile
from onnxopt.pipeline.measuring import Runnable
from onnxopt.pipeline.record import plain, strict_json
from onnxopt.pipeline.session import Session, open_session
from onnxopt.pipeline.steps import CachedSteps
from onnxopt.prune.choose import Together
from onnxopt.prune.groups import find_groups, prepared
from onnxopt.prune.importance import Criterion
from onnxopt.prune.sizes import find_sizes
from onnxopt.recipe.recipe import DataSpec, Recipe
from onnxopt.registry import names

SHARES = (0.8, 0.7, 0.6)
RECOVERIES = ("reconstruct-weights", "match-statistics", "correct-means")
LIMITS = Limits(seconds=900)
_PEERS = Path(__file__).with_name("prune_peers.py")
_PEER_SECONDS = 3600
_LIBRARIES = ("torch", "torch-pruning", "onnx2torch", "onnxsim", "onnx", "onnxruntime")


def main() -> None:
    """Measure, print a line a point and a table a model; write the page and all figures."""
    options = _options()
    stream = sys.stderr if options.json else sys.stdout
    points: list[Point] = []
    baselines: dict[str, float] = {}
    for name in options.models:
        for point in _measured(name, options, baselines):
            points.append(point)
            print(told(point), file=stream, flush=True)
    record = strict_json({"originals": baselines, "points": plain(points)})
    print(record if options.json else tables(points, baselines))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "prune_accuracy.json").write_text(record)
    (options.out / "prune_accuracy.html").write_text(page(points, baselines))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models, known = ["fmnist_cnn", "mobilenet_v2"], [one for one in RECOVERIES if one in names("passes")]
    parser.add_argument("models", nargs="*", default=models, help="models of the zoo that have a metric")
    parser.add_argument("--zoo", type=Path, default=Path("build/zoo"), help="folder of models and samples")
    parser.add_argument("--downloads", type=Path, default=Path.home() / ".cache/onnxopt/zoo", help="folder of packages")
    parser.add_argument("--cache", type=Path, default=Path("build/bench-cache"), help="folder of results")
    parser.add_argument("--peer-python", type=Path, help="interpreter that has the peers; ours only if not given")
    parser.add_argument("--criteria", nargs="+", default=get_args(Criterion), help="of ours; all if not given")
    kinds = get_args(Together)
    parser.add_argument("--together", nargs="+", choices=kinds, default=kinds, help="of ours: layers held together")
    parser.add_argument("--recoveries", nargs="*", default=known, help="behind ours; all there are if not given")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON in place of tables")
    parser.add_argument("--out", type=Path, default=Path("build/prune_accuracy"), help="folder for page and figures")
    return parser.parse_args()


def _measured(name: str, options: argparse.Namespace, baselines: dict[str, float]) -> Iterator[Point]:
    files = onnxopt_zoo.get(name, options.zoo / name, cache=options.downloads)
    recipe = Recipe(
        model=files.model,
        data=DataSpec(path=str(options.zoo / name)),
        metric=make_metric(files.metric) if files.metric else None,
        source=f"benchmark {name}",
    )
    cache = Cache(options.cache)
    with open_session(recipe, make_backend("ort"), cache, _quiet, limits=LIMITS) as session:
        bench = _Bench(name, session, CachedSteps(cache, _quiet, recipe.source))
        baselines[name] = bench.score(session.source)[0]
        if options.peer_python is not None:
            yield from _peers(bench, options.peer_python, options.zoo / name / "calibration")
        yield from _ours(bench, options)


@dataclass(frozen=True)
class _Bench:
    """A model with all that measures what becomes of it."""

    model: str
    session: Session
    steps: CachedSteps

    def score(self, file: ModelFile) -> tuple[float, float | None, float | None, float | None]:
        """Return the score, its interval and the SQNR of a model."""
        found = self.session.measurer.score(Runnable(file.digest[:12], file, make_backend("ort")))
        assert found.score is not None
        return found.score.value, found.score.low, found.score.high, found.drift.sqnr_db if found.drift else None

    def macs(self, file: ModelFile) -> float:
        """Return the multiply-accumulates of the first calibration sample, by our own count."""

        def count(_: Path) -> float:
            graph = prepared(read_model(file.path).graph)
            return find_groups(graph, find_sizes(graph, self.session.inputs.data.calibration)).macs

        entry, _ = self.steps.run("count", {"step": "count", "input": file.digest}, count)
        return float(entry.value)

    def point(self, file: ModelFile, tool: str, method: str, recovery: str, share: float) -> Point:
        """Return what a file of a method comes to."""
        try:
            left = self.macs(file) / self.macs(self.session.source)
            score, low, high, sqnr = self.score(file)
        except OnnxoptError as error:
            return Point(self.model, tool, method, recovery, share, failed=error.what)
        return Point(self.model, tool, method, recovery, share, left, score, low, high, sqnr)


def _ours(bench: _Bench, options: argparse.Namespace) -> Iterator[Point]:
    for criterion, together, share in product(options.criteria, options.together, SHARES):
        yield from _criterion(bench, criterion, together, share, options.recoveries)


def _criterion(
    bench: _Bench, criterion: str, together: str, share: float, recoveries: Sequence[str]
) -> Iterator[Point]:
    """Yield a criterion at a share, alone and with each recovery."""
    maker = bench.session.maker
    change = make_pass("prune-channels", {"keep": share, "criterion": criterion, "together": together})
    criterion = criterion if together == "model" else f"{criterion} by {together}"
    try:
        pruned = maker.apply(change, bench.session.source)
    except OnnxoptError as error:
        yield Point(bench.model, OURS, criterion, "", share, failed=error.what)
        return
    yield bench.point(pruned, OURS, criterion, "", share)
    for recovery in recoveries:
        try:
            made = maker.apply(make_pass(recovery), pruned)
        except OnnxoptError as error:
            yield Point(bench.model, OURS, criterion, recovery, share, failed=error.what)
        else:
            yield bench.point(made, OURS, criterion, recovery, share)


def _peers(bench: _Bench, python: Path, calibration: Path) -> Iterator[Point]:
    """Yield what each tool of the peers comes to; say so and yield nothing where there are none."""
    try:
        versions = _run(python, "-c", _VERSIONS).strip()
        tools = _run(python, str(_PEERS)).splitlines()
    except (OSError, subprocess.SubprocessError) as error:
        print(f"peers are skipped: {error}", file=sys.stderr)
        return
    for one in tools:
        tool, method = one.split(" ", 1)
        try:
            folder = _made_by_peer(bench, python, one, versions, calibration)
        except subprocess.SubprocessError as error:
            yield from (Point(bench.model, tool, method, "", share, failed=_reason(error)) for share in SHARES)
            continue
        for share in SHARES:
            for name, recovery in ((f"{share:g}.onnx", ""), (f"{share:g}.tuned.onnx", "its fine-tuning")):
                if (folder / name).exists():
                    yield bench.point(_file(folder / name), tool, method, recovery, share)


def _made_by_peer(bench: _Bench, python: Path, tool: str, versions: str, calibration: Path) -> Path:
    """Return the folder of what a tool made of the model at every share."""
    source = bench.session.inputs.path

    def make(folder: Path) -> None:
        _run(python, str(_PEERS), tool, str(source), str(calibration), str(folder), *(f"{one:g}" for one in SHARES))

    parts = {
        "step": "peer prunes",
        "tool": tool,
        "program of peers": file_digest(_PEERS),
        "versions": versions,
        "input": bench.session.source.digest,
        "calibration": bench.session.inputs.data.calibration.fingerprint,
        "shares": SHARES,
    }
    entry, _ = bench.steps.run(tool, parts, make)
    return entry.folder


_VERSIONS = f"from importlib.metadata import version; print([(one, version(one)) for one in {_LIBRARIES}])"


def _run(python: Path, *words: str) -> str:
    command = [str(python), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=_PEER_SECONDS).stdout


def _reason(error: subprocess.SubprocessError) -> str:
    """Return the last line of what a program had to say."""
    text = str(getattr(error, "stderr", "") or "").strip()
    return text.splitlines()[-1] if text else str(error)


def _file(path: Path) -> ModelFile:
    model = read_model(path)
    return ModelFile(path, model.digest, model.nodes, path.stat().st_size, model.operators)


def _quiet(event: object) -> None:
    """Print nothing while it runs."""


if __name__ == "__main__":
    main()
