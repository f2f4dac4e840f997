"""What rewriting does to latency, after the runtimes' own optimisers, and which family of rules does it.

As a command it times the families that are applied only on request, wherever they fire.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnxopt
import onnxopt_zoo
from onnxopt.context import Context, Event, Fired
from onnxopt.data.files import Files
from onnxopt.errors import OnnxoptError
from onnxopt.ir.read import read_model
from onnxopt.ir.write import write_model
from onnxopt.passes import make_pass
from onnxopt.profile.statistics import Speedup, Verdict
from onnxopt.rewrite.rules import FAMILIES, ON_REQUEST

RUNTIMES = ("ort", "openvino")
SECONDS = 6.0
"""Measured for one comparison, over all launches."""


def effect(model: Path, data: Path | None) -> list[str]:
    """Return a line a runtime: how many times faster the rewritten model is, and the families that matter.

    A family matters if the rewritten model is faster, or slower, than what the other families alone make of it. Where
    none does, it is what needs no rule: freezing weights, folding constants, merging what is equal.
    """
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        fired = _rewritten(model, data, Path(folder) / "all.onnx")
        for runtime in RUNTIMES:
            try:
                told = _effect_in(runtime, model, data, Path(folder), fired)
            except OnnxoptError as error:
                told = f"not timed: {error.what}"
            lines.append(f"{runtime} {told}")
    return lines


def _effect_in(runtime: str, model: Path, data: Path | None, folder: Path, fired: Sequence[str]) -> str:
    whole = _speedup(model, folder / "all.onnx", runtime, data)
    if whole.verdict not in _DIFFERENT:
        return _told(whole)
    families = _deciding(model, folder, fired, runtime, data, whole.verdict)
    return f"{_told(whole)}, by {', '.join(families) or 'no family alone'}"


_DIFFERENT = (Verdict.FASTER, Verdict.SLOWER)


def on_request(model: Path, data: Path | None) -> Iterator[str]:
    """Yield a line for each family applied only on request that fires on a model, and each runtime.

    A model of an older opset than the family's rules have is converted first; both sides of a comparison are.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for family in sorted(ON_REQUEST):
            start, without, along = (folder / f"{family}-{word}.onnx" for word in ("start", "without", "with"))
            opset = max(rule.since for rule in FAMILIES[family])
            if read_model(model).graph.opset_imports.get("", 0) < opset:
                _made(model, data, start, "convert-opset", opset=opset)
            else:
                start = model
            _rewritten(start, data, without)
            if family not in _rewritten(start, data, along, also=[family]):
                continue
            for runtime in RUNTIMES:
                yield f"{family} in {runtime} {_told(_speedup(without, along, runtime, data))}"


def _made(model: Path, data: Path | None, out: Path, change: str, **options: Any) -> list[Event]:
    """Write a model after a pass; return what it told."""
    events: list[Event] = []
    before = read_model(model)
    samples = Files(files=str(data), limit=3).open(before, Path()) if data else None
    with tempfile.TemporaryDirectory() as scratch:
        context = Context.of(data=samples, scratch=Path(scratch), emit=events.append)
        write_model(make_pass(change, options)(before, context), out)
    return events


def _rewritten(model: Path, data: Path | None, out: Path, **options: Any) -> list[str]:
    """Write the rewritten model; return the families that fired."""
    rules = {
        event.rule
        for event in _made(model, data, out, "rewrite", check="if-possible", **options)
        if isinstance(event, Fired)
    }
    return [family for family, members in FAMILIES.items() if rules & {rule.name for rule in members}]


def _told(found: Speedup) -> str:
    return f"{found.ratio:.2f}x [{found.low:.2f}, {found.high:.2f}] {found.verdict.value}"


def _deciding(
    model: Path, folder: Path, fired: Sequence[str], runtime: str, data: Path | None, verdict: Verdict
) -> list[str]:
    """Return the families that make the rewritten model faster, or slower, than the others alone do."""
    found = []
    for family in fired:
        without = folder / f"without-{family}.onnx"
        if not without.exists():
            _rewritten(model, data, without, skip=[family])
        if _speedup(without, folder / "all.onnx", runtime, data).verdict is verdict:
            found.append(family)
    return found


def _speedup(model: Path, made: Path, runtime: str, data: Path | None) -> Speedup:
    found = onnxopt.profile_model(
        made, runtime=runtime, versus=model, data=str(data) if data else None, threads=1, seconds=SECONDS
    )
    assert found.speedup is not None
    return found.speedup


def main() -> None:
    """Print what each family that is applied only on request does to each model it fires on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="models of the zoo, or .onnx files")
    parser.add_argument("--zoo", type=Path, default=Path("build/zoo"), help="folder of models and samples")
    parser.add_argument("--downloads", type=Path, default=Path.home() / ".cache/onnxopt/zoo", help="folder of packages")
    options = parser.parse_args()
    for name in options.models:
        if name.endswith(".onnx"):
            model, data = Path(name), None
        else:
            files = onnxopt_zoo.get(name, options.zoo / name, cache=options.downloads)
            model, data = files.model, files.evaluation
        try:
            for line in on_request(model, data):
                print(f"{name}: {line}", flush=True)
        except OnnxoptError as error:
            print(f"{name}: not timed: {error.what}", flush=True)


if __name__ == "__main__":
    main()
