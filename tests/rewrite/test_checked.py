"""A step that breaks the model is found, named and left out; the others stay."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx_ir
import pytest

from onnxopt.compile.isolation import PersistentChild
from onnxopt.context import Context, Event, Warned
from onnxopt.errors import PassError, UnverifiableError, VerificationError
from onnxopt.ir.cleanup import lift_constants, remove_identities
from onnxopt.ir.model import Model
from onnxopt.rewrite.checked import CheckedRewriter, GraphStep
from onnxopt.rewrite.rule import Outcome, Replacement, Rule
from onnxopt.rewrite.rules.affine import ScaleIntoLayer
from tests.graphs import from_text, node_lines

BEFORE = """<ir_version: 8, opset_import: ["" : 17]> g (float[n, 4] x, float[n, 4] unread) => (float[n, 4] y) {
    k = Constant <value = float {3}> ()
    a = Mul (x, k)
    same = Identity (a)
    y = LeakyRelu <alpha = 0.1> (same)
}"""
LIFT, SHORTEN = GraphStep("lift", lift_constants), GraphStep("shorten", remove_identities)
AFTER = ["a = Mul (x, k)", "y = LeakyRelu (a)"]


@dataclass
class Run:
    """A rewriter for one model, and what it told."""

    model: Model
    rewriter: CheckedRewriter
    events: list[Event] = field(default_factory=list)

    def apply(self, *steps: GraphStep) -> Model:
        return self.rewriter.apply(self.model, steps)

    @property
    def warnings(self) -> Sequence[str]:
        return [event.text for event in self.events if isinstance(event, Warned)]


@pytest.fixture(scope="module")
def child() -> Iterator[PersistentChild]:
    """One process for all tests of this file; starting one takes longer than most of them."""
    with closing(PersistentChild()) as made:
        yield made


@pytest.fixture
def run(tmp_path: Path, child: PersistentChild) -> Run:
    events: list[Event] = []
    model = from_text(BEFORE)
    rewriter = CheckedRewriter(model.graph, Context.of(scratch=tmp_path, emit=events.append))
    rewriter._verifier._child = child
    return Run(model, rewriter, events)


def _node(graph: onnx_ir.Model, operator: str) -> onnx_ir.Node:
    return next(node for node in graph.graph if node.op_type == operator)


def _wrong_slope(graph: onnx_ir.Model) -> None:
    _node(graph, "LeakyRelu").attributes["alpha"] = onnx_ir.AttrFloat32("alpha", 0.2)


def _fails(graph: onnx_ir.Model) -> None:
    raise ZeroDivisionError("oh no")


def _drops_an_input(graph: onnx_ir.Model) -> None:
    graph.graph.inputs.pop()


def _unknown_operator(graph: onnx_ir.Model) -> None:
    _node(graph, "LeakyRelu").op_type = "LeakyRelux"


def _cuts_a_value_off(graph: onnx_ir.Model) -> None:
    _node(graph, "LeakyRelu").replace_input_with(0, onnx_ir.Value(name="nowhere"))


BROKEN = {
    "wrong": (_wrong_slope, r"wrong changed the answer: output 'y' is off by .* \(LeakyRelu\), value 'y'\)"),
    "fails": (_fails, "fails failed: ZeroDivisionError: oh no"),
    "interface": (_drops_an_input, r"interface changed the model's interface: inputs were \['x', 'unread'\]"),
    "operator": (_unknown_operator, "has no operator 'LeakyRelux'"),
    "cut": (_cuts_a_value_off, "reads 'nowhere', which nothing makes"),
}


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("name", BROKEN)
def test_the_broken_step_is_named_and_the_others_survive(run: Run, name: str, place: int) -> None:
    make, text = BROKEN[name]
    steps = [LIFT, SHORTEN]
    steps.insert(place, GraphStep(name, make))
    after = run.apply(*steps)
    assert node_lines(after) == AFTER
    assert len(run.warnings) == 1
    assert run.warnings[0].startswith(f"left out {name!r}: ")
    assert re.search(text, run.warnings[0])


def test_a_step_left_out_is_not_tried_again(run: Run) -> None:
    calls: list[str] = []

    def wrong(graph: onnx_ir.Model) -> None:
        calls.append("wrong")
        _wrong_slope(graph)

    for _ in range(3):
        run.apply(GraphStep("wrong", wrong), LIFT)
    assert len(calls) == 2
    assert len(run.warnings) == 1


def test_a_step_left_out_before_rules_is_not_tried_after_them(run: Run) -> None:
    wrong = GraphStep("wrong", _wrong_slope)
    after = run.rewriter.apply(run.model, [LIFT, wrong], (), [SHORTEN, wrong])
    assert node_lines(after) == AFTER
    assert len(run.warnings) == 1


def test_two_broken_steps_are_both_found(run: Run) -> None:
    after = run.apply(GraphStep("wrong", _wrong_slope), LIFT, GraphStep("fails", _fails), SHORTEN)
    assert node_lines(after) == AFTER
    assert [text.split("'")[1] for text in run.warnings] == ["wrong", "fails"]


def test_good_steps_are_applied_without_a_word(run: Run) -> None:
    assert node_lines(run.apply(LIFT, SHORTEN)) == AFTER
    assert run.events == []
    assert node_lines(run.model)[0] == "k = Constant ()"


def test_steps_that_change_nothing_give_the_model_back(run: Run) -> None:
    assert run.apply(GraphStep("nothing", lambda graph: None)).digest == run.model.digest


def test_a_step_may_return_another_graph(run: Run) -> None:
    other = from_text(BEFORE.replace("same = Identity (a)", "").replace("(same)", "(a)")).graph
    assert node_lines(run.apply(GraphStep("other", lambda graph: other))) == ["k = Constant ()", *AFTER]


def test_what_cannot_be_verified_is_refused_not_guessed(tmp_path: Path) -> None:
    model = from_text(BEFORE.replace("{3}", "{0}"))
    with (
        closing(CheckedRewriter(model.graph, Context.of(scratch=tmp_path))) as rewriter,
        pytest.raises(UnverifiableError, match="rewriting cannot be verified"),
    ):
        rewriter.apply(model, [LIFT])


def test_the_verifier_of_the_context_is_asked_and_believed(tmp_path: Path) -> None:
    asked: list[tuple[str, str, str]] = []

    class Refuses:
        def verify(self, before: Model, after: Model, what: str) -> None:
            asked.append((before.digest, after.digest, what))
            if what in ("rewriting", "shorten"):
                raise VerificationError("no")

    model = from_text(BEFORE)
    with closing(CheckedRewriter(model.graph, Context.of(scratch=tmp_path, verifier=Refuses()))) as rewriter:
        after = rewriter.apply(model, [LIFT, SHORTEN])
    assert node_lines(after) == ["a = Mul (x, k)", "same = Identity (a)", "y = LeakyRelu (same)"]
    assert [what for _, _, what in asked] == ["rewriting", "lift", "shorten"]
    assert asked[1][:2] == (model.digest, after.digest)


def test_a_rewriter_needs_a_scratch_folder() -> None:
    with pytest.raises(PassError, match="this step needs a scratch folder"):
        CheckedRewriter(from_text(BEFORE).graph, Context.of())


def test_feeds_of_another_size_are_among_the_probes(run: Run) -> None:
    def fixes(graph: onnx_ir.Model) -> None:
        to = onnx_ir.Value(name="to", const_value=onnx_ir.tensor(np.array([1, 4]), name="to"))
        graph.graph.register_initializer(to)
        node = _node(graph, "Mul")
        reshape = onnx_ir.node("Reshape", [graph.graph.inputs[0], to], name="reshape")
        graph.graph.insert_before(node, reshape)
        node.replace_input_with(0, reshape.outputs[0])

    assert node_lines(run.apply(LIFT, GraphStep("fixes", fixes), SHORTEN)) == AFTER
    assert "fixes broke the model: it no longer runs on synthetic[0], twice along 'n'" in run.warnings[0]


class _WrongSign(Rule):
    """Turns the sign of what it folds into a weight at some nodes, and is right at all others."""

    name: ClassVar[str] = "wrong-sign"
    operators: ClassVar[frozenset[str]] = frozenset({"Mul"})

    def __init__(self, at: Sequence[str]) -> None:
        self._at = at

    def match(self, node: onnx_ir.Node) -> Outcome:
        outcome = ScaleIntoLayer().match(node)
        if isinstance(outcome, Replacement) and node.name in self._at:
            value = outcome.weights[0]
            value.const_value = onnx_ir.tensor(-value.const_value.numpy(), name=value.name)
        return outcome


@pytest.fixture
def chain() -> Model:
    body = " ".join(f"m{i} = MatMul (a{i}, w) s{i} = Mul (m{i}, k) a{i + 1} = LeakyRelu (s{i})" for i in range(6))
    text = f'<ir_version: 8, opset_import: ["" : 17]> g (float[n, 4] a0) => (float[n, 4] a6) {{ {body} }}'
    return from_text(
        text,
        {
            "w": np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32),
            "k": np.full(1, 0.5, np.float32),
        },
    )


def _muls(model: Model) -> list[str]:
    return [node.name or "" for node in model.graph.graph if node.op_type == "Mul"]


def _with_wrong_rule(model: Model, folder: Path, *at: str) -> tuple[Model, list[str], list[str]]:
    """Return the model after a rule that is wrong at some nodes, where it fired, and the warnings."""
    events: list[Event] = []
    with closing(CheckedRewriter(model.graph, Context.of(scratch=folder, emit=events.append))) as rewriter:
        after = rewriter.apply(model, [], [_WrongSign(at)])
        fired = [fired.node for fired in rewriter.log.fired]
    return after, fired, [event.text for event in events if isinstance(event, Warned)]


def test_a_wrong_rule_is_found_named_and_undone_and_the_rest_survives(tmp_path: Path, chain: Model) -> None:
    names = _muls(chain)
    after, fired, (warned,) = _with_wrong_rule(chain, tmp_path, names[3])
    assert _muls(after) == [names[3]]
    assert fired == [*names[:3], *names[4:]]
    assert warned.startswith(
        f"left out rule 'wrong-sign' at node '{names[3]}': rewriting changed the answer: output 'a6'"
    )


def test_a_rule_that_is_often_wrong_is_left_out_everywhere(tmp_path: Path, chain: Model) -> None:
    names = _muls(chain)
    after, fired, warned = _with_wrong_rule(chain, tmp_path, *names[1:])
    assert (_muls(after), fired) == (names, [])
    assert [text.split(":")[0] for text in warned] == [
        *(f"left out rule 'wrong-sign' at node '{name}'" for name in names[1:4]),
        "left out rule 'wrong-sign' everywhere",
    ]


class _Fails(Rule):
    """Fails at a node."""

    name: ClassVar[str] = "fails"
    operators: ClassVar[frozenset[str]] = frozenset({"LeakyRelu"})

    def match(self, node: onnx_ir.Node) -> Outcome:
        raise ZeroDivisionError("oh no")


def test_a_rule_that_fails_is_left_out_and_the_rest_survives(tmp_path: Path, chain: Model) -> None:
    events: list[Event] = []
    with closing(CheckedRewriter(chain.graph, Context.of(scratch=tmp_path, emit=events.append))) as rewriter:
        after = rewriter.apply(chain, [], [_Fails(), ScaleIntoLayer()])
    assert _muls(after) == []
    (warned,) = [event.text for event in events if isinstance(event, Warned)]
    assert warned.startswith("left out rule 'fails' everywhere: rule 'fails' failed at node ")
    assert warned.endswith("ZeroDivisionError: oh no")
