"""Applying steps to a graph and keeping only those that leave it computing the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir

from onnxopt.context import Context, Fired, Warned
from onnxopt.errors import EngineTimeoutError, OnnxoptError, OutputError, UnverifiableError, VerificationError
from onnxopt.evaluate.probes import probes
from onnxopt.evaluate.verify import Verifier
from onnxopt.ir.check import check_structure
from onnxopt.ir.model import Model, private_copy
from onnxopt.ir.shapes import infer_shapes
from onnxopt.passes import checked
from onnxopt.rewrite.apply import Application, Log, apply_rules
from onnxopt.rewrite.rule import Rule

_NOT_ITS_FAULT = (EngineTimeoutError, OutputError, UnverifiableError)
"""A full disk, a slow machine or a model that shows nothing is no reason to leave a step out, and to remember that."""


@dataclass(frozen=True, slots=True)
class GraphStep:
    """A named change to a graph: it edits what it is given, or returns another."""

    name: str
    apply: Callable[[onnx_ir.Model], onnx_ir.Model | None]


class CheckedRewriter:
    """Applies steps, verifies them together, and on a mismatch finds the one to blame and leaves it out."""

    def __init__(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Make a rewriter for one model; needs ``data`` and ``scratch`` of the context."""
        self._ctx = ctx
        samples = ctx.data if ctx.has_data else None
        self._verifier = Verifier(probes(Model(graph), samples), ctx.scratch)
        self._banned: set[str] = set()
        self._left_out: frozenset[Application] = frozenset()
        self.log = Log()

    def close(self) -> None:
        """End the process models are verified in."""
        self._verifier.close()

    def apply(self, model: Model, steps: Sequence[GraphStep]) -> Model:
        """Return the model after all steps that keep what it computes; the others are told and skipped."""
        wanted = [step for step in steps if step.name not in self._banned]
        try:
            after = model
            for step in wanted:
                after = _changed(after, step)
            return self._verified(model, after, "rewriting")
        except _NOT_ITS_FAULT:
            raise
        except OnnxoptError:
            return self._one_by_one(model, wanted)

    def apply_rules(self, model: Model, rules: Sequence[Rule]) -> Model:
        """Return the model after rules, until none fires; an application that breaks it is found, told and left out.

        What fired and what nearly did is added to ``log``.
        """
        while True:
            after, log = self._with_rules(model, rules)
            try:
                after = self._verified(model, after, "rewriting")
            except _NOT_ITS_FAULT:
                raise
            except OnnxoptError as error:
                self._leave_out(self._guilty(model, rules, len(log.fired)), error)
            else:
                self.log.add(log)
                return after

    def _guilty(self, model: Model, rules: Sequence[Rule], count: int) -> Fired:
        """Return the first application after which the model is broken, by bisection."""
        good, bad = 0, count
        while bad - good > 1:
            middle = (good + bad) // 2
            after, _ = self._with_rules(model, rules, middle)
            try:
                self._verified(model, after, "rewriting")
                good = middle
            except _NOT_ITS_FAULT:
                raise
            except OnnxoptError:
                bad = middle
        _, log = self._with_rules(model, rules, bad)
        return log.fired[-1]

    def _leave_out(self, guilty: Fired, error: OnnxoptError) -> None:
        application = (guilty.rule, guilty.node)
        if application in self._left_out:
            raise error
        self._left_out |= {application}
        place = f" ({error.where})" if error.where else ""
        self._ctx.emit(Warned(f"left out rule {guilty.rule!r} at node {guilty.node!r}: {error.what}{place}"))

    def _with_rules(self, model: Model, rules: Sequence[Rule], most: int | None = None) -> tuple[Model, Log]:
        log = Log()

        def apply(graph: onnx_ir.Model) -> None:
            infer_shapes(graph)
            log.add(apply_rules(graph, rules, most=most, left_out=self._left_out))

        return _changed(model, GraphStep("rewriting", apply)), log

    def _one_by_one(self, model: Model, steps: Sequence[GraphStep]) -> Model:
        for step in steps:
            try:
                model = self._verified(model, _changed(model, step), step.name)
            except _NOT_ITS_FAULT:
                raise
            except OnnxoptError as error:
                self._banned.add(step.name)
                place = f" ({error.where})" if error.where else ""
                self._ctx.emit(Warned(f"left out {step.name!r}: {error.what}{place}"))
        return model

    def _verified(self, before: Model, after: Model, what: str) -> Model:
        if after.digest != before.digest:
            self._verifier.verify(before, after, what)
        return after


def _changed(model: Model, step: GraphStep) -> Model:
    """Return the model after a step.

    Raises:
        OnnxoptError: The step failed, or left an invalid model or another interface.
    """
    clone = private_copy(model.graph)
    try:
        clone = step.apply(clone) or clone
    except OnnxoptError:
        raise
    except Exception as error:
        raise VerificationError(f"{step.name} failed: {type(error).__name__}: {error}") from error
    check_structure(clone, step.name)
    return checked(model, clone, step.name)
