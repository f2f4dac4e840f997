"""What ``rewrite`` and its peers make of every model of the zoo: nodes, seconds, and whether the answer stays the same.

Each tool runs in a process of its own. A result is ``broken`` if it fails, changes the interface, no longer runs, or
answers otherwise than the input on real samples by more than rounding explains; where the answers of a model without
trained weights show nothing, the rest is checked. ``--latency`` times what ``rewrite``
made against the input, one thread, in turn, in each runtime with its own optimisations.
"""

from __future__ import annotations

import argparse
import importlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import onnx

import onnxopt_zoo
from benchmarks.rewrite_latency import effect
from onnxopt.compile.isolation import Limits, run_isolated
from onnxopt.context import Context
from onnxopt.data.files import Files
from onnxopt.data.sample import Samples
from onnxopt.errors import OnnxoptError, UnverifiableError
from onnxopt.evaluate.probes import probes
from onnxopt.evaluate.verify import Verifier
from onnxopt.ir.model import Model
from onnxopt.ir.read import read_model
from onnxopt.ir.signature import Port, Signature
from onnxopt.ir.write import files_size, write_model
from onnxopt.passes import make_pass

LIMITS = Limits(seconds=600)
REPEATS = 3
LONG = 5.0
"""Seconds from which on a tool is timed once."""


@dataclass(frozen=True)
class Made:
    """What a tool made of a model: nodes, seconds, bytes, and what is wrong with it, if anything."""

    nodes: int
    seconds: float
    size: int
    problem: str | None


def ours(before: str, after: str) -> float:
    """Run ``rewrite`` without comparing answers, as no peer does either; called in a child, as all of these are."""
    return _rewrite(before, after)


def ours_growing(before: str, after: str) -> float:
    """Run ``rewrite`` and let folded weights make the file as large as they like, as the peers do."""
    return _rewrite(before, after, growth=1 << 40)


def _rewrite(before: str, after: str, **how: int) -> float:
    """Time the pass alone: what it imports is imported before, as the peers' packages are."""
    importlib.import_module("onnxscript.optimizer")
    model, rewrite = read_model(before), make_pass("rewrite", {"check": "never", **how})
    with tempfile.TemporaryDirectory() as scratch:
        started = time.perf_counter()
        made = rewrite(model, Context.of(scratch=Path(scratch)))
        seconds = time.perf_counter() - started
    write_model(made, after)
    return seconds


def onnxslim(before: str, after: str) -> float:
    """Run OnnxSlim with its defaults."""
    import onnxslim as tool

    return _timed(tool.slim, before, after)


def onnxsim(before: str, after: str) -> float:
    """Run onnxsim with its defaults."""
    import onnxsim as tool

    return _timed(lambda model: tool.simplify(model)[0], before, after)


def _timed(simplify: Callable[[onnx.ModelProto], onnx.ModelProto], before: str, after: str) -> float:
    model = onnx.load(before)
    started = time.perf_counter()
    made = simplify(model)
    seconds = time.perf_counter() - started
    onnx.save(made, after)
    return seconds


def onnxscript(before: str, after: str) -> float:
    """Run onnxscript's optimizer and rewriter with their defaults."""
    import onnx_ir
    from onnxscript import optimizer, rewriter

    model = onnx_ir.load(before)
    started = time.perf_counter()
    optimizer.optimize(model)
    model = rewriter.rewrite(model)
    seconds = time.perf_counter() - started
    onnx_ir.save(model, after)
    return seconds


