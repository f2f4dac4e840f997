"""Verification catches planted mistakes, lets correct rewrites pass, and refuses to say what it cannot know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx_ir
import pytest

from onnxopt.compile.isolation import PersistentChild
from onnxopt.context import Context
from onnxopt.data.sample import InMemory, Sample, Samples
from onnxopt.errors import UnverifiableError, VerificationError
from onnxopt.evaluate.locate import locate_difference
from onnxopt.evaluate.probes import probes
from onnxopt.evaluate.verify import Verification, Verifier
from onnxopt.ir.model import Model
from onnxopt.quantize.cast import CastFloat16
from tests.evaluate.faults import MISTAKES, fixed_batch, made_by, mistaken, network
from tests.graphs import cnn, from_text, samples

GUISES = ("plain", "tiny", "offset", "single", "float16")

Verify = Callable[..., Verification]


@pytest.fixture(scope="module")
def child() -> Iterator[PersistentChild]:
    """One process for all tests of this file; starting one takes longer than most of them."""
    with closing(PersistentChild()) as made:
        yield made


@pytest.fixture
def verify(tmp_path: Path, child: PersistentChild) -> Verify:
    """Verify a change on synthetic probes, or on samples."""

    def run(before: Model, after: Model, data: Samples | None = None, **options: bool) -> Verification:
        verifier = Verifier(probes(before, data), tmp_path)
        verifier._child = child
        return verifier.verify(before, after, "the change", **options)

    return run


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("guise", GUISES)
def test_a_planted_mistake_is_caught_with_output_probe_and_node(verify: Verify, guise: str, mistake: str) -> None:
    make, place = MISTAKES[mistake]
    model = network(guise)
    text = r"^the change changed the answer: output 'scores' is off by .* on synthetic\[0\](, twice along 'batch')?\n"
    with pytest.raises(VerificationError, match=text) as caught:
        verify(model, mistaken(model, make))
    assert caught.value.where is not None
    assert caught.value.where.startswith("first differs at node 'node")
    assert caught.value.where.endswith(place)
    assert "leave the step out" in str(caught.value.hint)


@pytest.mark.parametrize("guise", GUISES)
def test_a_batch_that_was_fixed_is_caught(verify: Verify, guise: str) -> None:
    model = network(guise)
    changed = mistaken(model, fixed_batch)
    data = InMemory(tuple(Sample(f"real {i}", s.feeds) for i, s in enumerate(_images(guise, 3))))
    with pytest.raises(VerificationError, match="it no longer runs on real 0, twice along 'batch'") as caught:
        verify(model, changed, data)
    assert caught.value.where == "shapes {'image': [4, 3, 8, 8]}"
    assert "a dimension that was free was made fixed" in str(caught.value.hint)
    assert verify(model, changed, data, may_refuse=True).probes == 6


@pytest.mark.parametrize("guise", GUISES)
def test_a_correct_rewrite_passes(verify: Verify, guise: str) -> None:
    model = network(guise)
    after = mistaken(model, _shift_into_the_bias)
    found = verify(model, after, _images(guise, 5))
    assert found.error < 0.01
    assert found.probes == 4 + 3 + 1
    assert [check.name for check in found.outputs] == ["scores"]
    assert len(found.outputs[0].informative) == found.probes


@pytest.mark.parametrize("offset", [1.0, 1e3, 1e5])
def test_rounding_of_a_large_offset_is_no_mistake(verify: Verify, offset: float) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[n, 64] x) => (float[n, 64] y) {{
        a = {} (x, {})
        y = {} (a, {})
    }}"""
    weights = {name: np.full(1, v, np.float32) for name, v in (("s", 0.7), ("o", offset), ("os", 0.7 * offset))}
    before, after = (
        from_text(text.format(*words), weights) for words in (("Add", "o", "Mul", "s"), ("Mul", "s", "Add", "os"))
    )
    assert 0 < verify(before, after).error < 0.05


def test_folding_a_batch_norm_into_its_convolution_passes(verify: Verify) -> None:
    model = cnn()
    assert verify(model, mistaken(model, _fold_batch_norm)).error < 1e-4


