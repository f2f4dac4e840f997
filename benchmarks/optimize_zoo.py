"""``onnxopt optimize`` on the trained models of the zoo, one thread, beside its peers.

For every model: the best artefact over all runtimes and over ONNX Runtime alone, the loss on held-back data, and what
each peer makes of the model, measured the same way. A result is usable if it loses at most 1 % of the task's metric,
or, without a task, keeps 20 dB at every output. Results are cached: an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import onnxopt_zoo
from benchmarks.peers import PEERS, unchanged
from onnxopt.compile.engine import make_backend
from onnxopt.compile.isolation import Limits, run_isolated
from onnxopt.errors import OnnxoptError
from onnxopt.evaluate.budget import Budget, judge
from onnxopt.evaluate.metrics import make_metric
from onnxopt.ir.outputs import classifier_outputs
from onnxopt.ir.read import read_model
from onnxopt.pipeline.cache import Cache, file_digest
from onnxopt.pipeline.effort import EFFORTS, Effort
from onnxopt.pipeline.making import ModelFile
from onnxopt.pipeline.measuring import Runnable
from onnxopt.pipeline.optimize import run_recipe
from onnxopt.pipeline.session import Session, open_session
from onnxopt.pipeline.steps import CachedSteps
from onnxopt.profile.machine import library_versions
from onnxopt.profile.statistics import Verdict, geometric_mean
from onnxopt.recipe.recipe import DataSpec, Recipe, SearchSpec
from onnxopt.user_code import code_fingerprint

BUDGET = Budget(max_drop=0.01, min_sqnr=20.0)
LIMITS = Limits(seconds=900)


@dataclass(frozen=True)
class Outcome:
    """What one way of running a model came to.

    Attributes:
        ratio: Speed-up over ONNX Runtime's defaults; 1 for the input itself.
        low: Lower end of its interval.
        high: Upper end.
        usable: Whether it keeps the budget, and is not slower.
        told: Candidate, score or reason.
    """

    ratio: float
    low: float
    high: float
    usable: bool
    told: str


@dataclass(frozen=True)
class Row:
    """One model: ours over all runtimes, ours on ONNX Runtime alone, and each peer."""

    model: str
    any_runtime: Outcome
    ort: Outcome
    peers: Mapping[str, Outcome]
    signature_kept: bool


def main() -> None:
    """Measure, print a line a model as it is done, and the summary."""
    options = read_options(__doc__, Path("build/optimize_zoo.json"))
    rows = []
    for name in options.models:
        row = measured(name, options)
        rows.append(row)
        print(told(row), flush=True)
    print(summary(rows))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def read_options(text: str | None, out: Path) -> argparse.Namespace:
    """Return what the command line says; ``text`` describes the command, and its figures go to ``out``."""
    trained = [model.id for model in onnxopt_zoo.models() if not model.id.startswith("light_")]
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=trained, help="models of the zoo; all trained ones if none given")
    parser.add_argument("--zoo", type=Path, default=Path("build/zoo"), help="folder of models and samples")
    parser.add_argument("--downloads", type=Path, default=Path.home() / ".cache/onnxopt/zoo", help="folder of packages")
    parser.add_argument("--cache", type=Path, default=Path("build/bench-cache"), help="folder of results")
    parser.add_argument("--out", type=Path, default=out, help="file for all figures")
    parser.add_argument("--effort", choices=list(EFFORTS), default="normal", help="how long to measure")
    parser.add_argument("--no-peers", action="store_true", help="measure ours only")
    return parser.parse_args()


def measured(name: str, options: argparse.Namespace) -> Row:
    """Return what became of a model of the zoo."""
    files = onnxopt_zoo.get(name, options.zoo / name, cache=options.downloads)
    recipe = Recipe(
        model=files.model,
        data=DataSpec(path=str(options.zoo / name)),
        metric=make_metric(files.metric) if files.metric else None,
        budget=BUDGET,
        search=SearchSpec(),
        source=f"benchmark {name}",
    )
    cache, effort = Cache(options.cache), EFFORTS[options.effort]
    ort, kept_ort = _ours(recipe, "ort", cache, effort)
    any_runtime, kept_any = _ours(recipe, "any", cache, effort)
    peers = {} if options.no_peers else _peers(recipe, options.zoo / name / "calibration", cache, effort)
    return Row(name, any_runtime, ort, peers, kept_any and kept_ort)


def _ours(recipe: Recipe, runtime: str, cache: Cache, effort: Effort) -> tuple[Outcome, bool]:
    """Return our outcome, and whether the interface of the result is the input's."""
    search = SearchSpec(runtime=runtime)  # type: ignore[arg-type]
    asked = Recipe(**{**vars(recipe), "search": search})
    try:
        result = run_recipe(asked, cache, _quiet, effort=effort, limits=LIMITS)
    except OnnxoptError as error:
        return Outcome(0, 0, 0, False, f"FAILED: {error.what}"), True
    best = result.record.best
    kept = read_model(result.chosen.file.path).signature == read_model(Path(str(recipe.model))).signature
    if not result.record.improved:
        return Outcome(1, 1, 1, True, "the input is handed back"), kept
    assert best.speedup is not None
    usable = best.speedup.verdict is not Verdict.SLOWER
    return Outcome(best.speedup.ratio, best.speedup.low, best.speedup.high, usable, f"{best.name}: {best.reason}"), kept


