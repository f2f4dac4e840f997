"""Residual blocks that are dropped whole."""

import numpy as np
import onnx
import onnx_ir
import pytest

from onnxopt.context import Context, Missed, Warned
from onnxopt.data.sample import InMemory
from onnxopt.errors import PassError, UnverifiableError, UsageError
from onnxopt.ir.model import Model, normalise
from onnxopt.passes import make_pass
from onnxopt.prune.lineage import dropped_blocks
from tests.graphs import answers, cnn, from_text, node_lines, samples

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'


@pytest.fixture
def shallow(tmp_path):
    """Return a function that drops blocks of a model, on samples of its own unless others are given."""

    def made(model, emit=lambda event: None, data="some", seed=0, kept=None, **values):
        given = samples(model, 4) if data == "some" else data
        ctx = Context.of(data=given, emit=emit, scratch=tmp_path, seed=seed, kept=kept)
        return make_pass("prune-layers", values)(model, ctx)

    return made


def square(seed, scale=1.0, width=16):
    return (np.random.default_rng(seed).standard_normal((width, width)) * scale / np.sqrt(width)).astype(np.float32)


def stack(**scales):
    """Return ``x -> (a = x + f(x)) -> (b = a + g(a)) -> … -> y``, each branch a product, its weight so large."""
    names, lines, before = list(scales), [], "x0"
    for name in names:
        lines.append(
            f"m_{name} = MatMul ({before}, w_{name}) t_{name} = Tanh (m_{name}) {name} = Add (t_{name}, {before})"
        )
        before = name
    text = f"""{HEAD} stack (float[batch, 16] x) => (float[batch, 16] y) {{
        x0 = MatMul (x, w_in) {" ".join(lines)} y = MatMul ({before}, w_out) }}"""
    weights = {f"w_{name}": square(place, scale) for place, (name, scale) in enumerate(scales.items())}
    return from_text(text, weights | {"w_in": square(90), "w_out": square(91)})


def bert(layers=2, width=16, *, spelled_out=False, output="y"):
    """Return a post-norm encoder of feed-forward blocks: Add, then LayerNormalization, the last being the output."""
    lines = [_norm("x0", "h0", spelled_out)]
    for place in range(layers):
        lines.append(f"u{place} = MatMul (h{place}, w{place}) g{place} = Relu (u{place})")
        lines.append(f"v{place} = MatMul (g{place}, o{place}) a{place} = Add (h{place}, v{place})")
        lines.append(_norm(f"a{place}", output if place == layers - 1 else f"h{place + 1}", spelled_out))
    text = f"""{HEAD} bert (float[batch, 6, {width}] x) => (float[batch, 6, {width}] {output}) {{
        x0 = MatMul (x, w_in) {" ".join(lines)} }}"""
    weights = {f"{kind}{place}": square(7 * place + len(kind + "w"), 0.5) for kind in "wo" for place in range(layers)}
    one = np.ones(width, np.float32)
    extra = {"gain": 0.5 * one, "shift": 0.1 * one, "eps": np.float32(1e-5), "two": np.float32(2)}
    used = extra if spelled_out else {"gain": extra["gain"], "shift": extra["shift"]}
    return from_text(text, weights | {"w_in": square(90), **used})


def _norm(of, to, spelled_out):
    if not spelled_out:
        return f"{to} = LayerNormalization <axis = -1> ({of}, gain, shift)"
    return f"""{to}m = ReduceMean <axes = [-1]> ({of}) {to}d = Sub ({of}, {to}m) {to}s = Pow ({to}d, two)
        {to}v = ReduceMean <axes = [-1]> ({to}s) {to}e = Add ({to}v, eps) {to}r = Sqrt ({to}e)
        {to}n = Div ({to}d, {to}r) {to}g = Mul ({to}n, gain) {to} = Add ({to}g, shift)"""


