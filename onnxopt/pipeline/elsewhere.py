"""Numbers made for a machine that is not this one: what it is decides how, accuracy is judged here, speed nowhere."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnxopt.compile.isolation import Limits
from onnxopt.context import Context
from onnxopt.explain.portability import Portability, Saturation, find_saturation
from onnxopt.ir.model import Model
from onnxopt.passes import make_pass
from onnxopt.pipeline.cache import Cache
from onnxopt.pipeline.candidates import scheme_steps
from onnxopt.pipeline.effort import NORMAL, Effort
from onnxopt.pipeline.events import Listener
from onnxopt.pipeline.optimize import Result, run_recipe
from onnxopt.pipeline.record import plain
from onnxopt.pipeline.session import Session, open_session
from onnxopt.quantize.calibrated import Calibrated
from onnxopt.recipe.recipe import Recipe
from onnxopt.targets.target import Target, local_target
from onnxopt.targets.ways import Way, find_way, saturates

_ROUNDS = 3
"""Narrower weights change what later layers read, and what ``mixed`` picks, so that others may saturate then."""


@dataclass(frozen=True)
class Narrowed:
    """A pass that quantizes, with narrow weights where sums saturate.

    Attributes:
        change: The pass.
        layers: Those it narrows, as they were before.
        last: What was found in the last round: none is left to narrow, or there were too many rounds.
    """

    change: Calibrated
    layers: tuple[Saturation, ...]
    last: Portability


def quantize_elsewhere(
    recipe: Recipe,
    scheme: str,
    runtime: str,
    cache: Cache,
    listen: Listener,
    *,
    limits: Limits | None = None,
    effort: Effort = NORMAL,
    command: str = "",
) -> Result:
    """Bring a model to a scheme as its target wants it, and judge it on this machine.

    Args:
        recipe: Without passes; its backend is what accuracy is judged in here.
        scheme: One of ``candidates.SCHEMES``.
        runtime: That the target runs it in.
        cache: Where results are kept.
        listen: Told what happens.
        limits: Of each child process.
        effort: Told to the run; nothing is timed.
        command: Told in the record.

    Raises:
        UsageError: The target does not have the runtime, or cannot run the scheme.
        OnnxoptError: The inputs cannot be used, or a pass fails.
    """
    way = find_way(recipe.target, runtime, scheme)
    steps = scheme_steps(scheme, min_sqnr=recipe.budget.min_sqnr, runtime=runtime, **way.options)
    asked = replace(recipe, passes=tuple(make_pass(name, options) for name, options in steps))
    narrowed = None
    if way.narrow:
        with open_session(asked, asked.backend, cache, listen, limits=limits, effort=effort) as session:
            narrowed = _narrowed(session)
        asked = replace(asked, passes=(*(asked.passes or ())[:-1], narrowed.change))
    result = run_recipe(asked, cache, listen, limits=limits, effort=effort, command=command, timed=False)
    facts = {"runtime": runtime, "options": dict(way.options), "why": way.why, "speed_measured": False}
    target = {**result.record.target, **facts, **(_facts(narrowed) if narrowed else {})}
    notes = (*_notes(recipe, scheme, way, local_target()), *(_narrow_notes(narrowed) if narrowed else ()))
    return replace(result, record=replace(result.record, target=target, notes=(*result.record.notes, *notes)))


def _narrowed(session: Session) -> Narrowed:
    """Return the recipe's last pass with 7-bit weights for each layer that loses less by these than by saturation."""
    *before, change = session.recipe.passes or ()
    assert isinstance(change, Calibrated)
    file = session.source
    for one in before:
        file = session.maker.apply(one, file)
    layers: list[Saturation] = []
    for _ in range(_ROUNDS):
        found = _saturation(session, session.maker.load(session.maker.apply(change, file)))
        new = [one for one in found.layers if one.layer in {*found.narrow} - {*change.narrow}]
        if not new:
            break
        layers += new
        change = replace(change, narrow=(*change.narrow, *(one.layer for one in new)))
    return Narrowed(change, tuple(layers), found)


def _saturation(session: Session, model: Model) -> Portability:
    with tempfile.TemporaryDirectory(prefix="onnxopt-") as scratch:
        ctx = Context.of(scratch=Path(scratch), emit=session.listen)
        return find_saturation(model, session.inputs.data.calibration, ctx)


def _facts(narrowed: Narrowed) -> dict[str, Any]:
    """Return what the record tells of narrow weights, as JSON values."""
    return {
        "narrowed": plain(narrowed.layers),
        "saturating": plain(tuple(_left(narrowed))),
        "not_simulated": plain(narrowed.last.left),
        "simulated_samples": narrowed.last.samples,
    }


def _notes(recipe: Recipe, scheme: str, way: Way, here: Target) -> Iterator[str]:
    """Yield what the reader must know of a result for another machine."""
    name, judged = recipe.target.name, f"accuracy was judged here, in {recipe.backend}"
    yield f"speed on {name} was not measured; {judged}"
    if way.why:
        options = ", ".join(f"{option}={value}" for option, value in way.options.items())
        yield f"{scheme} for {name}{f' with {options}' if options else ''}: {way.why}"
    if way.precision == "int8" and saturates(recipe.target) != saturates(here):
        one, other = ("there", "here") if saturates(here) else ("here", "there")
        yield f"sums of products do not saturate {one} and may {other}: the accuracy told is of this machine"
    if scheme == "mixed":
        yield f"which layers are worth 8 bits was decided by their times on this machine, not on {name}"
    if way.narrow and recipe.backend.name != "ort":
        yield f"which sums saturate was found in the order ONNX Runtime adds them in; {recipe.backend.name} has its own"
    if way.precision == "float16":
        yield "this CPU computes in float32 where it has no float16 kernel, so that more may be lost there than here"


def _narrow_notes(narrowed: Narrowed) -> Iterator[str]:
    """Yield which layers got 7-bit weights and why, which saturate still, and which nothing is known of."""
    samples = f"on {narrowed.last.samples} calibration samples"
    for one in narrowed.layers:
        cut = f"{_percent(one.share)} of its sums saturate {samples}, which leaves it {one.sqnr_db:.1f} dB"
        yield f"7-bit weights for {one.layer!r}: {cut}; 7 bits leave {one.narrow_db:.1f} dB"
    if not narrowed.layers:
        yield f"no layer needs 7-bit weights: {samples} none loses more by saturation"
    left = [f"{one.layer!r} ({_percent(one.share)})" for one in _left(narrowed)]
    if left:
        yield f"some sums saturate still where 7 bits would lose more: {', '.join(left)}"
    for reason, count in Counter(one.reason for one in narrowed.last.left).items():
        yield f"saturation was not looked for in {count} layer{'s' if count > 1 else ''}: {reason}"


def _left(narrowed: Narrowed) -> list[Saturation]:
    """Return the layers that saturate and keep 8 bits."""
    names = {one.layer for one in narrowed.layers}
    return [one for one in narrowed.last.saturating if one.layer not in names]


def _percent(share: float) -> str:
    return f"{share * 100:.2g}%"