def _peers(recipe: Recipe, calibration: Path, cache: Cache, effort: Effort) -> dict[str, Outcome]:
    with open_session(recipe, make_backend("ort"), cache, _quiet, limits=LIMITS) as session:
        steps = CachedSteps(cache, _quiet, recipe.source)
        return {peer: _peer(session, steps, peer, calibration, effort) for peer in PEERS}


def _peer(session: Session, steps: CachedSteps, peer: str, calibration: Path, effort: Effort) -> Outcome:
    backend = PEERS[peer][1]
    try:
        runnable = Runnable(peer, _file(_made(session, steps, peer, calibration), session), backend)
        found = session.measurer.compare(runnable, effort.screening)
        scores = session.measurer.score(runnable)
        verdict = judge(scores, BUDGET, classifier_outputs(session.inputs.model.graph.graph))
        if verdict.kept and found.speedup.verdict is Verdict.FASTER:
            found = session.measurer.compare(runnable, effort.confirming, effort.launches)
    except OnnxoptError as error:
        return Outcome(0, 0, 0, False, f"FAILED: {error.what}")
    speed = found.speedup
    usable = verdict.kept and speed.verdict is not Verdict.SLOWER
    return Outcome(speed.ratio, speed.low, speed.high, usable, verdict.reason)


def _made(session: Session, steps: CachedSteps, peer: str, calibration: Path) -> Path:
    """Return the file a peer makes of the model."""
    function = PEERS[peer][0]
    if function is unchanged:
        return session.inputs.path

    def make(folder: Path) -> str:
        place = f"benchmarks.peers:{function.__name__}"
        out = str(folder / "made.onnx")
        return Path(run_isolated(place, str(session.inputs.path), str(calibration), out, limits=LIMITS)).name

    parts = {
        "step": "peer",
        "function": code_fingerprint(f"benchmarks.peers:{function.__name__}"),
        "input": session.source.digest,
        "calibration": session.inputs.data.calibration.fingerprint,
        "libraries": library_versions(("onnxruntime", "nncf", "openvino", "onnx")),
    }
    entry, _ = steps.run(f"{peer} makes", parts, make)
    return entry.folder / str(entry.value)


def _file(path: Path, session: Session) -> ModelFile:
    """Return the file of what a peer wrote; the digest of an OpenVINO model is that of its two files."""
    if path == session.inputs.path:
        return session.source
    digest = file_digest(path) + file_digest(path.with_suffix(".bin"))
    return ModelFile(path, digest, 0, path.stat().st_size, {})


def told(row: Row) -> str:
    """Return a row as lines."""
    best = _best_peer(row.peers)
    peers = ", ".join(f"{name} {_figure(outcome)}" for name, outcome in row.peers.items())
    return (
        f"{row.model}\n  any  {_figure(row.any_runtime)}  {row.any_runtime.told[:150]}"
        f"\n  ort  {_figure(row.ort)}  {row.ort.told[:150]}\n  best peer {best:.2f}x: {peers}"
    )


def _figure(outcome: Outcome) -> str:
    if outcome.told.startswith("FAILED"):
        return "failed"
    return f"{outcome.ratio:.2f}x [{outcome.low:.2f}, {outcome.high:.2f}]" + ("" if outcome.usable else " unusable")


def _best_peer(peers: Mapping[str, Outcome], only_ort: bool = False) -> float:
    """Return the best usable peer's ratio; 1 where doing nothing is best, as a person choosing by hand would."""
    names = [name for name in peers if not only_ort or "OpenVINO" not in name]
    return max([peers[name].ratio for name in names if peers[name].usable] + [1.0])


def summary(rows: Sequence[Row]) -> str:
    """Return what all rows come to."""
    failures = [row.model for row in rows if "FAILED" in row.any_runtime.told + row.ort.told]
    slower = [row.model for row in rows if row.any_runtime.high < 1 or row.ort.high < 1]
    changed = [row.model for row in rows if not row.signature_kept]
    unusable = [row.model for row in rows if not (row.any_runtime.usable and row.ort.usable)]
    lines = [
        "",
        f"{len(rows)} models; failures {_names(failures)}; slower than the input {_names(slower)};"
        f" interface changed {_names(changed)}; unusable {_names(unusable)}",
        f"geometric mean over ONNX Runtime's defaults, any runtime: {_mean(row.any_runtime.ratio for row in rows)}",
        f"geometric mean over ONNX Runtime's defaults, ONNX Runtime alone: {_mean(row.ort.ratio for row in rows)}",
    ]
    if rows and rows[0].peers:
        for words, only_ort in (("any runtime", False), ("ONNX Runtime alone", True)):
            best = _mean(_best_peer(row.peers, only_ort) for row in rows)
            lines.append(f"best usable peer chosen by hand, {words}: {best}")
        for peer in rows[0].peers:
            alone = _mean(row.peers[peer].ratio if row.peers[peer].usable else 1.0 for row in rows)
            count = sum(row.peers[peer].usable for row in rows)
            lines.append(f"  {peer}: usable on {count} of {len(rows)}, mean {alone} where it is, else 1")
    return "\n".join(lines)


def _mean(ratios: Iterable[float]) -> str:
    return f"{geometric_mean([max(ratio, 1e-9) for ratio in ratios]):.2f}x"


def _names(models: Sequence[str]) -> str:
    return f"{len(models)}" + (f" ({', '.join(models)})" if models else "")


def _quiet(event: object) -> None:
    """Print nothing while it runs."""


if __name__ == "__main__":
    main()
