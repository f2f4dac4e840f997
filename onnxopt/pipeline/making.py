"""Making models: passes applied, verified and cached."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from onnxopt.compile.isolation import Limits
from onnxopt.context import Context, Fired, Missed, PassDone, Use, Warned
from onnxopt.context import Event as PassEvent
from onnxopt.data.sample import Samples
from onnxopt.errors import ModelError
from onnxopt.evaluate.probes import probes
from onnxopt.evaluate.verify import Verifier
from onnxopt.explain.rules import RulesTold
from onnxopt.ir.model import Model
from onnxopt.ir.read import read_model
from onnxopt.ir.signature import Signature
from onnxopt.ir.write import files_size, write_model
from onnxopt.passes import Pass
from onnxopt.pipeline.cache import Entry, Parts
from onnxopt.pipeline.events import Event
from onnxopt.pipeline.record import CandidateRecord, StepRecord, plain
from onnxopt.pipeline.steps import CachedSteps, fingerprint
from onnxopt.profile.machine import library_versions
from onnxopt.targets.target import Target

_MODEL = "model.onnx"
_REMEMBERED = 4


@dataclass(frozen=True)
class ModelFile:
    """A model on disk.

    Attributes:
        path: The ``.onnx`` file.
        digest: Of the model's content.
        nodes: Number of nodes.
        size_bytes: Of the file and its external data.
        operators: Number of nodes of each type.
        steps: What was done to it since it was read.
        original: The file that was read, for one that was made; None for that file itself.
    """

    path: Path
    digest: str
    nodes: int
    size_bytes: int
    operators: Mapping[str, int]
    steps: tuple[StepRecord, ...] = ()
    original: ModelFile | None = None


class Maker:
    """Applies passes; the last few models stay in memory."""

    def __init__(
        self,
        steps: CachedSteps,
        target: Target,
        calibration: Samples | None,
        scratch: Path,
        *,
        seed: int = 0,
        limits: Limits | None = None,
        verify: bool = True,
    ) -> None:
        """Make a maker.

        Args:
            steps: Runs steps through the cache.
            target: Where models will run.
            calibration: Real samples passes may use and changes are verified on; None if there are none.
            scratch: A folder for temporary files; the caller removes it.
            seed: For every random choice.
            limits: Of each child process.
            verify: Whether passes that must not change the answer are held to it.
        """
        self._steps = steps
        self._target = target
        self._calibration = calibration
        self._scratch = scratch
        self._seed = seed
        self._limits = limits
        self._verify = verify
        self._loaded: OrderedDict[str, Model] = OrderedDict()
        self._verifiers: dict[Signature, Verifier] = {}

    def close(self) -> None:
        """End the processes models are verified in."""
        for verifier in self._verifiers.values():
            verifier.close()

    def add(self, path: Path, model: Model) -> ModelFile:
        """Return the file of a model that was read already."""
        self._remember(model)
        return ModelFile(path, model.digest, model.nodes, files_size(model.graph, path), model.operators)

    def load(self, file: ModelFile) -> Model:
        """Return the model of a file.

        Raises:
            ModelError: The file no longer holds it.
        """
        if file.digest not in self._loaded:
            self._remember(read_proved(file))
        self._loaded.move_to_end(file.digest)
        return self._loaded[file.digest]

    def apply(self, change: Pass, file: ModelFile, *, place: str = "") -> ModelFile:
        """Return the model after a pass; one that must not change the answer is verified.

        Args:
            change: The pass.
            file: The model before it.
            place: Where in the recipe it stands.

        Raises:
            OnnxoptError: The pass refuses the model or fails, or the answer changed.
        """
        parts = self._pass_parts(change, file)
        make = partial(self._run_pass, change, file)
        entry, done = self._steps.run(str(change), parts, make, place=place)
        value = entry.value
        for text in value["warnings"] if done.cached else ():  # a pass that runs tells them itself, as they come
            self._steps.listen(Warned(text))
        for fired in value["fired"]:
            self._steps.listen(Fired(**fired))
        for missed in value["missed"]:
            self._steps.listen(Missed(**missed))
        changed = value["digest"] != file.digest
        error = self._verified(change, file, entry) if self._verify and change.exact and changed else None
        step = StepRecord(
            name=change.name,
            options=change.options,
            digest=value["digest"],
            cached=done.cached,
            reason=done.reason,
            seconds=entry.seconds,
            nodes=value["nodes"],
            verification=error,
            warnings=tuple(value["warnings"]),
        )
        made = _file(entry) if changed else file
        return replace(made, steps=(*file.steps, step), original=file.original or file)

    def trying(self) -> Maker:
        """Return this maker for models that may be thrown away: it tells how far it is, and nothing it noticed."""
        listen = self._steps.listen

        def hear(event: Event) -> None:
            if not isinstance(event, Warned | Fired | Missed):
                listen(event)

        other = copy(self)
        other._steps = replace(self._steps, listen=hear)  # noqa: SLF001  its own
        return other

    def _run_pass(self, change: Pass, file: ModelFile, folder: Path) -> dict[str, Any]:
        warnings: list[str] = []
        rules = RulesTold()

        def hear(event: PassEvent) -> None:
            rules(event)
            if isinstance(event, Warned):
                warnings.append(event.text)
            if not isinstance(event, PassDone | Fired | Missed):
                self._steps.listen(event)

        with tempfile.TemporaryDirectory(dir=self._scratch) as scratch:
            before = self.load(file)
            ctx = Context.of(
                target=self._target,
                data=self._calibration,
                original=self.load(file.original or file) if "original" in change.uses else None,
                seed=self._seed,
                scratch=Path(scratch),
                emit=hear,
                verifier=self._verifier(before),
                kept=self._steps.kept,
            )
            model = change(before, ctx)
            write_model(model, folder / _MODEL)
        self._remember(model)
        size = sum(written.stat().st_size for written in folder.iterdir())
        told = {"digest": model.digest, "nodes": model.nodes, "size": size, "operators": model.operators}
        return {**told, "warnings": warnings, "fired": plain(rules.fired), "missed": plain(rules.missed)}

    def _verified(self, change: Pass, before: ModelFile, entry: Entry) -> float:
        """Return the largest error of an exact pass, on calibration samples and made-up feeds."""
        after = _file(entry)

        def make(_: Path) -> float:
            fixed = not change.keeps_signature
            verifier = self._verifier(self.load(after if fixed else before))
            what = f"pass {change.name!r}"
            return verifier.verify(self.load(before), self.load(after), what, may_refuse=fixed).error

        parts = {
            "step": "verify",
            "input": before.digest,
            "after": after.digest,
            "calibration": fingerprint(self._calibration),
            "libraries": library_versions(("onnxruntime",)),
        }
        verified, _ = self._steps.run(f"verify {change.name}", parts, make)
        error: float = verified.value
        return error

    def _verifier(self, model: Model) -> Verifier:
        """Return the verifier of models with this interface; it remembers what those it has seen computed."""
        if model.signature not in self._verifiers:
            folder = Path(tempfile.mkdtemp(prefix="verify-", dir=self._scratch))
            self._verifiers[model.signature] = Verifier(probes(model, self._calibration), folder, self._limits)
        return self._verifiers[model.signature]

    def _pass_parts(self, change: Pass, file: ModelFile) -> Parts:
        uses: Mapping[Use, Callable[[], Any]] = {
            "target": lambda: plain(self._target),
            "data": lambda: fingerprint(self._calibration),
            "original": lambda: (file.original or file).digest,
            "seed": lambda: self._seed,
        }
        return {
            "step": "pass",
            "pass": change.name,
            "revision": change.revision,
            "options": change.options,
            "input": file.digest,
            "libraries": library_versions(("onnxopt", *change.libraries)),
            **{use: value() for use, value in uses.items() if use in change.uses},
        }

    def _remember(self, model: Model) -> None:
        self._loaded[model.digest] = model
        self._loaded.move_to_end(model.digest)
        while len(self._loaded) > _REMEMBERED:
            self._loaded.popitem(last=False)


def read_proved(file: ModelFile) -> Model:
    """Read a model's file.

    Raises:
        ModelError: It is not the model it was when it was measured.
    """
    model = read_model(file.path)
    if model.digest != file.digest:
        raise ModelError(f"{file.path} changed while it was worked on", hint="run the same command again")
    return model


def described(record: CandidateRecord, file: ModelFile) -> CandidateRecord:
    """Return the record with what there is to say about the model's file."""
    return replace(
        record,
        steps=file.steps,
        digest=file.digest,
        nodes=file.nodes,
        size_bytes=file.size_bytes,
        operators=dict(file.operators),
    )


def _file(entry: Entry) -> ModelFile:
    value = entry.value
    path = entry.folder / _MODEL
    return ModelFile(path, value["digest"], value["nodes"], value["size"], value["operators"])
