"""The passes ``quantize-static`` and ``quantize-dynamic``, and the repairs without which they would fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest

from onnxopt.context import Context, Warned
from onnxopt.data.sample import InMemory, Sample, Samples
from onnxopt.errors import PassError, UsageError
from onnxopt.evaluate.drift import compare_outputs
from onnxopt.ir.model import Model, normalise
from onnxopt.ir.weights import constant_tensor
from onnxopt.ir.write import tensors_size
from onnxopt.passes import make_pass
from tests.graphs import answers, cnn, from_text, mlp, samples

F32 = np.float32
QDQ = {"QuantizeLinear", "DequantizeLinear"}
Quantize = Callable[..., Model]


@pytest.fixture
def quantize(tmp_path: Path) -> Quantize:
    """Apply a pass by name to a model, with calibration samples and options."""

    def run(name: str, model: Model, data: Samples | None = None, **options: Any) -> Model:
        return make_pass(name, options)(model, Context.of(data=data, scratch=tmp_path))

    return run


def _random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(F32)


def _sqnr(before: Model, after: Model, data: Samples) -> float:
    """Return the fidelity on samples calibration may have seen; nothing here is about generalising."""
    found = compare_outputs((answers(before, one.feeds), answers(after, one.feeds)) for one in data)
    assert found.sqnr_db is not None
    return found.sqnr_db


@pytest.mark.parametrize(
    ("build", "options", "decibels"),
    [
        (cnn, {}, 30),
        (cnn, {"scope": "all", "per_channel": False}, 30),
        (cnn, {"method": "percentile", "signed_activations": True}, 30),
        (lambda: mlp(width=64), {}, 20),
    ],
    ids=["cnn", "cnn-all", "cnn-percentile", "mlp"],
)
def test_static_gives_a_smaller_model_that_is_close(
    quantize: Quantize, build: Callable[[], Model], options: Any, decibels: float
) -> None:
    model = build()
    data = samples(model, 24)
    after = quantize("quantize-static", model, data, **options)
    assert after.operators.keys() >= QDQ
    assert after.signature == model.signature
    assert tensors_size(after.graph) < 0.7 * tensors_size(model.graph)
    assert decibels < _sqnr(model, after, data) < 60


def test_all_quantizes_what_stands_between(quantize: Quantize) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[n, 8] x) => (float[n, 8] y) {
        a = MatMul (x, w)
        b = Add (a, x)
        c = MatMul (b, w)
        y = Softmax (c)
    }"""
    model = from_text(text, {"w": _random(8, 8)})
    after = quantize("quantize-static", model, samples(model, 4), scope="all")
    assert [_reads_quantized(after, operator) for operator in ("MatMul", "Add")] == [[True, True], [True]]


def test_named_nodes_are_skipped(quantize: Quantize) -> None:
    model = mlp()
    after = quantize("quantize-static", model, samples(model, 4), skip=("node",))
    assert _reads_quantized(after, "Gemm") == [False, True]


def test_only_the_samples_of_this_call_calibrate(quantize: Quantize) -> None:
    """A scratch folder may hold what an earlier step left."""
    model = cnn()
    loud = InMemory(tuple(Sample(s.name, {"image": s.feeds["image"] * 100}) for s in samples(model, 6)))
    quantize("quantize-static", model, loud)
    data = InMemory((*samples(model, 2), *loud))
    assert _sqnr(model, quantize("quantize-static", model, data, samples=2), data[:2]) > 30