def ort_basic(before: str, after: str) -> float:
    """Run ONNX Runtime's basic graph optimisations, which keep to standard operators."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = after
    options.log_severity_level = 3
    started = time.perf_counter()
    onnxruntime.InferenceSession(before, options, providers=["CPUExecutionProvider"])
    return time.perf_counter() - started


OURS, GROWING = "onnxopt", "onnxopt, growing"
PEERS: Mapping[str, Callable[[str, str], float]] = {
    "OnnxSlim": onnxslim,
    "onnxsim": onnxsim,
    "onnxscript": onnxscript,
    "ORT basic": ort_basic,
}
TOOLS = {OURS: ours, **PEERS, GROWING: ours_growing}


def run(tool: str, before: str, after: str) -> float:
    """Return the seconds a tool takes, the least of a few times; what is imported for the first counts for none."""
    function = TOOLS[tool]
    seconds = function(before, after)
    return seconds if seconds > LONG else min(seconds, *(function(before, after) for _ in range(REPEATS - 1)))


def main() -> None:
    """Print a line a model, and the summary."""
    options = _options()
    found = {}
    for name in options.models:
        found[name] = _all_tools(name, options)
        print(_line(name, found[name]), flush=True)
        for line in _latency(name, options) if options.latency else ():
            print(f"  {line}", flush=True)
    print(_summary(found))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({k: {t: asdict(m) for t, m in v.items()} for k, v in found.items()}, indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [model.id for model in onnxopt_zoo.models()]
    parser.add_argument("models", nargs="*", default=known, help="models of the zoo; all if none are given")
    parser.add_argument("--zoo", type=Path, default=Path("build/zoo"), help="folder of models and samples")
    parser.add_argument("--downloads", type=Path, default=Path.home() / ".cache/onnxopt/zoo", help="folder of packages")
    parser.add_argument("--latency", action="store_true", help="time what was made, in ONNX Runtime and OpenVINO")
    parser.add_argument("--out", type=Path, default=Path("build/rewrite.json"), help="file for all figures")
    return parser.parse_args()


def _all_tools(name: str, options: argparse.Namespace) -> dict[str, Made]:
    files = onnxopt_zoo.get(name, options.zoo / name, cache=options.downloads)
    before = read_model(files.model)
    samples = Files(files=str(files.evaluation), limit=3).open(before, Path()) if files.evaluation else None
    with tempfile.TemporaryDirectory() as folder:
        found = {"input": Made(before.nodes, 0.0, files_size(before.graph, files.model), None)}
        for tool in (OURS, *PEERS):
            found[tool] = _made(tool, files.model, Path(folder) / f"{tool}.onnx", before, samples)
        if found[OURS].nodes > _best(found):
            found[GROWING] = _made(GROWING, files.model, Path(folder) / "growing.onnx", before, samples)
        return found


def _latency(name: str, options: argparse.Namespace) -> list[str]:
    files = onnxopt_zoo.get(name, options.zoo / name, cache=options.downloads)
    try:
        return effect(files.model, files.evaluation)
    except OnnxoptError as error:
        return [f"not timed: {error.what}"]


def _made(tool: str, path: Path, out: Path, before: Model, samples: Samples | None) -> Made:
    try:
        seconds = run_isolated("benchmarks.rewrite:run", tool, str(path), str(out), limits=LIMITS)
        after = read_model(out)
    except OnnxoptError as error:
        return Made(0, 0.0, 0, error.what)
    return Made(after.nodes, seconds, files_size(after.graph, out), _problem(before, after, samples))


def _problem(before: Model, after: Model, samples: Samples | None) -> str | None:
    """Return what is wrong with a result, by the same check for all."""
    difference = _interface(before.signature, after.signature)
    if difference:
        return f"interface: {difference}"
    with tempfile.TemporaryDirectory() as folder, closing(Verifier(probes(before, samples), Path(folder))) as verifier:
        try:
            verifier.verify(before, after, "it")
        except UnverifiableError:
            return None
        except OnnxoptError as error:
            return error.what
    return None


def _interface(before: Signature, after: Signature) -> str | None:
    """Return how the interface changed; numbers for symbolic dimensions of outputs are let pass."""
    outputs = [
        replace(new, shape=old.shape) if _refines(new, old) else new
        for old, new in zip(before.outputs, after.outputs, strict=False)
    ]
    return before.difference(replace(after, outputs=(*outputs, *after.outputs[len(outputs) :])))


def _refines(new: Port, old: Port) -> bool:
    if old.shape is None or new.shape is None or len(old.shape) != len(new.shape):
        return old.shape is None
    return all(not isinstance(a, int) or a == b for a, b in zip(old.shape, new.shape, strict=True))


def _line(name: str, found: Mapping[str, Made]) -> str:
    cells = [
        f"{tool} {'broken' if made.problem else made.nodes} in {made.seconds:.3f} s" for tool, made in found.items()
    ]
    told = [f"\n  {tool}: {made.problem[:150]}" for tool, made in found.items() if made.problem]
    return f"{name}: {found['input'].nodes} nodes; " + ", ".join(cells[1:]) + "".join(told)


def _summary(found: Mapping[str, Mapping[str, Made]]) -> str:
    lines = [""]
    for tool in (OURS, *PEERS):
        broken = [name for name, made in found.items() if made[tool].problem]
        lines.append(f"{tool}: broken on {len(broken)} of {len(found)} {', '.join(broken)}")
    slower = [name for name, made in found.items() if made[OURS].seconds > made["OnnxSlim"].seconds > 0]
    larger = [name for name, made in found.items() if made[OURS].nodes > _best(made)]
    lines.append(f"slower than OnnxSlim: {len(slower)} {', '.join(slower)}")
    lines.append(f"more nodes than the best peer that is not broken: {len(larger)}")
    lines += [f"  {name}: {_exception(found[name])}" for name in larger]
    return "\n".join(lines)


def _exception(made: Mapping[str, Made]) -> str:
    """Return why a peer has fewer nodes: it may have made the file larger, which we do only if asked."""
    best, ours, growing = _best(made), made[OURS], made[GROWING]
    told = f"{ours.nodes} nodes, the best peer {best}"
    if growing.nodes <= best:
        told += (
            f"; {growing.nodes} with --growth, which stores what is computed from little: {growing.size / 1e6:.1f} MB"
        )
        told += f" instead of {ours.size / 1e6:.1f} MB"
    return told


def _best(found: Mapping[str, Made]) -> int:
    """Return the fewest nodes of a peer that is not broken."""
    return min((found[tool].nodes for tool in PEERS if not found[tool].problem), default=1 << 30)


if __name__ == "__main__":
    main()