@pytest.mark.parametrize("scale", [1.0, 1e-7])
def test_a_batch_norm_folded_wrong_is_caught(verify: Verify, scale: float) -> None:
    def fold(graph: onnx_ir.Model) -> None:
        _fold_batch_norm(graph, epsilon=0.01)

    model = _scaled(cnn(), scale)
    with pytest.raises(VerificationError, match="output 'scores' is off by"):
        verify(model, mistaken(model, fold))


def test_a_model_of_single_numbers_is_verified_and_the_node_found(verify: Verify) -> None:
    """Every value has one element: its spread is that from probe to probe."""
    text = """<ir_version: 8, opset_import: ["" : 17]> line (float[1] x) => (float[1] y) {{
        scaled = Mul (x, {})
        y = Add (scaled, three)
    }}"""
    weights = {name: np.full(1, value, np.float32) for name, value in (("two", 2), ("almost", 2.002), ("three", 3))}
    with pytest.raises(VerificationError, match="output 'y' is off by") as caught:
        verify(from_text(text.format("two"), weights), from_text(text.format("almost"), weights))
    assert str(caught.value.where).endswith("(Mul), value 'scaled'")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("a = Mul (x, zero) y = Relu (a)", "zeros"),
        ("a = Mul (x, zero) y = Add (a, seven)", "constant"),
        ("a = Abs (x) b = Add (a, seven) c = Neg (b) y = Sqrt (c)", "NaN"),
        ("a = Mul (x, zero) b = Div (seven, a) y = Abs (b)", "infinite"),
    ],
    ids=lambda text: text if " " not in text else "",
)
def test_outputs_that_show_nothing_are_refused(verify: Verify, body: str, why: str) -> None:
    model = _from_body(body)
    with pytest.raises(UnverifiableError, match="no output varies on any probe beyond rounding noise") as caught:
        verify(model, mistaken(model, _rename_first))
    assert "--data" in str(caught.value.hint)


def test_outputs_of_rounding_noise_alone_are_refused(verify: Verify) -> None:
    """The difference of two convolutions that are equal but for rounding, which the runtime's own fusion changes."""
    model = _noise_of_two_convolutions()
    with pytest.raises(UnverifiableError, match="no output varies on any probe beyond rounding noise"):
        verify(model, mistaken(model, _rename_first))


def test_constant_integers_are_refused_and_varying_ones_are_not(verify: Verify) -> None:
    constant = _from_body("a = Mul (x, zero) y = ArgMax <axis = 1, keepdims = 0> (a)", "int64[n]")
    with pytest.raises(UnverifiableError):
        verify(constant, mistaken(constant, _rename_first))
    varying = _from_body("a = Mul (x, seven) y = ArgMax <axis = 1, keepdims = 0> (a)", "int64[n]")
    assert verify(varying, mistaken(varying, _rename_first)).error == 0.0


def test_real_samples_make_a_model_verifiable(verify: Verify) -> None:
    """Ids drawn at random are below 2 and select nothing; real ones do."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (int64[n] ids) => (float[n] y) { f = Cast <to = 1> (ids) big = Sub (f, hundred) y = Relu (big) }"""
    model = from_text(text, {"hundred": np.full(1, 100, np.float32)})
    after = mistaken(model, _rename_first)
    with pytest.raises(UnverifiableError):
        verify(model, after)
    data = InMemory((Sample("real", {"ids": np.array([99, 120, 175])}),))
    assert verify(model, after, data).error == 0.0


