"""Results of the smaller commands as tables for a terminal."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from onnxopt.options import Option, describe
from onnxopt.pipeline.record import plain
from onnxopt.registry import names, resolve
from onnxopt.report import words

if TYPE_CHECKING:
    from onnxopt.context import Fired
    from onnxopt.evaluate.drift import Drift
    from onnxopt.evaluate.score import Scores
    from onnxopt.explain.doctor import Diagnosis
    from onnxopt.explain.measured import Compared, Profile
    from onnxopt.explain.rules import RulesTold
    from onnxopt.explain.summary import Summary
    from onnxopt.export.from_torch import Exported
    from onnxopt.pipeline.cache import Cache
    from onnxopt.pipeline.making import ModelFile
    from onnxopt.profile.latency import Timing
    from onnxopt.targets.target import Target
    from onnxopt_zoo import ZooModel

_PLACES = 5
"""Places of each rule that are listed, unless one rule is asked for."""


def summary_table(found: Summary) -> RenderableType:
    """Return ``onnxopt inspect``."""
    rows = [
        ("file", f"{found.path}, {words.size(found.size_bytes)}"),
        ("digest", found.digest[:16]),
        ("format", f"IR {found.ir_version}, opsets {_joined(found.opsets)}; {found.producer or 'no producer named'}"),
        ("inputs", "\n".join(found.inputs)),
        ("outputs", "\n".join(found.outputs)),
        ("classifiers", ", ".join(found.classifiers) or "none: no output comes from Softmax or ArgMax"),
        ("nodes", f"{found.nodes} in {found.graphs} graphs"),
        ("operators", _joined(found.operators)),
        ("parameters", f"{found.parameters:,}; bytes {_joined(found.weight_bytes)}"),
        ("weights stored", _joined(found.stored_as)),
    ]
    if found.weights_as_inputs:
        rows.append(
            ("note", f"{found.weights_as_inputs} weights are inputs too: runtimes fuse nothing; freeze-weights")
        )
    if found.unknown_shapes:
        rows.append(("note", f"{found.unknown_shapes} values have no fully known shape"))
    if found.inference_problem:
        rows.append(("note", f"shapes could not be inferred: {found.inference_problem}"))
    rows += [(f"metadata {key}", value) for key, value in found.metadata.items()]
    return pairs_table(rows)


def profile_table(found: Profile) -> RenderableType:
    """Return ``onnxopt profile``."""
    rows = [("model", *_timing(found.timing))]
    if found.versus is not None:
        rows.append(("versus", *_timing(found.versus)))
    table = rows_table(("", "p50", "p90", "p99", "samples", "load", "peak memory"), rows, right=range(1, 7))
    lines: list[RenderableType] = [table]
    if found.speedup is not None:
        lines.append(Text(f"speed-up over the other: {found.speedup}", style="bold"))
    if not found.timing.steady:
        lines.append(Text("note: latencies were not steady after warming up", style="yellow"))
    return Group(*lines, Text(f"{found.runtime}, {found.threads} thread(s); {found.machine}", style="dim"))


def scores_table(found: Scores) -> RenderableType:
    """Return ``onnxopt evaluate``."""
    rows = [("samples", f"{found.samples}, {found.decisions} decisions")]
    if found.score is not None:
        rows.append((found.metric or "score", _interval(found.score.value, found.score.low, found.score.high)))
    if found.drop is not None:
        rows.append(("reference", f"{found.baseline:.4f}"))
        rows.append(("drop", _interval(found.drop.value, found.drop.low, found.drop.high, percent=True)))
    lines: list[RenderableType] = [pairs_table(rows)]
    if found.drift is not None:
        lines.append(_drift_table(found.drift))
    return Group(*lines)


def comparison_table(found: Compared) -> RenderableType:
    """Return ``onnxopt compare``."""
    lines: list[RenderableType] = [
        _drift_table(found.drift),
        Text(f"second against first: {found.speedup}", style="bold"),
    ]
    if found.synthetic:
        lines.append(Text("note: compared on made-up inputs; --data gives real ones", style="yellow"))
    if found.layers:
        lines.append(_layers_table(found))
    return Group(*lines)


def _layers_table(found: Compared) -> RenderableType:
    """Return what each layer keeps, and where most is lost."""
    rows = [(one.node, one.operator, one.kept, one.reason or words.decibel(one.sqnr_db)) for one in found.layers]
    table = rows_table(("layer", "operator", "channels", "SQNR"), rows, right=(2,))
    if found.noisiest is None:
        return table
    told = f"{words.decibel(found.noisiest.sqnr_db)} behind it"
    return Group(table, Text(f"most is lost at {found.noisiest.node}: {told}", style="bold"))


def export_record(found: Exported, out: Path) -> dict[str, Any]:
    """Return ``onnxopt export --json``."""
    return {
        "model": str(out),
        "digest": found.model.digest,
        "nodes": found.model.nodes,
        "opset": found.model.graph.opset_imports.get(""),
        "exporter": found.exporter,
        "reason": found.reason,
        "inputs": [str(port) for port in found.model.signature.inputs],
        "outputs": [str(port) for port in found.model.signature.outputs],
        "parity": [plain(one) for one in found.parity],
        "parameters": {"kept": list(found.parameters[0]), "renamed": list(found.parameters[1])},
    }


def export_table(found: Exported, out: Path) -> RenderableType:
    """Return ``onnxopt export``."""
    rows = [(str(dict(p.shapes)), "traced" if p.traced else "not traced", f"{p.error:.1e}") for p in found.parity]
    kept, renamed = found.parameters
    opset = found.model.graph.opset_imports.get("")
    lines: list[RenderableType] = [
        rows_table(("input shapes", "", "largest error"), rows, right=(2,)),
        Text(f"wrote {out}: {found.model.nodes} nodes, opset {opset}, by {found.exporter}"),
        Text(f"{len(kept)} of {len(kept) + len(renamed)} parameters keep their names"),
    ]
    if found.reason:
        lines.append(Text(f"note: not dynamo, because {found.reason}", style="yellow"))
    return Group(*lines)


def applied_table(before: Path, made: ModelFile) -> RenderableType:
    """Return what a pass command prints."""
    step = made.steps[-1]
    lines = [Text(f"wrote {made.path}: {made.nodes} nodes, {words.size(made.size_bytes)}; {before} is unchanged")]
    if step.verification is not None:
        lines.append(Text(f"verified: outputs differ by at most {step.verification:.1e} of their standard deviation"))
    if step.cached:
        lines.append(Text("from the cache", style="dim"))
    return Group(*lines)


def buckets_table(made: Iterable[ModelFile]) -> RenderableType:
    """Return what was written for each size."""
    rows = [(str(one.path), str(one.nodes), words.size(one.size_bytes), _largest_error(one)) for one in made]
    return rows_table(("file", "nodes", "size", "outputs differ by"), rows, right=(1, 2, 3))


def _largest_error(made: ModelFile) -> str:
    errors = [step.verification for step in made.steps if step.verification is not None]
    return f"{max(errors):.1e} std" if errors else "not verified"


def rules_table(told: RulesTold) -> RenderableType:
    """Return ``--explain``: what each rule did, then where, and where it nearly did something and why it did not."""
    most = None if told.rule else _PLACES
    sums = [
        (rule, str(len(fired)), str(sum(one.nodes for one in fired)), words.size(sum(one.bytes for one in fired)))
        for rule, fired in _by_rule(told.fired).items()
    ]
    fired = [(one.rule, one.node, f"{one.nodes} nodes, {one.bytes} bytes fewer") for one in told.fired]
    missed = [(one.rule, one.node, f"{one.reason} ({one.blamed})") for one in told.missed]
    fired_table = rows_table(("rule", "fired", "nodes saved", "bytes saved"), sums, right=(1, 2, 3))
    return Group(
        *([fired_table] if sums else [] if missed else ["no rule fired"]),
        *_places("fired at", fired, most),
        *_places("nearly fired at", missed, most),
    )


def _by_rule(fired: Iterable[Fired]) -> Mapping[str, Sequence[Fired]]:
    by_rule: dict[str, list[Fired]] = {}
    for one in fired:
        by_rule.setdefault(one.rule, []).append(one)
    return by_rule


def _places(title: str, rows: Sequence[tuple[str, str, str]], most: int | None) -> list[RenderableType]:
    """Return a table of places; of each rule at most ``most``, and how many more there are."""
    seen: Counter[str] = Counter()
    shown = []
    for row in rows:
        seen[row[0]] += 1
        if most is None or seen[row[0]] <= most:
            shown.append(row)
    if not shown:
        return []
    more = len(rows) - len(shown)
    note = [Text(f"and {more} places more; --rule RULE lists all of one", style="dim")] if more else []
    return [Text(""), rows_table(("rule", title, ""), shown), *note]


def passes_table() -> RenderableType:
    """Return ``onnxopt passes``."""
    rows = [(name, _summary(resolve("passes", name))) for name in names("passes")]
    return rows_table(("pass", "what it does"), rows)


def pass_table(name: str) -> RenderableType:
    """Return ``onnxopt passes NAME``."""
    cls = resolve("passes", name)
    rows = [(o.name, _type(o), "required" if o.required else _default(o.default), o.text) for o in describe(cls)]
    facts = (
        f"exact: {cls.exact}; keeps the interface: {cls.keeps_signature}; uses: {', '.join(sorted(cls.uses)) or '-'}"
    )
    table = rows_table(("option", "type", "default", ""), rows)
    rules: list[RenderableType] = (
        [Text(""), rows_table(("rule", "what it does"), cls.rules().items())] if cls.rules() else []
    )
    return Group(Text(_summary(cls), style="bold"), Text(facts, style="dim"), table, *rules)


def pass_record(name: str | None) -> list[dict[str, Any]]:
    """Return ``onnxopt passes --json``: one entry a pass."""
    chosen = names("passes") if name is None else (name,)
    return [_pass_entry(one, resolve("passes", one)) for one in chosen]


def targets_table(rows: Sequence[Target]) -> RenderableType:
    """Return ``onnxopt targets``."""
    cells = [
        (
            t.name,
            t.device,
            " ".join(t.isa),
            " ".join(t.runtimes),
            " ".join(t.precisions),
            "-" if t.price_per_hour is None else f"{t.price_per_hour:.4g}",
            "-" if t.watts is None else f"{t.watts:.4g}",
            t.source,
        )
        for t in rows
    ]
    return rows_table(
        ("target", "device", "isa", "runtimes", "precisions", "USD/h", "W", "source"), cells, right=(5, 6)
    )


def doctor_table(found: Diagnosis) -> RenderableType:
    """Return ``onnxopt doctor``."""
    marks = {True: "ok", False: "problem", None: "note"}
    rows = [(finding.name, marks[finding.fine], finding.told) for finding in found.findings]
    versions = ", ".join(f"{name} {version}" for name, version in found.machine.libraries.items())
    head = Text(f"{found.machine}; Python {found.machine.python}", style="bold")
    return Group(head, Text(versions), rows_table(("", "", ""), rows))


def cache_record(cache: Cache) -> dict[str, Any]:
    """Return ``onnxopt cache info --json``."""
    entries = list(cache.entries())
    kinds: dict[str, int] = {}
    for entry in entries:
        kind = str(entry.parts.get("step", "?"))
        kinds[kind] = kinds.get(kind, 0) + 1
    return {"folder": str(cache.root), "bytes": cache.size(), "entries": len(entries), "kinds": kinds}


def cache_table(found: Mapping[str, Any]) -> RenderableType:
    """Return ``onnxopt cache info``."""
    told = f"{found['entries']} ({_joined(found['kinds'])})" if found["entries"] else "none"
    return pairs_table([("folder", found["folder"]), ("size", words.size(found["bytes"])), ("entries", told)])


def zoo_table(models: Iterable[ZooModel]) -> RenderableType:
    """Return ``onnxopt zoo list``."""
    rows = [(m.id, m.family, m.obtained, " ".join(m.needs) or "-", m.task.measures, m.licence) for m in models]
    return rows_table(("model", "what it is", "obtained", "needs", "scored by", "licence"), rows)


def _timing(timing: Timing) -> tuple[str, ...]:
    figures = [words.milliseconds(seconds) for seconds in (timing.p50, timing.p90, timing.p99)]
    costs = (words.milliseconds(timing.load_seconds), words.size(timing.peak_memory_bytes))
    return (*figures, str(len(timing.samples)), *costs)


def _drift_table(drift: Drift) -> Table:
    rows = []
    for o in drift.outputs:
        figures = [
            words.decibel(o.sqnr_db),
            "-" if o.max_error is None else f"{o.max_error:.2g}",
            "-" if o.cosine is None else f"{o.cosine:.6f}",
            "-" if o.agreement is None else f"{o.agreement:.2%}",
        ]
        rows.append((o.name, *figures, "constant" if o.constant else ""))
    return rows_table(("output", "SQNR", "max error / sd", "cosine", "agreement", ""), rows, right=range(1, 5))


def _pass_entry(name: str, cls: type[Any]) -> dict[str, Any]:
    return {
        "name": name,
        "summary": _summary(cls),
        "exact": cls.exact,
        "keeps_signature": cls.keeps_signature,
        "uses": sorted(cls.uses),
        "options": [
            {"name": o.name, "type": _type(o), "default": None if o.required else o.default, "text": o.text}
            for o in describe(cls)
        ],
    }


def _summary(cls: type[Any]) -> str:
    return (inspect.getdoc(cls) or "").splitlines()[0]


def _type(option: Option) -> str:
    return option.type.__name__ if isinstance(option.type, type) else str(option.type).replace("typing.", "")


def _default(value: Any) -> str:
    return "-" if value in ((), {}, None) else str(value)


def _interval(value: float, low: float | None, high: float | None, *, percent: bool = False) -> str:
    def form(figure: float) -> str:
        return f"{100 * figure:.2f} %" if percent else f"{figure:.4f}"

    return form(value) + (f"  [{form(low)}, {form(high)}]" if low is not None and high is not None else "")


def _joined(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def pairs_table(rows: Iterable[tuple[str, str]]) -> Table:
    """Return what there is to say, by a word for it."""
    return rows_table(("", ""), rows)


def rows_table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> Table:
    """Return rows under a head; the columns of ``right`` hold numbers."""
    table = Table(box=None, pad_edge=False, show_header=any(head), header_style="bold")
    numbers = set(right)
    for index, name in enumerate(head):
        table.add_column(name, justify="right" if index in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
