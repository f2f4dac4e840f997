"""``prune-channels`` on every model of the zoo, and on dynamo's exports: what it covers, is it exact, what it gains.

For each model and share of the multiply-accumulates: whether the pruned model is valid and takes and gives the same,
how far it is from the share, and how many widths are multiples of 8. Exactness: half of every group's channels, chosen
at random, are set to zero, and then removed; the answers must not change. Where rounding in the runtime hides that,
both are run in float64 by ONNX's reference evaluator. That this can fail is shown on the model itself: weights that are
cut are each turned by one channel, and each must change the answers. With ``--latency``, how much faster the pruned
models are, measured in turn, beside how many fewer multiply-accumulates they have.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir
from onnx.reference import ReferenceEvaluator

import onnxopt_zoo
from onnxopt.compile.engine import Array, Feeds, Results, make_backend
from onnxopt.compile.isolation import IsolatedEngine
from onnxopt.context import Context
from onnxopt.data.files import SampleFiles
from onnxopt.data.sample import Samples
from onnxopt.data.synthetic import Synthetic
from onnxopt.errors import OnnxoptError
from onnxopt.export.from_torch import export_model
from onnxopt.ir.check import checker_complaint
from onnxopt.ir.model import Model, normalise, private_copy
from onnxopt.ir.quantized import is_quantized
from onnxopt.ir.read import read_model
from onnxopt.ir.write import write_model
from onnxopt.passes import make_pass
from onnxopt.profile.latency import Plan
from onnxopt.profile.launches import LAUNCHES, compare_launches, timed_feeds
from onnxopt.prune.groups import Groups, find_groups, prepared
from onnxopt.prune.masked import masked
from onnxopt.prune.shrink import shrink
from onnxopt.prune.sizes import find_sizes
from onnxopt.prune.units import Kept
from onnxopt.targets.target import local_target

SHARES = (0.75, 0.5)
EXPORTED = ("dynamo:resnet", "dynamo:resnet18", "dynamo:mobilenet_v2", "dynamo:bert")
"""Modules of ``onnxopt_zoo.modules``, by torch's newer exporter: the zoo's own exports are by TorchScript."""

TOLERANCE = 0.03
EXACT = 1e-5
"""Largest error of exactness, as a share of the output's largest value."""

PLANTED = 5
"""Weights that are cut wrongly, one at a time."""


@dataclass
class Cut:
    """A model pruned to a share.

    Attributes:
        share: Asked for.
        left: Of the multiply-accumulates.
        aligned: Share of the cut axes whose length is a multiple of 8.
        complaint: What is wrong with it, empty if nothing.
        speedup: Times faster, low and high; None if not measured.
    """

    share: float
    left: float = 1.0
    aligned: float = 1.0
    complaint: str = ""
    speedup: tuple[float, float, float] | None = None


@dataclass
class Row:
    """What became of a model.

    Attributes:
        model: Its name.
        refused: Why it was not pruned, empty if it was.
        groups: How many there are.
        coverage: Share of multiply-accumulates in nodes that can lose channels.
        error: Of exactness.
        noise: What the runtime's own graph optimisations move the same outputs.
        doubled: Whether ``error`` is that of float64.
        planted: Weights that were cut wrongly on purpose.
        caught: Of them, that moved the outputs further than rounding may.
        left: The costliest nodes that cannot lose channels, and why.
        cuts: One a share.
    """

    model: str
    refused: str = ""
    groups: int = 0
    coverage: float = 0.0
    error: float = 0.0
    noise: float = 0.0
    doubled: bool = False
    planted: int = 0
    caught: int = 0
    left: list[str] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)

    @property
    def noticed(self) -> float:
        """Error in the runtime that is more than its rounding."""
        return max(EXACT, 10 * self.noise)