def test_an_old_opset_is_raised_for_per_channel(quantize: Quantize) -> None:
    text = (
        '<ir_version: 6, opset_import: ["" : 11]> g (float[n, 3, 8, 8] x) => (float[n, 4, 6, 6] y) { y = Conv (x, w) }'
    )
    model = from_text(text, {"w": _random(4, 3, 3, 3)})
    data = samples(model, 8)
    after = quantize("quantize-static", model, data)
    assert after.graph.opset_imports[""] == 13
    assert [v.shape for v in after.graph.graph.initializers.values() if v.name == "w_scale"] == [onnx_ir.Shape([4])]
    assert _sqnr(model, after, data) > 30


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("quantize-static", "constant"),
        ("quantize-static", "transposed"),
        ("quantize-static", "overridable"),
        ("quantize-dynamic", "transposed"),
    ],
)
def test_weights_are_found_wherever_they_are(quantize: Quantize, name: str, kind: str) -> None:
    model = _hidden_weight(kind)
    data = samples(model, 8)
    after = quantize(name, model, data)
    assert tensors_size(after.graph) < 0.5 * tensors_size(model.graph)
    assert "Transpose" not in after.operators
    assert _sqnr(model, after, data) > 30


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_samples_may_differ_in_shape(quantize: Quantize, method: str) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[n, 3, h, w] x) => (float[n, 4, p, q] y) {
        c = Conv <pads = [1, 1, 1, 1]> (x, k)
        y = Relu (c)
    }"""
    model = from_text(text, {"k": _random(4, 3, 3, 3)})
    data = InMemory(tuple(Sample(str(i), {"x": _random(1 + i % 3, 3, 6 + i, 8 + 2 * i, seed=i)}) for i in range(8)))
    assert _sqnr(model, quantize("quantize-static", model, data, method=method), data) > 15


@pytest.mark.parametrize("shape", [(1, 16), (1,), (1, 1), ()], ids=str)
def test_a_bias_that_is_no_vector_is_written_out(quantize: Quantize, shape: tuple[int, ...]) -> None:
    model = from_text(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[n, 8] x) => (float[n, 16] y) {
            h = Gemm (x, w, b) y = Relu (h)
        }""",
        {"w": _random(8, 16), "b": _random(*shape, seed=1)},
    )
    data = samples(model, 8)
    after = quantize("quantize-static", model, data)
    assert QDQ & set(after.operators)
    assert _sqnr(model, after, data) > 25


@pytest.mark.parametrize("masked", [-np.inf, float(np.finfo(F32).min)], ids=["-inf", "float32-min"])
def test_attention_with_a_mask_stays_close(quantize: Quantize, masked: float) -> None:
    model, data = _attention(), _masked_samples(masked)
    after = quantize("quantize-static", model, data)
    assert _sqnr(model, after, data) > 25


def test_products_of_two_activations_stay_float_unless_asked_for(quantize: Quantize) -> None:
    model, data = _attention(), _masked_samples(-1e4)
    default, asked = (quantize("quantize-static", model, data, weight_matmul_only=only) for only in (True, False))
    assert _reads_quantized(default, "MatMul") == [True, True, True, False, False, True]
    assert _reads_quantized(asked, "MatMul") == [True] * 6


@pytest.mark.parametrize("name", ["quantize-static", "quantize-dynamic", "cast-float16", "cast-bfloat16"])
@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            "q = QuantizeLinear (x, s, z) f = DequantizeLinear (q, s, z) y = MatMul (f, w)",
            "the model is quantized already: it has DequantizeLinear, QuantizeLinear",
        ),
        ("y = Relu (x)", r"there is nothing to (quantize: the model has no .*MatMul|cast: the model has no float32)"),
    ],
    ids=["quantized", "nothing"],
)
def test_models_it_makes_no_sense_for_are_refused(quantize: Quantize, name: str, body: str, text: str) -> None:
    weights = {"s": np.array(0.1, F32), "z": np.array(0, np.int8), "w": _random(4, 4)} if "MatMul" in body else {}
    header = '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 4] x) => (float[n, 4] y)'
    model = from_text(f"{header} {{ {body} }}", weights)
    with pytest.raises(PassError, match=text):
        quantize(name, model, samples(model, 2))