def test_a_constant_output_beside_others_may_not_change(verify: Verify) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> two (float[n, 3] x) => (float[n, 3] y, float[1] k) {{
        y = Relu (x)
        k = Identity ({})
    }}"""
    weights = {"five": np.full(1, 5, np.float32), "seven": np.full(1, 7, np.float32)}
    before, after = (from_text(text.format(name), weights) for name in ("five", "seven"))
    with pytest.raises(VerificationError, match=r"output 'k' is off by 0\.4"):
        verify(before, after)
    assert verify(before, before).probes == 4


@pytest.mark.parametrize(
    ("after", "text"),
    [
        ("y = Relu (x) k = Shape <start = 1> (x)", "output 'k' is off by"),
        ("y = Transpose (x) k = Shape (x)", "output 'y' is off by inf"),
        ("d = Cast <to = 11> (x) y = Relu (d) k = Shape (x)", "output 'y' is off by inf"),
        ("a = Abs (x) n = Neg (a) y = Sqrt (n) k = Shape (x)", "output 'y' is off by inf"),
    ],
    ids=["integers", "shape", "dtype", "nan"],
)
def test_whatever_else_an_output_may_lose_is_caught(verify: Verify, after: str, text: str) -> None:
    def model(body: str, y: str = "float[n, m] y") -> Model:
        header = '<ir_version: 8, opset_import: ["" : 17]> g (float[n, m] x) => '
        return from_text(f"{header} ({y}, int64[k] k) {{ {body} }}")

    y = "double[n, m] y" if "to = 11" in after else "float[n, m] y"
    with pytest.raises(VerificationError, match=text):
        verify(model("y = Relu (x) k = Shape (x)"), model(after, y))


def test_a_missing_output_is_caught(verify: Verify) -> None:
    def model(outputs: str) -> Model:
        header = '<ir_version: 8, opset_import: ["" : 17]> g (float[n] x)'
        return from_text(f"{header} => ({outputs}) {{ y = Relu (x) z = Abs (x) }}")

    with pytest.raises(VerificationError, match="output 'z' is off by inf"):
        verify(model("float[n] y, float[n] z"), model("float[n] y"))


def test_casting_to_float16_is_no_rounding(verify: Verify) -> None:
    model = network("plain")
    with pytest.raises(VerificationError, match="output 'scores' is off by"):
        verify(model, CastFloat16(mode="compute")(model, Context.of()))


def test_a_float16_model_is_held_to_float16(verify: Verify) -> None:
    half = network("float16")
    assert verify(half, mistaken(half, _rename_first)).outputs[0].tolerance == 0.015
    assert verify(network("plain"), network("plain")).outputs[0].tolerance == 5e-5


def test_strings_and_sequences_among_the_outputs(verify: Verify) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (string[n] s, float[n, 4] x) => (string[n] t, float[n, 4] y, seq(float[n, 2]) parts) {
        t = Identity (s)
        y = Relu (x)
        parts = SplitToSequence <axis = 1> (x, two)
    }"""
    model = from_text(text, {"two": np.array(2)})
    made = [{"s": np.array(["a", str(i)], object), "x": np.full((2, 4), i, np.float32)} for i in range(3)]
    data = InMemory(tuple(Sample(f"real {i}", feeds) for i, feeds in enumerate(made)))
    found = verify(model, mistaken(model, _rename_first), data)
    assert [check.name for check in found.outputs] == ["t", "y"]


def test_a_model_no_probe_fits_cannot_be_verified(verify: Verify) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (string[n] s) => (string[n] t) { t = Identity (s) }'
    with pytest.raises(UnverifiableError, match="the model runs on none of the probes"):
        verify(from_text(text), from_text(text))


def test_one_verifier_serves_a_chain_of_changes(tmp_path: Path) -> None:
    model = network("plain")
    second = mistaken(model, _shift_into_the_bias)
    third = mistaken(second, MISTAKES["changed-attribute"][0])
    with closing(Verifier(probes(model, None), tmp_path)) as verifier:
        assert verifier.verify(model, second, "first").error < 1e-4
        with pytest.raises(VerificationError, match=r"^second changed the answer"):
            verifier.verify(second, third, "second")
        assert verifier.verify(second, model, "back").error < 1e-4


def test_the_place_of_a_difference_is_unknown_where_no_name_is_shared(tmp_path: Path, child: PersistentChild) -> None:
    before = from_text('<ir_version: 8, opset_import: ["" : 17]> g (float[n] x) => (float[n] y) { y = Relu (x) }')
    after = from_text('<ir_version: 8, opset_import: ["" : 17]> g (float[n] x) => (float[n] z) { z = Abs (x) }')
    feeds = {"x": np.array([-1.0, 1.0], np.float32)}
    assert locate_difference(before, after, feeds, tmp_path, child) is None
    assert locate_difference(before, before, feeds, tmp_path, child) is None


