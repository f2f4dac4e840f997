"""The pass ``rewrite`` as a whole: smaller graphs, equal answers, the same interface."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from onnxopt.context import Context, Event, Warned
from onnxopt.errors import EngineCrashError, UnverifiableError, UsageError
from onnxopt.ir.model import Model
from onnxopt.ir.shapes import infer_shapes
from onnxopt.passes import make_pass
from onnxopt.rewrite import simplifiers
from onnxopt.rewrite.rewrite import Rewrite
from onnxopt.rewrite.simplifiers import run_simplifier
from tests.graphs import answers, attention_block, cnn, from_text, node_lines, samples

HEADER = '<ir_version: 8, opset_import: ["" : 17]> '
SHAPES = (
    HEADER
    + """g (float[n, 4, 6] x, float[k] unread) => (float[n, m] y) {
        size = Shape (x)
        zero = Constant <value = int64[1] {0}> ()
        batch = Gather (size, zero)
        rest = Constant <value = int64[1] {-1}> ()
        to = Concat <axis = 0> (batch, rest)
        flat = Reshape (x, to)
        y = Relu (flat)
    }"""
)
BRANCHES = (
    HEADER
    + """g (bool c, float[n] x) => (float[n] y) {
        one = Constant <value = float {1}> ()
        two = Add (one, one)
        same = Identity (x)
        y = If (c) <
            then_branch = t () => (float[n] a) {
                k = Constant <value = float {3}> ()
                kk = Mul (k, k)
                a = Add (same, kk)
            },
            else_branch = e () => (float[n] b) { b = Mul (same, two) }
        >
    }"""
)
LOOP = (
    HEADER
    + """g (int64 trip, float[n] x) => (float[n] y, float[t, n] steps) {
        go = Constant <value = bool {1}> ()
        y, steps = Loop (trip, go, x) <
            body = b (int64 i, bool c, float[n] s) => (bool c_out, float[n] s_out, float[n] keep) {
                c_out = Identity (c)
                k = Constant <value = float {0.5}> ()
                half = Mul (s, k)
                s_out = Identity (half)
                keep = Neg (s_out)
            }
        >
    }"""
)


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def ctx(tmp_path: Path, events: list[Event]) -> Context:
    return Context.of(scratch=tmp_path, emit=events.append)


def _warnings(events: Sequence[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Warned)]


def _same(before: Model, after: Model, feeds: dict[str, np.ndarray]) -> None:
    want, have = answers(before, feeds), answers(after, feeds)
    assert list(have) == list(want)
    for name, array in want.items():
        np.testing.assert_allclose(have[name], array, rtol=1e-4, atol=1e-5)


def test_batch_norm_is_fused_and_nothing_left_to_do(ctx: Context, events: list[Event]) -> None:
    model = cnn()
    after = Rewrite()(model, ctx)
    assert after.operators["Conv"] == 2
    assert "BatchNormalization" not in after.operators
    assert after.signature == model.signature
    for batch in (1, 3):
        _same(model, after, dict(samples(model, 1, batch=batch)[0].feeds))
    assert _warnings(events) == []
    assert Rewrite()(after, ctx) is after


def test_shape_arithmetic_is_folded_and_the_interface_kept(ctx: Context) -> None:
    model = from_text(SHAPES)
    after = Rewrite()(model, ctx)
    assert sorted(after.operators) == ["Relu", "Reshape"]
    assert after.signature == model.signature
    for batch in (1, 5):
        x = np.random.default_rng(batch).standard_normal((batch, 4, 6)).astype(np.float32)
        _same(model, after, {"x": x, "unread": np.zeros(2, np.float32)})
    assert Rewrite()(after, ctx) is after


@pytest.mark.parametrize("tools", [(), ("onnxslim",), ("onnxsim",)], ids=["alone", "onnxslim", "onnxsim"])
def test_branches_are_simplified(ctx: Context, tools: tuple[str, ...]) -> None:
    for tool in tools:
        pytest.importorskip(tool, reason="an optional simplifier")
    model = from_text(BRANCHES)
    after = make_pass("rewrite", {"tools": tools})(model, ctx)
    assert node_lines(after) == ["y = If (c)"]
    assert after.nodes == 3
    for flag in (True, False):
        _same(model, after, {"c": np.array(flag), "x": np.array([1.0, -2.0], np.float32)})


def test_loops_are_simplified(ctx: Context) -> None:
    model = from_text(LOOP)
    after = Rewrite()(model, ctx)
    assert after.nodes < model.nodes
    assert after.signature == model.signature
    for trip in (0, 1, 4):
        _same(model, after, {"trip": np.array(trip), "x": np.array([1.0, -2.0], np.float32)})


def test_functions_are_inlined(ctx: Context) -> None:
    model = from_text(
        """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        g (float[n] x) => (float[n] y) { y = local.twice (x) }
        <domain: "local", opset_import: ["" : 17]> twice (a) => (b) { b = Add (a, a) }"""
    )
    after = Rewrite()(model, ctx)
    assert node_lines(after) == ["y = Add (x, x)"]
    assert not after.graph.functions


def test_what_another_simplifier_breaks_is_left_out(ctx: Context, events: list[Event]) -> None:
    """OnnxSlim takes two draws of random numbers for one."""
    pytest.importorskip("onnxslim", reason="an optional simplifier")
    model = from_text(
        HEADER + "g (float[n] x) => (float[n] y) { a = RandomNormalLike (x) b = RandomNormalLike (x) y = Sub (a, b) }"
    )
    after = Rewrite(tools=("onnxslim",))(model, ctx)
    assert node_lines(after)[-1] == "y = Sub (a, b)"
    assert after.operators["RandomNormalLike"] == 2
    assert [text.split(":")[0] for text in _warnings(events)] == ["left out 'onnxslim'"]


def test_outputs_that_show_nothing_need_data(ctx: Context, tmp_path: Path) -> None:
    body = "g (float[n, 3] x) => (float[n, 3] y) { big = Sub (x, limit) same = Identity (big) y = Relu (big) }"
    model = from_text(HEADER + body, {"limit": np.full(1, 50, np.float32)})
    with pytest.raises(UnverifiableError, match="rewriting cannot be verified: no output varies"):
        Rewrite()(model, ctx)
    data = samples(model, 2)
    for sample in data:
        sample.feeds["x"][:] += 50
    after = Rewrite()(model, Context.of(data=data, scratch=tmp_path))
    assert node_lines(after) == ["big = Sub (x, limit)", "y = Relu (big)"]


@pytest.mark.parametrize(
    ("check", "told"), [("if-possible", ["not verified, only checked to be a valid model"]), ("never", [])]
)
def test_outputs_that_show_nothing_may_be_accepted(
    ctx: Context, events: list[Event], check: str, told: list[str]
) -> None:
    body = "g (float[n, 3] x) => (float[n, 3] y) { big = Sub (x, limit) same = Identity (big) y = Relu (big) }"
    model = from_text(HEADER + body, {"limit": np.full(1, 50, np.float32)})
    after = make_pass("rewrite", {"check": check})(model, ctx)
    assert node_lines(after) == ["big = Sub (x, limit)", "y = Relu (big)"]
    assert [text.split(":")[0] for text in _warnings(events)] == told


def test_a_simplifier_that_drops_an_input_gets_it_back(tmp_path: Path) -> None:
    pytest.importorskip("onnxslim", reason="an optional simplifier")
    model = from_text(HEADER + "g (float[k] first, float[n] x, float[k] last) => (float[n] y) { y = Relu (x) }")
    after = Model(run_simplifier("onnxslim", model.graph, tmp_path))
    assert after.signature.inputs == model.signature.inputs


def test_a_simplifier_that_crashes_is_left_out(
    ctx: Context, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(place: str, *arguments: object, limits: object = None) -> None:
        raise EngineCrashError("the runtime's process died: SIGSEGV")

    monkeypatch.setattr(simplifiers, "run_isolated", crash)
    after = Rewrite(tools=("onnxslim",))(from_text(BRANCHES), ctx)
    assert node_lines(after) == ["y = If (c)"]
    assert _warnings(events) == ["left out 'onnxslim': the runtime's process died: SIGSEGV"]


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match=r"tools\.0 is \"onnxslimmer\": it should be 'onnxslim' or 'onnxsim'"):
        make_pass("rewrite", {"tools": ["onnxslimmer"]})
    with pytest.raises(UsageError, match="rounds is 0: it should be greater than or equal to 1"):
        make_pass("rewrite", {"rounds": 0})


def test_some_families_are_applied_only_where_they_are_named(ctx: Context) -> None:
    random = np.random.default_rng(0)
    weights = {name: random.standard_normal((4, size)).astype(np.float32) for name, size in (("v", 2), ("w", 5))}
    body = "g (float[n, 4] x) => (float[n, 2] y, float[n, 5] z) { y = MatMul (x, v) z = MatMul (x, w) }"
    model = from_text(HEADER + body, weights)
    assert Rewrite()(model, ctx) is model
    for how in (Rewrite(also=("siblings",)), Rewrite(only=("sibling-layers",))):
        assert how(model, ctx).operators == {"MatMul": 1, "Split": 1}


def test_the_runtime_level_uses_the_runtimes_own_operators(ctx: Context, events: list[Event]) -> None:
    model = attention_block()
    portable, runtime = Rewrite()(model, ctx), Rewrite(level="runtime")(model, ctx)
    assert runtime.nodes < portable.nodes
    assert not [name for name in portable.operators if "::" in name]
    assert [name for name in runtime.operators if name.startswith("com.microsoft::")]
    assert runtime.signature == model.signature
    for batch in (1, 3):
        _same(model, runtime, dict(samples(model, 1, batch=batch)[0].feeds))
    assert _warnings(events) == []


@pytest.mark.parametrize("known", [True, False])
def test_the_result_tells_no_more_shapes_than_the_input_did(ctx: Context, known: bool) -> None:
    model = cnn()
    if known:
        infer_shapes(model.graph)
    after = Rewrite()(model, ctx)
    values = [value for node in after.graph.graph for value in node.outputs if not value.is_graph_output()]
    told = {value.name for value in values if value.shape is not None}
    before = {v.name for node in model.graph.graph for v in node.outputs if v.shape is not None}
    assert after.nodes < model.nodes
    assert told == {value.name for value in values} & before