def test_static_needs_data(quantize: Quantize) -> None:
    with pytest.raises(PassError, match="this step needs calibration data, and none was given") as caught:
        quantize("quantize-static", cnn())
    assert "add --data PATH" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("quantize-static", {"samples": 0}, "samples is 0: it should be greater than or equal to 1"),
        ("quantize-static", {"scope": "conv"}, "scope is \"conv\": it should be 'compute' or 'all'"),
        ("quantize-dynamic", {"ops": ["Conv"]}, r'ops\.0 is "Conv"'),
        ("cast-float16", {"mode": "weights"}, "mode is \"weights\": it should be 'storage' or 'compute'"),
    ],
)
def test_options_are_checked(name: str, options: Any, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        make_pass(name, options)


def _hidden_weight(kind: str) -> Model:
    weight = _random(64, 256)
    header = '<ir_version: 8, opset_import: ["" : 17]> g '
    if kind == "transposed":
        body = "(float[n, 64] x) => (float[n, 256] y) { t = Transpose <perm = [1, 0]> (w) y = MatMul (x, t) }"
        return from_text(header + body, {"w": weight.T.copy()})
    if kind == "overridable":
        return from_text(
            header + "(float[n, 64] x, float[64, 256] w) => (float[n, 256] y) { y = MatMul (x, w) }", {"w": weight}
        )
    graph = from_text(
        header + "(float[n, 64] x) => (float[n, 256] y) { y = MatMul (x, w) }", {"w": weight}
    ).graph.clone()
    constant = onnx_ir.node("Constant", [], {"value": onnx_ir.tensor(weight)})
    graph.graph.insert_before(graph.graph[0], constant)
    graph.graph[1].replace_input_with(1, constant.outputs[0])
    del graph.graph.initializers["w"]
    normalise(graph)
    return Model(graph)


def _attention() -> Model:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    attention (float[n, s, 16] x, float[n, 1, s] mask) => (float[n, s, 16] y) {
        q = MatMul (x, wq)
        k = MatMul (x, wk)
        v = MatMul (x, wv)
        kt = Transpose <perm = [0, 2, 1]> (k)
        scores = MatMul (q, kt)
        visible = Add (scores, mask)
        shares = Softmax <axis = -1> (visible)
        mixed = MatMul (shares, v)
        y = MatMul (mixed, wo)
    }"""
    return from_text(text, {name: _random(16, 16, seed=i) / 4 for i, name in enumerate(("wq", "wk", "wv", "wo"))})


def _masked_samples(masked: float) -> InMemory:
    """Return samples that hide one to four of ten places."""
    made = []
    for index in range(12):
        mask = np.zeros((2, 1, 10), F32)
        mask[:, :, 9 - index % 4 :] = masked
        made.append(Sample(str(index), {"x": _random(2, 10, 16, seed=index), "mask": mask}))
    return InMemory(tuple(made))


def _reads_quantized(model: Model, operator: str) -> list[bool]:
    """Return for each node of a type, in order, whether all that it reads is dequantized."""
    found = []
    for node in model.graph.graph:
        if node.op_type == operator:
            producers = [value.producer() for value in node.inputs if value is not None]
            found.append(all(one is not None and one.op_type == "DequantizeLinear" for one in producers))
    return found


def _weights_reach(model: Model) -> list[int]:
    """Return the largest number stored in each weight of 8 bits, by the order of the nodes that read them."""
    layers = [node for node in model.graph.graph if node.op_type in ("Conv", "Gemm", "MatMul")]
    values = [value.producer() for node in layers if (value := node.inputs[1]) is not None]
    stored = [constant_tensor(up.inputs[0]) for up in values if up is not None and up.op_type == "DequantizeLinear"]
    return [int(np.abs(tensor.numpy().astype(int)).max()) for tensor in stored if tensor is not None]


def _named(text: str, name: str) -> Model:
    return from_text(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (float[n, 8] x) => (float[n, 8] y) {{
            [one] a = MatMul (x, w) [act] b = Relu (a) [{name}] y = MatMul (b, {text})
        }}""",
        {"w": _random(8, 8), "v": _random(8, 8, seed=1)},
    )


@pytest.mark.parametrize(("options", "reach"), [({}, [127, 127]), ({"narrow": ["two"]}, [127, 63])])
def test_the_weights_of_named_layers_get_seven_bits(quantize: Quantize, options: Any, reach: list[int]) -> None:
    model = _named("v", "two")
    data = samples(model, 8)
    after = quantize("quantize-static", model, data, **options)
    assert _weights_reach(after) == reach
    assert _sqnr(model, after, data) > 25


def test_a_weight_that_a_narrow_layer_shares_is_stored_twice(quantize: Quantize) -> None:
    model = _named("w", "two")
    after = quantize("quantize-static", model, samples(model, 8), narrow=["two"])
    assert _weights_reach(after) == [127, 63]


def test_narrow_refuses_what_is_not_there_and_warns_of_what_has_no_weight(tmp_path: Path) -> None:
    model, told = _named("v", "two"), []
    ctx = Context.of(data=samples(model, 4), scratch=tmp_path, emit=told.append)
    with pytest.raises(UsageError, match="there is no node 'tow' to give 7-bit weights") as error:
        make_pass("quantize-static", {"narrow": ["tow"]})(model, ctx)
    assert "two" in str(error.value.hint)
    make_pass("quantize-static", {"narrow": ["act", "two"]})(model, ctx)
    warned = [event.text for event in told if isinstance(event, Warned)]
    assert warned == ["'act' has no weight that is rounded, so that narrow does nothing to it"]
