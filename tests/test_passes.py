"""The contract of a pass: what it may change, what is checked, and what is told when it breaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
import onnx_ir
import pytest

from onnxopt.context import Context, Event, PassDone, Use
from onnxopt.errors import OnnxoptError, PassError, RecipeError, UsageError
from onnxopt.ir.model import Model
from onnxopt.passes import Pass, Repeat, Sequence, make_pass, option, options
from tests.graphs import from_text, mlp

Edit = Callable[[onnx_ir.Model, Context], onnx_ir.Model | None]


def _pass(edit: Edit, *, keeps: bool = True, needs: frozenset[Use] = frozenset()) -> Pass:
    """Return a pass that does this."""

    @options
    class Probe(Pass):
        """Do what the test says."""

        name: ClassVar[str] = "probe"
        uses: ClassVar[frozenset[Use]] = needs
        keeps_signature: ClassVar[bool] = keeps

        def edit(self, graph: onnx_ir.Model, ctx: Context) -> onnx_ir.Model | None:
            return edit(graph, ctx)

    return Probe()


@options
class Scale(Pass):
    """Multiply the first weight."""

    name: ClassVar[str] = "scale"

    by: float = option("the factor", default=2.0)
    at: list[int] = option("nothing in particular", default=[1])
    mode: Literal["now", "never"] = option("when", default="now")

    def requires(self, graph: onnx_ir.Model, ctx: Context) -> None:
        if "w1" not in graph.graph.initializers:
            raise PassError("there is no w1", hint="give another model")

    def edit(self, graph: onnx_ir.Model, ctx: Context) -> None:
        if self.mode == "now":
            value = graph.graph.initializers["w1"]
            assert value.const_value is not None
            value.const_value = onnx_ir.tensor(value.const_value.numpy() * np.float32(self.by), name="w1")


def _rename_output(graph: onnx_ir.Model, ctx: Context) -> None:
    graph.graph.outputs[0].name = "z"


def _add_axis(graph: onnx_ir.Model, ctx: Context) -> None:
    graph.graph.outputs[0].shape = onnx_ir.Shape(["batch", 4, 1])


def _retype_input(graph: onnx_ir.Model, ctx: Context) -> None:
    graph.graph.inputs[0].dtype = onnx_ir.DataType.FLOAT16


def _rename_input(graph: onnx_ir.Model, ctx: Context) -> None:
    graph.graph.inputs[0].name = "renamed"


def _misspell(graph: onnx_ir.Model, ctx: Context) -> None:
    graph.graph[1].op_type = "Relo"


def _lose_producer(graph: onnx_ir.Model, ctx: Context) -> None:
    graph.graph.remove(graph.graph[1])


def _make_cycle(graph: onnx_ir.Model, ctx: Context) -> None:
    graph.graph[0].replace_input_with(0, graph.graph[3].outputs[0])


def _fail(graph: onnx_ir.Model, ctx: Context) -> None:
    raise KeyError("lost\nmore")


def _refine_batch(graph: onnx_ir.Model, ctx: Context) -> None:
    graph.graph.outputs[0].shape = onnx_ir.Shape([2, 4])


def test_a_change_makes_a_new_model_and_leaves_the_old_one() -> None:
    model = mlp()
    before = model.digest

    after = Scale(by=3.0)(model, Context())

    assert after.digest != before
    assert Model(model.graph).digest == before
    assert [(step.name, step.digest) for step in after.lineage] == [("scale", after.digest)]
    assert after.lineage[0].options == {"by": 3.0, "at": [1], "mode": "now"}
    assert after.signature == model.signature


def test_lineage_grows_at_the_end() -> None:
    after = Sequence(Scale(by=3.0), Scale(mode="never"), Scale(by=0.5))(mlp(), Context())

    assert [step.options["by"] for step in after.lineage] == [3.0, 0.5]
    assert after.lineage[-1].digest == after.digest


def test_nothing_changed_gives_the_same_object() -> None:
    model = mlp()

    assert _pass(lambda graph, ctx: None)(model, Context()) is model
    assert _pass(lambda graph, ctx: graph.clone())(model, Context()) is model


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (_rename_output, r"outputs were \['y'\], are \['z'\]"),
        (_rename_input, r"inputs were \['x'\], are \['renamed'\]"),
        (_retype_input, r"input was 'x: float32\[batch,8\]', is 'x: float16\[batch,8\]'"),
        (_add_axis, r"output was 'y: float32\[batch,4\]', is 'y: float32\[batch,4,1\]'"),
    ],
)
def test_a_changed_interface_is_refused(edit: Edit, what: str) -> None:
    model = mlp()
    before = model.digest

    with pytest.raises(PassError, match=rf"pass 'probe' changed the model's interface: {what}"):
        _pass(edit)(model, Context())
    assert Model(model.graph).digest == before


def test_a_pass_that_says_so_may_change_the_interface() -> None:
    after = _pass(_rename_output, keeps=False)(mlp(), Context())

    assert after.signature.outputs[0].name == "z"


@pytest.mark.parametrize(
    ("edit", "what"),
    [(_misspell, "No Op registered for Relo"), (_lose_producer, "active"), (_make_cycle, "the graph has a cycle")],
)
def test_an_invalid_model_is_refused(edit: Edit, what: str) -> None:
    with pytest.raises(PassError, match=rf"pass 'probe' made an invalid model: .*{what}"):
        _pass(edit)(mlp(), Context())


def test_a_model_that_was_invalid_before_is_not_blamed_on_the_pass() -> None:
    foreign = from_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x) => (float[2] y) { a = Relu (x) y = ai.onnx.unheard.Thing (a) }"""
    )

    after = _pass(lambda graph, ctx: setattr(graph.graph[0], "op_type", "Abs"))(foreign, Context())

    assert after.operators == {"Abs": 1, "ai.onnx.unheard::Thing": 1}