def main() -> None:
    """Measure, print a line a model, and the summary."""
    options = _options()
    rows = []
    for name in options.models:
        rows.append(_measured(name, options))
        print(_told(rows[-1]), flush=True)
    print(_summary(rows))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [*(model.id for model in onnxopt_zoo.models()), *EXPORTED]
    told = f"models of the zoo, or {', '.join(EXPORTED)}; all if none given"
    parser.add_argument("models", nargs="*", default=known, help=told)
    parser.add_argument("--zoo", type=Path, default=Path("build/zoo"), help="folder of models and samples")
    parser.add_argument("--downloads", type=Path, default=Path.home() / ".cache/onnxopt/zoo", help="folder of packages")
    parser.add_argument("--latency", action="store_true", help="measure the pruned models' speed too")
    parser.add_argument("--out", type=Path, default=Path("build/prune.json"), help="file for all figures")
    return parser.parse_args()


def _measured(name: str, options: argparse.Namespace) -> Row:
    model = _model(name, options)
    if is_quantized(model.graph):
        return Row(name, refused="it is quantized already: pruning starts from the float model")
    samples = _samples(model, options.zoo / name / "calibration")
    groups = _groups(model, samples)
    if not groups.found:
        return Row(
            name, refused=f"{groups.left[0].reason}" if groups.left else "it multiplies nothing outside branches"
        )
    row = Row(name, groups=len(groups.found), coverage=groups.coverage)
    row.left = [f"{left.operator} {left.node}, {left.share:.1%}: {left.reason}" for left in groups.left[:3]]
    row.cuts = [_cut(model, groups, samples, share, options.latency) for share in SHARES]
    _exactness(row, groups, samples.read(0).feeds, random_weights=name in EXPORTED)
    return row


def _model(name: str, options: argparse.Namespace) -> Model:
    if name not in EXPORTED:
        return read_model(onnxopt_zoo.get(name, options.zoo / name, cache=options.downloads).model)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model.onnx"
        export_model(f"onnxopt_zoo.modules:{name.partition(':')[2]}", out, dynamic=["batch=1..4"])
        return read_model(out)


def _samples(model: Model, folder: Path) -> Samples:
    found = SampleFiles(tuple(sorted(folder.glob("*.npz"))))
    return found if len(found) else Synthetic(synthetic=1).open(model, Path())


def _groups(model: Model, samples: Samples) -> Groups:
    graph = prepared(model.graph)
    return find_groups(graph, find_sizes(graph, samples))