def _images(guise: str, count: int) -> InMemory:
    made = samples(network("plain"), count)
    dtype = np.float16 if guise == "float16" else np.float32
    return InMemory(tuple(Sample(one.name, {"image": one.feeds["image"].astype(dtype)}) for one in made))


def _from_body(body: str, output: str = "float[n, 3]") -> Model:
    text = f'<ir_version: 8, opset_import: ["" : 17]> g (float[n, 3] x) => ({output} y) {{ {body} }}'
    return from_text(text, {"zero": np.zeros(1, np.float32), "seven": np.full(1, 7, np.float32)})


def _rename_first(graph: onnx_ir.Model) -> None:
    """Change a model's content and nothing that it computes."""
    graph.graph[0].name = "renamed"


def _shift_into_the_bias(graph: onnx_ir.Model) -> None:
    """Let the bias of the last layer do what the subtraction behind it does, which moves nothing but rounding."""
    arrays = _arrays(graph)
    graph.graph.initializers["b2"].const_value = onnx_ir.tensor(arrays["b2"] - arrays["shift"], name="b2")
    _remove(graph, "centred", "dense")


def _fold_batch_norm(graph: onnx_ir.Model, epsilon: float = 1e-5) -> None:
    weights = _arrays(graph)
    factor = weights["scale"] / np.sqrt(weights["var"] + epsilon)
    folded = {"w1": weights["w1"] * factor[:, None, None, None], "fold": weights["shift"] - weights["mean"] * factor}
    graph.graph.initializers["w1"].const_value = onnx_ir.tensor(folded["w1"].astype(np.float32), name="w1")
    bias = onnx_ir.Value(name="fold", const_value=onnx_ir.tensor(folded["fold"].astype(np.float32), name="fold"))
    graph.graph.register_initializer(bias)
    conv = made_by(graph, "c1")
    conv.resize_inputs(3)
    conv.replace_input_with(2, bias)
    _remove(graph, "n1", "c1")


def _arrays(graph: onnx_ir.Model) -> dict[str, np.ndarray]:
    return {name: v.const_value.numpy() for name, v in graph.graph.initializers.items() if v.const_value is not None}


def _remove(graph: onnx_ir.Model, value: str, instead: str) -> None:
    """Remove the node that makes a value; its readers read another."""
    node = made_by(graph, value)
    node.outputs[0].replace_all_uses_with(made_by(graph, instead).outputs[0])
    graph.graph.remove(node, safe=True)


def _scaled(model: Model, scale: float) -> Model:
    """Return the model with its last convolution's weights, and with them its outputs, scaled."""
    graph = model.graph.clone()
    for name in ("w2", "b2"):
        value = graph.graph.initializers[name]
        assert value.const_value is not None
        value.const_value = onnx_ir.tensor(value.const_value.numpy() * np.float32(scale), name=name)
    return Model(graph)


def _noise_of_two_convolutions() -> Model:
    random = np.random.default_rng(0)
    w = random.standard_normal((4, 3, 3, 3)).astype(np.float32)
    scale, var = (random.uniform(0.5, 1.5, 4).astype(np.float32) for _ in range(2))
    factor = (scale / np.sqrt(var + np.float32(1e-5)))[:, None, None, None]
    zeros = np.zeros(4, np.float32)
    return from_text(
        """<ir_version: 8, opset_import: ["" : 17]> noise (float[n, 3, 8, 8] x) => (float[n, 4, 6, 6] y) {
            plain = Conv (x, w)
            normed = BatchNormalization (plain, scale, zeros, zeros2, var)
            folded = Conv (x, w_folded)
            y = Sub (normed, folded)
        }""",
        {"w": w, "w_folded": w * factor, "scale": scale, "var": var, "zeros": zeros, "zeros2": zeros},
    )