def test_refined_shapes_are_put_back() -> None:
    model = mlp()

    def refine_and_touch(graph: onnx_ir.Model, ctx: Context) -> None:
        _refine_batch(graph, ctx)
        graph.metadata_props["touched"] = "yes"

    assert _pass(_refine_batch)(model, Context()) is model
    after = _pass(refine_and_touch)(model, Context())
    assert after is not model
    assert after.signature == model.signature


@pytest.mark.parametrize(
    ("error", "what", "where"),
    [
        (KeyError("lost\nmore"), "pass 'probe' failed: 'lost\\nmore'", "Model('mlp', 4 nodes"),
        (ValueError("first line\nsecond"), "pass 'probe' failed: first line", "Model('mlp', 4 nodes"),
        (ValueError(), "pass 'probe' failed: ValueError", "Model('mlp', 4 nodes"),
        (PassError("not today"), "not today", "pass 'probe'"),
        (UsageError("not so", where="line 3"), "not so", "line 3"),
    ],
)
def test_what_a_pass_raises_names_the_pass(error: Exception, what: str, where: str) -> None:
    def edit(graph: onnx_ir.Model, ctx: Context) -> None:
        raise error

    with pytest.raises(OnnxoptError) as caught:
        _pass(edit)(mlp(), Context())

    assert caught.value.what == what
    assert (caught.value.where or "").startswith(where)


def test_a_foreign_error_says_what_to_do_next() -> None:
    with pytest.raises(PassError) as caught:
        _pass(_fail)(mlp(), Context())

    assert "--debug" in (caught.value.hint or "")
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_refusal_names_the_pass_and_keeps_its_hint() -> None:
    headless = from_text('<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) { y = Relu (x) }')

    with pytest.raises(PassError) as caught:
        Scale()(headless, Context())

    assert str(caught.value) == "there is no w1\n  at:   pass 'scale'\n  hint: give another model"


def test_a_pass_sees_only_what_it_uses() -> None:
    seen: list[Any] = []

    def edit(graph: onnx_ir.Model, ctx: Context) -> None:
        seen.append(ctx.seed)

    ctx = Context.of(seed=5)
    _pass(edit, needs=frozenset({"seed"}))(mlp(), ctx)
    with pytest.raises(PassError, match=r"read ctx\.seed without declaring it") as caught:
        _pass(edit)(mlp(), ctx)

    assert seen == [5]
    assert caught.value.where == "pass 'probe'"


def test_each_pass_tells_when_it_is_done() -> None:
    heard: list[Event] = []
    model = mlp()

    after = Sequence(Scale(mode="never"), Scale(by=4.0))(model, Context.of(emit=heard.append))

    done = [event for event in heard if isinstance(event, PassDone)]
    assert [(event.before is model, event.after is model) for event in done] == [(True, True), (True, False)]
    assert done[-1].after is after
    assert all(event.seconds > 0 for event in done)


def test_text_tells_options_that_are_not_the_default() -> None:
    assert str(Scale()) == "scale"
    assert str(Scale(by=3.0, at=[2])) == "scale(by=3.0, at=[2])"


def test_text_tells_required_options() -> None:
    @options
    class Needy(Pass):
        """Need something."""

        name: ClassVar[str] = "needy"
        level: int = option("how much")

        def edit(self, graph: onnx_ir.Model, ctx: Context) -> None: ...

    assert str(Needy(level=0)) == "needy(level=0)"


def test_repeat_stops_at_the_fixpoint_and_at_its_limit() -> None:
    rounds: list[int] = []

    def edit(graph: onnx_ir.Model, ctx: Context) -> None:
        rounds.append(1)
        relus = [node for node in graph.graph if node.op_type == "Relu"]
        if relus:
            relus[0].op_type = "Abs"

    twice = from_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x) => (float[2] y) { a = Relu (x) y = Relu (a) }"""
    )
    after = Repeat(_pass(edit))(twice, Context())
    assert (after.operators, len(rounds), len(after.lineage)) == ({"Abs": 2}, 3, 2)

    assert Repeat(_pass(edit), limit=1)(twice, Context()).operators == {"Abs": 1, "Relu": 1}


@pytest.mark.parametrize(
    ("name", "values", "what", "hint"),
    [
        ("fold-constants", {"growth": "8"}, 'growth is "8": it should be a valid integer', "growth: bytes"),
        ("fold-constants", {"growth": -1}, "growth is -1: it should be greater than or equal to 0", "growth: bytes"),
        ("fold-constants", {"grwth": 8}, "there is no option 'grwth'", "did you mean 'growth'?"),
        ("convert-opset", {"opset": 17.5}, "opset is 17.5: it should be a valid integer", "opset: the opset"),
    ],
)
def test_make_pass_refuses_wrong_options(name: str, values: dict[str, Any], what: str, hint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        make_pass(name, values, where="r.yaml:4", error=RecipeError)

    assert caught.value.what.startswith(what)
    assert (caught.value.where or "").startswith("r.yaml:4")
    assert (caught.value.hint or "").startswith(hint)


def test_make_pass_names_the_pass_where_no_place_is_given() -> None:
    with pytest.raises(UsageError) as caught:
        make_pass("fold-constants", {"growth": None})

    assert caught.value.where == "pass 'fold-constants': growth"


def test_make_pass_gives_the_pass_with_these_options() -> None:
    assert str(make_pass("fold-constants", {"growth": 8})) == "fold-constants(growth=8)"
    assert str(make_pass("fold-constants")) == "fold-constants"
