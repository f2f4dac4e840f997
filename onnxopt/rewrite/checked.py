"""Applying steps to a graph and keeping only those that leave it computing the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx_ir

from onnxopt.context import Context, Fired, Warned
from onnxopt.errors import EngineTimeoutError, OnnxoptError, OutputError, UnverifiableError, VerificationError
from onnxopt.evaluate.probes import probes
from onnxopt.evaluate.verify import Verifier
from onnxopt.ir.check import check_structure
from onnxopt.ir.model import Model, private_copy
from onnxopt.ir.shapes import infer_shapes
from onnxopt.passes import checked
from onnxopt.rewrite.apply import Application, Log, RuleError, apply_rules
from onnxopt.rewrite.rule import Rule

_NOT_ITS_FAULT = (EngineTimeoutError, OutputError, UnverifiableError)
"""A full disk, a slow machine or a model that shows nothing is no reason to leave a step out, and to remember that."""

_MOST_FAULTS = 3
"""Wrong applications of a rule before it is left out everywhere: each takes a bisection to find."""


Check = Literal["always", "if-possible", "never"]


@dataclass(frozen=True, slots=True)
class GraphStep:
    """A named change to a graph: it edits what it is given, or returns another."""

    name: str
    apply: Callable[[onnx_ir.Model], onnx_ir.Model | None]


class CheckedRewriter:
    """Applies steps, verifies them together, and on a mismatch finds the one to blame and leaves it out."""

    def __init__(self, graph: onnx_ir.Model, ctx: Context, check: Check = "always") -> None:
        """Make a rewriter for one model; needs ``data`` and ``scratch`` of the context.

        Args:
            graph: The model.
            ctx: Surroundings of the pass; its verifier is used where it has one.
            check: Whether answers are compared; ``if-possible`` goes on, and tells so, where they show nothing.
        """
        self._ctx = ctx
        self._must_show = check == "always"
        self._own: Verifier | None = None
        if check != "never" and ctx.verifier is None:
            self._own = Verifier(probes(Model(graph), ctx.data if ctx.has_data else None), ctx.scratch)
        self._verifier = None if check == "never" else ctx.verifier or self._own
        self._banned: set[str] = set()
        self._left_out: frozenset[Application] = frozenset()
        self._distrusted: frozenset[str] = frozenset()
        self.log = Log()

    def close(self) -> None:
        """End the process models are verified in."""
        if self._own is not None:
            self._own.close()

    def apply(
        self,
        model: Model,
        steps: Sequence[GraphStep],
        rules: Sequence[Rule] = (),
        afterwards: Sequence[GraphStep] = (),
    ) -> Model:
        """Return the model after all steps, rules until none fires, and more steps, as far as it computes the same.

        All are verified together. Where that fails, steps are verified one by one and the others told and skipped;
        an application of a rule that breaks the model is found, told and left out. What rules fired and what nearly
        did is added to ``log``.
        """
        log = Log()
        wanted = [*self._allowed(steps), self._step(rules, log), *self._allowed(afterwards)]
        try:
            after = self._verified(model, _changed(model, "rewriting", *wanted), "rewriting")
        except _NOT_ITS_FAULT:
            raise
        except OnnxoptError:
            model = self._with_rules(self._one_by_one(model, steps), rules)
            return self._one_by_one(model, afterwards)
        self.log.add(log)
        return after

    def _with_rules(self, model: Model, rules: Sequence[Rule]) -> Model:
        while True:
            log = Log()
            try:
                after = self._verified(model, _changed(model, "rewriting", self._step(rules, log)), "rewriting")
            except _NOT_ITS_FAULT:
                raise
            except RuleError as error:
                self._distrust(error.rule, error.what)
            except OnnxoptError as error:
                if not log.fired:
                    raise
                self._leave_out(self._guilty(model, rules, len(log.fired)), error)
            else:
                self.log.add(log)
                return after

    def _guilty(self, model: Model, rules: Sequence[Rule], count: int) -> Fired:
        """Return the first application after which the model is broken, by bisection."""
        good, bad = 0, count
        while bad - good > 1:
            middle = (good + bad) // 2
            try:
                after = _changed(model, "rewriting", self._step(rules, Log(), middle))
                self._verified(model, after, "rewriting")
                good = middle
            except _NOT_ITS_FAULT:
                raise
            except OnnxoptError:
                bad = middle
        log = Log()
        self._step(rules, log, bad).apply(private_copy(model.graph))
        return log.fired[-1]

    def _leave_out(self, guilty: Fired, error: OnnxoptError) -> None:
        application = (guilty.rule, guilty.node)
        if application in self._left_out:
            raise error
        self._left_out |= {application}
        place = f" ({error.where})" if error.where else ""
        self._ctx.emit(Warned(f"left out rule {guilty.rule!r} at node {guilty.node!r}: {error.what}{place}"))
        if sum(rule == guilty.rule for rule, _ in self._left_out) == _MOST_FAULTS:
            self._distrust(guilty.rule, f"it was wrong {_MOST_FAULTS} times")

    def _distrust(self, rule: str, why: str) -> None:
        self._distrusted |= {rule}
        self._ctx.emit(Warned(f"left out rule {rule!r} everywhere: {why}"))

    def _step(self, rules: Sequence[Rule], log: Log, most: int | None = None) -> GraphStep:
        """Return the application of rules, at most so often, as a step; what happens goes to ``log``."""

        def apply(graph: onnx_ir.Model) -> None:
            trusted = [rule for rule in rules if rule.name not in self._distrusted]
            revealing = {rule.name for rule in trusted if rule.reveals_shapes}
            learnt = bool(trusted)
            while learnt:
                infer_shapes(graph)
                left = None if most is None else most - len(log.fired)
                found = apply_rules(graph, trusted, most=left, left_out=self._left_out)
                log.add(found)
                learnt = any(fired.rule in revealing for fired in found.fired)

        return GraphStep("rewriting", apply)

    def _allowed(self, steps: Sequence[GraphStep]) -> Sequence[GraphStep]:
        return [step for step in steps if step.name not in self._banned]

    def _one_by_one(self, model: Model, steps: Sequence[GraphStep]) -> Model:
        for step in self._allowed(steps):
            try:
                model = self._verified(model, _changed(model, step.name, step), step.name)
            except _NOT_ITS_FAULT:
                raise
            except OnnxoptError as error:
                self._banned.add(step.name)
                place = f" ({error.where})" if error.where else ""
                self._ctx.emit(Warned(f"left out {step.name!r}: {error.what}{place}"))
        return model

    def _verified(self, before: Model, after: Model, what: str) -> Model:
        if after.digest == before.digest or self._verifier is None:
            return after
        try:
            self._verifier.verify(before, after, what)
        except UnverifiableError as error:
            if self._must_show:
                raise
            self._verifier = None
            self._ctx.emit(Warned(f"not verified, only checked to be a valid model: {error.what}"))
        return after


def _changed(model: Model, what: str, *steps: GraphStep) -> Model:
    """Return the model after steps.

    Raises:
        OnnxoptError: One of them failed, or they left an invalid model or another interface.
    """
    graph = private_copy(model.graph)
    for step in steps:
        try:
            graph = step.apply(graph) or graph
        except OnnxoptError:
            raise
        except Exception as error:
            raise VerificationError(f"{step.name} failed: {type(error).__name__}: {error}") from error
    check_structure(graph, what)
    return checked(model, graph, what)