def _exactness(row: Row, groups: Groups, feeds: Feeds, *, random_weights: bool) -> None:
    """Find the error of removing what is zero, and whether it would show a wrong cut; cuts the groups' graph."""
    random = np.random.default_rng(0)
    _vary(groups, random, whole=random_weights)
    gone = [group.classes[random.permutation(group.width)[: group.width // 2]] for group in groups.found]
    kept = groups.kept(np.concatenate(gone))
    before = Model(masked(groups, kept))
    after = Model(shrink(groups, kept))
    normalise(after.graph)
    expected = _answers(before, feeds, "basic")
    row.error = _error(expected, _answers(after, feeds, "basic"))
    row.noise = _error(expected, _answers(before, feeds, "all"))
    for wrong in _cut_wrongly(groups, kept, after, random):
        row.planted += 1
        row.caught += _error(expected, _answers(wrong, feeds, "basic")) > row.noticed
    if row.error > EXACT:
        row.error, row.doubled = _error(_in_double(before, feeds), _in_double(after, feeds)), True


def _in_double(model: Model, feeds: Feeds) -> Results:
    """Return what a model computes in float64, by ONNX's reference evaluator."""
    graph = private_copy(model.graph)
    stored = graph.graph.initializers.values()
    for value in stored:
        if value.const_value is not None and value.const_value.dtype == _FLOAT:
            value.const_value = onnx_ir.tensor(value.const_value.numpy().astype(np.float64), name=value.name)
    made = (value for node in graph.graph for value in node.outputs)
    for value in (*graph.graph.inputs, *graph.graph.outputs, *stored, *made):
        if value.dtype == _FLOAT:
            value.dtype = _DOUBLE
    for node in graph.graph:
        if node.op_type == "Cast" and node.attributes["to"].as_int() == _FLOAT:
            node.attributes["to"] = onnx_ir.AttrInt64("to", int(_DOUBLE))
    wide = {name: _widened(feeds[name]) for name in _inputs(model)}
    names = [value.name or "" for value in graph.graph.outputs]
    found = ReferenceEvaluator(onnx_ir.to_proto(graph)).run(names, wide)
    return dict(zip(names, found, strict=True))


def _widened(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype == np.float32 else array


_FLOAT, _DOUBLE = onnx_ir.DataType.FLOAT, onnx_ir.DataType.DOUBLE


def _vary(groups: Groups, random: np.random.Generator, *, whole: bool) -> None:
    """Give weights that nobody trained numbers that show a wrong cut: those of one number only, or all of them.

    Channels that are alike hide it, and so does a module as torch makes it, whose activations die out with its depth;
    these are about as large as what keeps them (He et al. 2015, where a weight's first axis is what it makes).
    """
    for value in groups.graph.graph.initializers.values():
        array = value.const_value.numpy() if value.const_value is not None else np.zeros(1)
        if array.dtype != np.float32 or array.ndim < 2 or not (whole or (array == array.flat[0]).all()):
            continue
        made = random.standard_normal(array.shape) * np.sqrt(2 * len(array) / array.size)
        value.const_value = onnx_ir.tensor(made.astype(np.float32), name=value.name)


def _cut_wrongly(groups: Groups, kept: Kept, after: Model, random: np.random.Generator) -> Iterator[Model]:
    """Yield the cut model with one weight of a layer turned by a channel along an axis that was cut, some of them."""
    cut = [
        (value.name or "", axis)
        for (value, axis), labels in groups.stored.items()
        if len(value.shape or ()) > 1 and 1 < kept.count(labels) < len(labels)
    ]
    for place in random.permutation(len(cut))[:PLANTED]:
        name, axis = cut[place]
        graph = private_copy(after.graph)
        weight = graph.graph.initializers[name]
        assert weight.const_value is not None
        weight.const_value = onnx_ir.tensor(np.roll(weight.const_value.numpy(), 1, axis), name=name)
        yield Model(graph)


def _answers(model: Model, feeds: Feeds, level: str) -> Results:
    with tempfile.TemporaryDirectory() as folder:
        path = write_model(model, Path(folder) / "model.onnx")[0]
        backend = make_backend("ort", {"graph_optimization": level})
        with IsolatedEngine(backend, path, local_target()) as engine:
            return engine.run({name: array for name, array in feeds.items() if name in _inputs(model)})


def _inputs(model: Model) -> list[str]:
    return [port.name for port in model.signature.inputs]


def _error(expected: Results, got: Results) -> float:
    """Return the largest error as a share of the output's largest value; a changed shape is one of its size."""
    return max((_of_output(array, got[name]) for name, array in expected.items()), default=0.0)


def _of_output(expected: Array, got: Array) -> float:
    if expected.shape != got.shape:
        return 1.0
    if expected.dtype.kind not in "fiu" or not expected.size:
        return 0.0
    wide = expected.astype(np.float64)
    return float(np.abs(wide - got).max() / max(np.abs(wide).max(), 1e-12))


def _cut(model: Model, before: Groups, samples: Samples, share: float, latency: bool) -> Cut:
    """Prune by the weights alone, for it is looked at what is left, not at what is lost."""
    try:
        change = make_pass("prune-channels", {"keep": share, "criterion": "l2", "weigh": False})
        after = change(model, Context.of(data=samples))
    except OnnxoptError as error:
        return Cut(share, complaint=error.what)
    now = _groups(after, samples)
    cut = Cut(share, left=now.macs / before.macs, aligned=_aligned(before, now))
    cut.complaint = _complaint(model, after, samples)
    if latency and not cut.complaint:
        cut.speedup = _speedup(model, after, samples)
    return cut


def _complaint(model: Model, after: Model, samples: Samples) -> str:
    """Return what is wrong with a pruned model."""
    complaint = checker_complaint(after.graph)
    if complaint:
        return complaint
    try:
        feeds = samples.read(0).feeds
        before, now = _answers(model, feeds, "all"), _answers(after, feeds, "all")
    except OnnxoptError as error:
        return error.what
    wrong = [name for name, array in before.items() if now[name].shape != array.shape]
    return f"shapes changed: {wrong}" if wrong else ""


def _aligned(before: Groups, now: Groups) -> float:
    """Return which share of the axes that became shorter has a length that is a multiple of 8."""
    whole = _lengths(before)
    cut = [length for slot, length in _lengths(now).items() if length < whole.get(slot, 0)]
    return sum(length % 8 == 0 for length in cut) / len(cut) if cut else 1.0


def _lengths(groups: Groups) -> dict[str, int]:
    """Return the lengths of axes of weights that groups are along, by NAME[AXIS]."""
    slots = {slot for group in groups.found for slot in group.slots}
    return {str(slot): len(groups.stored[slot.value, slot.axis]) for slot in slots}


def _speedup(model: Model, after: Model, samples: Samples) -> tuple[float, float, float]:
    with tempfile.TemporaryDirectory() as folder:
        paths = [write_model(one, Path(folder) / f"{place}.onnx")[0] for place, one in enumerate((model, after))]
        start = partial(IsolatedEngine, make_backend("ort"), target=local_target().with_threads(1))
        slow, fast = (partial(start, path) for path in paths)
        found = compare_launches(slow, fast, timed_feeds(samples), Plan(max_seconds=2.0), LAUNCHES)
    return found.speedup.ratio, found.speedup.low, found.speedup.high


def _told(row: Row) -> str:
    if row.refused:
        return f"{row.model}: not pruned: {row.refused}"
    cuts = "; ".join(_told_cut(cut) for cut in row.cuts)
    exact = f"exact to {row.error:.0e}{' in float64' if row.doubled else ''} (runtime {row.noise:.0e})"
    line = (
        f"{row.model}: {row.groups} groups, {row.coverage:.1%} covered, {exact},"
        f" {row.caught} of {row.planted} wrong cuts caught; {cuts}"
    )
    return line + "".join(f"\n  left: {one}" for one in row.left)


def _told_cut(cut: Cut) -> str:
    if cut.complaint:
        return f"{cut.share:.0%}: FAILED: {cut.complaint}"
    faster = f", {cut.speedup[0]:.2f}x [{cut.speedup[1]:.2f}, {cut.speedup[2]:.2f}]" if cut.speedup else ""
    return f"{cut.share:.0%}: {cut.left:.1%} left, {cut.aligned:.0%} of widths in eights{faster}"


def _summary(rows: list[Row]) -> str:
    pruned = [row for row in rows if not row.refused]
    cuts = [(row.model, cut) for row in pruned for cut in row.cuts]
    failed = [model for model, cut in cuts if cut.complaint]
    off = [
        f"{model} {cut.left:.0%} for {cut.share:.0%}" for model, cut in cuts if abs(cut.left - cut.share) > TOLERANCE
    ]
    inexact = [row.model for row in pruned if row.error > EXACT]
    return (
        f"\n{len(pruned)} of {len(rows)} models pruned; invalid {len(failed)} {failed or ''};"
        f" further than {TOLERANCE:.0%} from the share {len(off)} {off or ''}; inexact {len(inexact)} {inexact or ''};"
        f" wrong cuts caught {sum(row.caught for row in pruned)} of {sum(row.planted for row in pruned)};"
        f" covered on average {np.mean([row.coverage for row in pruned]):.1%}"
    )


if __name__ == "__main__":
    main()