def same(after, before):
    feeds = samples(before, 1, seed=3).read(0).feeds
    for name, array in answers(before, feeds).items():
        np.testing.assert_allclose(answers(after, feeds)[name], array, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("criterion", ["outputs", "similarity"])
def test_a_block_that_adds_nothing_goes_first_and_nothing_changes(shallow, criterion):
    model = stack(a=1, b=0, c=1)
    after = shallow(model, keep=0.8, criterion=criterion)
    assert node_lines(after) == [
        "x0 = MatMul (x, w_in)",
        "m_a = MatMul (x0, w_a)",
        "t_a = Tanh (m_a)",
        "a = Add (t_a, x0)",
        "m_c = MatMul (a, w_c)",
        "t_c = Tanh (m_c)",
        "c = Add (t_c, a)",
        "y = MatMul (c, w_out)",
    ]
    same(after, model)
    assert "w_b" not in after.graph.graph.initializers
    assert dropped_blocks(after.graph) == ("b",)


def test_what_stays_is_told_with_what_dropping_it_would_do(shallow):
    told = []
    shallow(stack(a=1, b=0, c=1), emit=told.append, keep=0.8)
    missed = {event.node: event.reason for event in told if isinstance(event, Missed)}
    assert set(missed) == {"a", "c"}
    assert "without it 80% of the multiply-accumulates are left, and the outputs' error is" in missed["a"]
    assert not [event for event in told if isinstance(event, Warned)]


def test_blocks_in_a_row_go_together_and_are_told_again_in_the_next_round(shallow):
    model = stack(a=0, b=0, c=1, d=1)
    once = shallow(model, keep=0.66)
    assert dropped_blocks(once.graph) == ("a", "b")
    assert [line for line in node_lines(once) if "Add" in line] == ["c = Add (t_c, x0)", "d = Add (t_d, c)"]
    same(once, model)
    assert dropped_blocks(shallow(once, drop=["d"]).graph) == ("a", "b", "d")


@pytest.mark.parametrize(("rescore", "ends"), [(True, ("a", "b")), (False, ("b", "c"))])
def test_scoring_anew_sees_that_a_block_is_worth_nothing_without_another(shallow, rescore, ends):
    """b works on what a makes: dropping a alone costs more than dropping c, and nearly nothing once b is gone."""
    here, there = np.diag([1.0] * 8 + [0.0] * 8), np.eye(16, k=8)
    turn = np.kron(np.diag([1.0, 0.0]), np.roll(np.eye(8), 1, 0))
    weights = {"w_in": here, "w_a": 0.1 * here + there, "w_b": 0.3 * there.T, "w_c": 0.25 * turn, "w_out": here}
    text = f"""{HEAD} pair (float[batch, 16] x) => (float[batch, 16] y) {{
        x0 = MatMul (x, w_in) k = MatMul (x0, w_a) a = Add (x0, k) m = MatMul (a, w_b) b = Add (a, m)
        n = MatMul (b, w_c) c = Add (b, n) y = MatMul (c, w_out) }}"""
    model = from_text(text, {name: array.astype(np.float32) for name, array in weights.items()})
    after = shallow(model, data=samples(model, 4, batch=200), keep=0.6, rescore=rescore)
    assert dropped_blocks(after.graph) == ends


@pytest.mark.parametrize("spelled_out", [False, True])
def test_a_block_of_a_post_norm_transformer_ends_behind_its_normalisation(shallow, spelled_out):
    model = bert(3, spelled_out=spelled_out)
    after = shallow(model, drop=["h2"])
    assert [line for line in node_lines(after) if "MatMul" in line] == [
        "x0 = MatMul (x, w_in)",
        "u0 = MatMul (h0, w0)",
        "v0 = MatMul (g0, o0)",
        "u2 = MatMul (h1, w2)",
        "v2 = MatMul (g2, o2)",
    ]
    assert "a2 = Add (h1, v2)" in node_lines(after)
    assert len(node_lines(after)) == len(node_lines(model)) - (13 if spelled_out else 5)


def test_a_block_that_ends_in_an_output_leaves_a_copy_under_its_name(shallow):
    model = bert(2)
    after = shallow(model, drop=["y"])
    assert after.signature == model.signature
    assert node_lines(after)[-1] == "y = Identity (h1)"
    feeds = samples(model, 1).read(0).feeds
    inner = onnx_ir.to_proto(model.graph)
    inner.graph.output.append(onnx.helper.make_tensor_value_info("h1", onnx.TensorProto.FLOAT, None))
    graph = onnx_ir.from_proto(inner)
    normalise(graph)
    np.testing.assert_allclose(answers(after, feeds)["y"], answers(Model(graph), feeds)["h1"], rtol=1e-6)


def test_a_pre_norm_stream_keeps_the_normalisation_before_its_head(shallow):
    text = f"""{HEAD} pre (float[batch, 6, 16] x) => (float[batch, 6, 16] y) {{
        x0 = MatMul (x, w_in)
        n = LayerNormalization <axis = -1> (x0, gain) m = MatMul (n, w_a) a = Add (m, x0)
        last = LayerNormalization <axis = -1> (a, gain) y = MatMul (last, w_out) }}"""
    weights = {"w_in": square(90), "w_a": square(1), "w_out": square(91), "gain": np.ones(16, np.float32)}
    after = shallow(from_text(text, weights), drop=["a"])
    assert node_lines(after) == [
        "x0 = MatMul (x, w_in)",
        "last = LayerNormalization (x0, gain)",
        "y = MatMul (last, w_out)",
    ]


def residual_cnn():
    """Return a block with a projection on its shortcut, and one without, each with a Relu behind its addition."""
    text = f"""{HEAD} res (float[batch, 4, 8, 8] x) => (float[batch, 8, 4, 4] y) {{
        p = Conv <strides = [2, 2]> (x, w_p) f = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w_f)
        s = Add (p, f) r = Relu (s)
        g = Conv <pads = [1, 1, 1, 1]> (r, w_g) t = Add (g, r) u = Relu (t)
        y = Conv (u, w_y) }}"""
    shapes = {"w_p": (8, 4, 1, 1), "w_f": (8, 4, 3, 3), "w_g": (8, 8, 3, 3), "w_y": (8, 8, 1, 1)}
    random = np.random.default_rng(0)
    return from_text(text, {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()})


def test_a_block_of_a_resnet_ends_behind_its_relu_and_a_projection_stays(shallow):
    told = []
    after = shallow(residual_cnn(), emit=told.append, drop=["u"])
    assert node_lines(after)[-3:] == ["s = Add (p, f)", "r = Relu (s)", "y = Conv (r, w_y)"]
    reasons = [event.reason for event in told if isinstance(event, Missed)]
    assert reasons == ["neither of what it adds is computed from the other"]


def test_a_branch_that_something_else_reads_stays_and_its_addition_goes(shallow):
    text = f"""{HEAD} two (float[batch, 16] x) => (float[batch, 16] y, float[batch, 16] z) {{
        x0 = MatMul (x, w_in) m = MatMul (x0, w_a) t = Tanh (m) v = MatMul (t, w_v) a = Add (x0, v)
        z = Relu (t) y = MatMul (a, w_out) }}"""
    weights = {"w_in": square(90), "w_a": square(1), "w_v": square(2), "w_out": square(91)}
    after = shallow(from_text(text, weights), keep=0.75)
    assert set(node_lines(after)) == {
        "x0 = MatMul (x, w_in)",
        "m = MatMul (x0, w_a)",
        "t = Tanh (m)",
        "z = Relu (t)",
        "y = MatMul (x0, w_out)",
    }


@pytest.mark.parametrize(
    ("nodes", "shape", "reason"),
    [
        ("p = MatMul (x, w_a) q = MatMul (x, w_b) a = Add (p, q)", [6, 16], "neither of what it adds"),
        ("p = MatMul (x, w_a) q = ReduceMax <axes = [0]> (p) a = Add (p, q)", [6, 16], "one is broadcast"),
        ("p = MatMul (x, w_a) q = ReduceMax <axes = [0]> (p) a = Add (p, q)", ["n", 16], "may be broadcast"),
        ("p = MatMul (x, w_a) q = Tanh (p) a = Add (p, q)", [6, 16], "that multiplies anything"),
        ("p = MatMul (x, w_a) a = Add (p, p)", [6, 16], "that multiplies anything"),
        ("p = MatMul (x, w_a) a = Add (p, bias)", [6, 16], "that multiplies anything"),
    ],
)
def test_what_is_no_block_is_refused_with_the_reason(shallow, nodes, shape, reason):
    dims = ", ".join(map(str, shape))
    text = f"""{HEAD} no (float[{dims}] x) => (float[{dims}] y) {{ {nodes} y = MatMul (a, w_c) }}"""
    weights = {"w_a": square(1), "w_b": square(2), "w_c": square(3), "bias": square(4)[0]}
    used = {name: array for name, array in weights.items() if f"{name})" in text}
    model = from_text(text, used)
    data = samples(model, 1, batch=1)
    with pytest.raises(PassError, match="there is no residual block that multiplies anything") as told:
        shallow(model, data=data)
    assert reason in str(told.value)


def test_parameters_can_be_what_is_counted(shallow):
    wide = bert(2)
    after = shallow(wide, keep=0.65, of="parameters")
    left = sum(value.const_value.size for value in after.graph.graph.initializers.values())
    total = sum(value.const_value.size for value in wide.graph.graph.initializers.values())
    assert left / total == pytest.approx(0.62, abs=0.03)


def test_layers_go_whole_where_blocks_go_in_pairs(shallow):
    model = stack(a=1, b=0, c=0.1, d=0.1, e=0)
    assert dropped_blocks(shallow(model, keep=0.7, together=2).graph) == ("c", "d")


@pytest.mark.parametrize(
    ("criterion", "ends"), [("last", ("c", "d")), ("alternate", ("b", "d")), ("random", ("a", "b"))]
)
def test_some_criteria_need_no_data(shallow, criterion, ends):
    model = stack(a=1, b=1, c=1, d=1)
    after = shallow(model, data=None, keep=4 / 6, criterion=criterion, seed=1)
    assert dropped_blocks(after.graph) == ends


def test_a_missed_budget_and_outputs_that_are_lost_are_told(shallow):
    told = []
    shallow(stack(a=1, b=3), emit=told.append, keep=0.3)
    warnings = [event.text for event in told if isinstance(event, Warned)]
    assert warnings[0] == "50% of the multiply-accumulates are left, not 30%: no block is left"
    told.clear()
    shallow(bert(1), emit=told.append, keep=0.8)
    assert next(event.text for event in told if isinstance(event, Warned)).endswith("blocks go as a whole")


def test_only_outputs_that_count_decide(shallow):
    text = f"""{HEAD} two (float[batch, 16] x) => (float[batch, 16] y, float[batch, 16] z) {{
        x0 = MatMul (x, w_in) m = MatMul (x0, w_a) a = Add (m, x0) n = MatMul (a, w_b) b = Add (n, a)
        z = MatMul (a, w_z) y = MatMul (b, w_out) }}"""
    weights = {"w_in": square(90), "w_a": square(1, 0.3), "w_b": square(2, 0.6), "w_out": square(91), "w_z": square(92)}
    model = from_text(text, weights)
    assert dropped_blocks(shallow(model, keep=0.8, outputs=["z"]).graph) == ("b",)
    assert dropped_blocks(shallow(model, keep=0.8, outputs=["y"]).graph) == ("a",)


def test_damage_found_once_is_found_again(shallow, tmp_path):
    model, heard = stack(a=1, b=0, c=1), []
    first = shallow(model, keep=0.8, kept=tmp_path / "kept")
    again = shallow(model, emit=heard.append, keep=0.8, kept=tmp_path / "kept")
    assert again.digest == first.digest
    assert [type(event).__name__ for event in heard if not isinstance(event, Missed)] == ["PassDone"]


def test_wrong_use_is_told(shallow):
    model = stack(a=1, b=1)
    with pytest.raises(PassError, match="judges blocks on data, and none was given") as told:
        shallow(model, data=None)
    assert "criterion=alternate or last" in (told.value.hint or "")
    with pytest.raises(UsageError, match="no block ends in 'e'"):
        shallow(model, drop=["e"])
    with pytest.raises(UsageError, match="there is no output 'z'"):
        shallow(model, outputs=["z"])
    with pytest.raises(PassError, match="no residual block"):
        shallow(cnn())
    with pytest.raises(PassError, match="no 3 residual blocks in a row"):
        shallow(model, together=3)
    for share in (0, 1, -1):
        with pytest.raises(UsageError, match="keep"):
            shallow(model, keep=share)
    silent = InMemory(tuple(type(one)(one.name, {"x": 0 * one.feeds["x"]}) for one in samples(model, 2)))
    with pytest.raises(UnverifiableError, match="no float output varies"):
        shallow(model, data=silent)


def test_control_flow_is_not_looked_into(shallow):
    text = f"""{HEAD} branch (float[2, 16] x, bool c) => (float[2, 16] y) {{
        y = If (c) <then_branch = yes () => (float[2, 16] a) {{ m = MatMul (x, w_a) a = Add (x, m) }},
                    else_branch = no () => (float[2, 16] b) {{ b = Relu (x) }}> }}"""
    with pytest.raises(PassError) as told:
        shallow(from_text(text, {"w_a": square(1)}), data=None, criterion="last")
    assert told.value.hint == "what is inside of If is not looked at"


def test_a_quantized_model_is_refused(shallow):
    text = f"""{HEAD} q (float[2, 16] x) => (float[2, 16] y) {{
        i = QuantizeLinear (x, s, z) o = DequantizeLinear (i, s, z) m = MatMul (o, w_a) y = Add (m, o) }}"""
    weights = {"s": np.float32(0.1), "z": np.uint8(128), "w_a": square(1)}
    with pytest.raises(PassError, match="quantized already"):
        shallow(from_text(text, weights))
