"""Does a changed model still compute the same? A check that can fail, and says where."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxopt.compile.engine import Feeds, Results
from onnxopt.compile.isolation import Limits, PersistentChild
from onnxopt.compile.ort import OnnxRuntime
from onnxopt.data.sample import Sample
from onnxopt.errors import EngineError, UnverifiableError, VerificationError
from onnxopt.evaluate.locate import locate_difference
from onnxopt.evaluate.tolerance import OutputCheck, check_output
from onnxopt.ir.model import Model
from onnxopt.ir.write import write_model
from onnxopt.targets.target import local_target

_LARGE = 1 << 30
"""Bytes of a model; above it, weights are held once and not twice, for kernels that take longer."""

_GIVE_DATA = "give real samples with --data, so that its outputs mean something"


@dataclass(frozen=True, slots=True)
class Verification:
    """What a change was held against; all of it passed."""

    outputs: tuple[OutputCheck, ...]
    probes: int

    @property
    def error(self) -> float:
        """The largest error of any output, as a share of its standard deviation."""
        return max((check.error for check in self.outputs), default=0.0)


class Verifier:
    """Verifies changes on the same probes, remembering the outputs of models already run."""

    def __init__(self, probes: Sequence[Sample], folder: Path, limits: Limits | None = None) -> None:
        """Make a verifier.

        Args:
            probes: Feeds; see ``probes``.
            folder: For model files.
            limits: Of loading a model and running it on all probes.
        """
        self._probes = probes
        self._folder = folder
        self._child = PersistentChild(limits)
        self._outputs: dict[tuple[str, str], list[Results | None]] = {}
        self._same_noise: dict[str, Model] = {}

    def verify(self, before: Model, after: Model, what: str, *, may_refuse: bool = False) -> Verification:
        """Return the check of a change.

        Args:
            before: The model before the change.
            after: The model after it.
            what: The change, for error messages.
            may_refuse: Whether the change may give up sizes the model took before; they are then no probes.

        Raises:
            VerificationError: Outputs differ by more than rounding (the error names output, probe and the first
                node that differs), or a probe the model took before is refused.
            UnverifiableError: No probe could tell a right answer from a wrong one.
        """
        plain = self._run(before, "disabled")
        noisy = self._noisy(before)
        usable = [i for i, outputs in enumerate(plain) if outputs is not None and noisy[i] is not None]
        changed = self._run(after, "disabled") if usable else []
        refused = [i for i in usable if changed[i] is None]
        if refused and not may_refuse:
            raise self._refused(self._probes[refused[0]], what)
        usable = [i for i in usable if i not in refused]
        if not usable:
            raise UnverifiableError(f"{what} cannot be verified: the model runs on none of the probes", hint=_GIVE_DATA)
        checks = _compare(plain, noisy, changed, usable)
        self._check_passed(before, after, checks, what)
        self._same_noise[after.digest] = self._same_noise.get(before.digest, before)
        return Verification(checks, len(usable))

    def close(self) -> None:
        """End the process models are run in."""
        self._child.close()

    def _noisy(self, model: Model) -> list[Results | None]:
        """Return the outputs with the runtime's optimisations; of the first of a chain of equal models."""
        return self._run(self._same_noise.get(model.digest, model), "all")

    def _refused(self, probe: Sample, what: str) -> VerificationError:
        shapes = {name: list(array.shape) for name, array in probe.feeds.items()}
        return VerificationError(
            f"{what} broke the model: it no longer runs on {probe.name}",
            where=f"shapes {shapes}",
            hint="a dimension that was free was made fixed, or an operator became invalid",
        )

    def _check_passed(self, before: Model, after: Model, checks: Sequence[OutputCheck], what: str) -> None:
        for check in checks:
            if not check.passed:
                probe = self._probes[check.worst]
                raise VerificationError(
                    f"{what} changed the answer: output {check.name!r} is off by {check.error:.2g} of its standard"
                    f" deviation (rounding explains {check.tolerance:.2g}) on {probe.name}",
                    where=locate_difference(before, after, probe.feeds, self._folder, self._child),
                    hint="leave the step out, and please report it with the model",
                )
        if not any(check.informative for check in checks):
            raise UnverifiableError(
                f"{what} cannot be verified: no output varies on any probe beyond rounding noise", hint=_GIVE_DATA
            )

    def _run(self, model: Model, optimization: str) -> list[Results | None]:
        """Return the outputs on every probe, None where the runtime refuses it."""
        key = (model.digest, optimization)
        if key not in self._outputs:
            path = self._folder / f"{model.digest[:16]}.onnx"
            if not path.exists():
                write_model(model, path)
            feeds = [dict(probe.feeds) for probe in self._probes]
            place = "onnxopt.evaluate.verify:run_probes"
            self._outputs[key] = self._child.function(place, str(path), optimization, feeds)
        return self._outputs[key]


def run_probes(path: str, optimization: Any, feeds: Sequence[Feeds]) -> list[Results | None]:
    """Return the tensors a model file makes of each of some feeds, None where it refuses them; called in the child."""
    results: list[Results | None] = []
    small = sum(file.stat().st_size for file in Path(path).parent.glob(f"{Path(path).name}*")) < _LARGE
    with OnnxRuntime(graph_optimization=optimization, prepacking=small).compile(Path(path), local_target()) as engine:
        for one in feeds:
            results.append(None)
            with suppress(EngineError):
                results[-1] = {name: v for name, v in engine.run(one).items() if isinstance(v, np.ndarray)}
    return results


def _compare(
    plain: Sequence[Results | None],
    noisy: Sequence[Results | None],
    changed: Sequence[Results | None],
    usable: Sequence[int],
) -> tuple[OutputCheck, ...]:
    a, b, c = ([runs[i] or {} for i in usable] for runs in (plain, noisy, changed))
    checks = []
    for name in a[0]:
        check = check_output(name, [r[name] for r in a], [r[name] for r in b], [r.get(name) for r in c])
        informative = tuple(usable[i] for i in check.informative)
        checks.append(OutputCheck(name, check.error, check.tolerance, informative, usable[check.worst]))
    return tuple(checks)
