"""Weights in blocks of few bits: what is stored, what is read back, and what stays as it is."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxopt.context import Context, Event, Missed
from onnxopt.data.sample import InMemory, Sample
from onnxopt.errors import PassError
from onnxopt.evaluate.drift import compare_outputs
from onnxopt.ir.model import Model
from onnxopt.ir.write import tensors_size
from onnxopt.passes import make_pass
from onnxopt.quantize.blocks import block_scheme, packed, read_back
from onnxopt.quantize.roundings import Rounding, to_blocks
from tests.graphs import answers, from_text

F32 = np.float32
HEADER = '<ir_version: 8, opset_import: ["" : 17]> g '


def _random(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(F32)


@pytest.mark.parametrize("symmetric", [False, True], ids=["affine", "symmetric"])
@pytest.mark.parametrize("rounding", ["nearest", "clipped"])
@given(
    outputs=st.integers(1, 5),
    inputs=st.integers(1, 70),
    bits=st.sampled_from([4, 8]),
    seed=st.integers(0, 9),
)
def test_what_is_read_back_is_off_by_half_a_step_or_was_worth_cutting_off(
    symmetric: bool, rounding: Rounding, outputs: int, inputs: int, bits: Literal[4, 8], seed: int
) -> None:
    weight = _random(outputs, inputs, seed=seed)
    scheme = block_scheme(bits, 16, symmetric=symmetric)
    blocks = to_blocks(weight, scheme, rounding)
    back = read_back(blocks, inputs)
    assert back.shape == weight.shape
    nearest = read_back(to_blocks(weight, scheme, "nearest"), inputs)
    assert np.square(back - weight).sum() <= np.square(nearest - weight).sum() * 1.0001 + 1e-9
    if rounding == "nearest":
        steps = np.repeat(blocks.scale, 16, 1)[:, :inputs]
        assert (np.abs(back - weight) <= steps * 0.5001 + 1e-6).all()


def test_numbers_of_four_bits_lie_two_in_a_byte() -> None:
    assert packed(np.array([[1, 2, 3, 15]], np.uint8), 4).tolist() == [[0x21, 0xF3]]
    assert packed(np.array([[1, 2, 3]], np.uint8), 4).tolist() == [[0x21, 0x03]]
    assert packed(np.array([[200]], np.uint8), 8).tolist() == [[200]]


@pytest.mark.parametrize("runtime", ["ort", "openvino"])
@pytest.mark.parametrize(
    ("options", "decibels", "size"),
    [
        ({}, 15, 0.4),
        ({"symmetric": True}, 13, 0.4),
        ({"bits": 8, "embedding_bits": 8}, 35, 0.48),
        ({"embedding_bits": 4, "block": 64}, 12, 0.4),
        ({"rounding": "nearest"}, 15, 0.4),
    ],
    ids=["default", "symmetric", "8-bit", "4-bit-embedding", "nearest"],
)
def test_a_language_model_in_small(runtime: str, options: dict[str, Any], decibels: float, size: float) -> None:
    """An embedding, products behind Transpose, a Gemm with a bias, and a head tied to the embedding."""
    model = _small_language_model()
    after = make_pass("quantize-weights", {"runtime": runtime, **options})(model, Context.of())
    assert after.signature == model.signature
    assert tensors_size(after.graph) < size * tensors_size(model.graph)
    assert "Gather" not in after.operators or runtime == "openvino"
    assert _sqnr(model, after) > decibels


def test_what_the_runtime_computes_is_what_is_read_back() -> None:
    """Held against the float model with the weights read back; kernels of 8 bits round activations besides."""
    weight = _random(64, 96)
    text = HEADER + "(float[n, 96] x) => (float[n, 64] y) { t = Transpose <perm = [1, 0]> (w) y = MatMul (x, t) }"
    after = make_pass("quantize-weights", {"head_bits": 4})(from_text(text, {"w": weight}), Context.of())
    back = read_back(to_blocks(weight, block_scheme(4, 32, symmetric=False), "hqq"), 96)
    exact = from_text(text, {"w": back})
    feeds = {"x": _random(8, 96, seed=3)}
    got, wanted = (answers(one, feeds)["y"] for one in (after, exact))
    assert np.abs(got - wanted).max() < 0.04 * wanted.std()


@pytest.mark.parametrize(
    ("body", "weight", "reason"),
    [
        ("y = MatMul (x, w) z = MatMul (x, small)", (96, 64), "its weight has 96 elements"),
        ("y = Gemm <alpha = 2.0> (x, w) z = MatMul (x, v)", (96, 64), "its product or its bias is scaled"),
        ("y = MatMul (x, w) h = Abs (v) z = MatMul (x, h)", (96, 64), None),
    ],
)
def test_what_stays_is_told_with_the_reason(body: str, weight: tuple[int, ...], reason: str | None) -> None:
    text = f"{HEADER}(float[n, 96] x) => (float[n, 64] y, float[n, k] z) {{ {body} }}"
    model = from_text(text, {"w": _random(*weight), "v": _random(96, 64, seed=1), "small": _random(96, 1)})
    told: list[Event] = []
    make_pass("quantize-weights", {})(model, Context.of(emit=told.append))
    reasons = [event.reason for event in told if isinstance(event, Missed)]
    assert reason is None or any(one.startswith(reason) for one in reasons)


def test_nodes_can_be_left_and_nothing_left_is_refused() -> None:
    model = from_text(HEADER + "(float[n, 96] x) => (float[n, 64] y) { y = MatMul (x, w) }", {"w": _random(96, 64)})
    name = model.graph.graph[0].name
    with pytest.raises(PassError, match="there is nothing to quantize: no MatMul, Gemm or Gather reads a large"):
        make_pass("quantize-weights", {"skip": [name]})(model, Context.of())


def test_inputs_that_are_no_whole_blocks_stay_float_in_standard_form() -> None:
    text = HEADER + "(float[n, 100] x) => (float[n, 64] y, float[n, 64] z) { y = MatMul (x, w) z = MatMul (y, v) }"
    model = from_text(text, {"w": _random(100, 64), "v": _random(64, 64)})
    told: list[Event] = []
    after = make_pass("quantize-weights", {"runtime": "openvino"})(model, Context.of(emit=told.append))
    assert after.operators["DequantizeLinear"] == 1
    assert [event.reason for event in told if isinstance(event, Missed)] == [
        "its 100 columns are no whole blocks of 32"
    ]
    ours = make_pass("quantize-weights", {})(model, Context.of())
    assert ours.operators["com.microsoft::MatMulNBits"] == 2
    assert _sqnr(model, ours, width=100) > 15


def test_an_embedding_of_no_whole_blocks_keeps_its_width() -> None:
    text = HEADER + "(int64[n] i) => (float[n, 64] y) { e = Gather (t, i) y = MatMul (e, w) }"
    model = from_text(text, {"t": _random(200, 100), "w": _random(100, 64, seed=1)})
    told: list[Event] = []
    after = make_pass("quantize-weights", {})(model, Context.of(emit=told.append))
    assert after.operators["Gather"] == 1
    assert "its 100 columns are no whole blocks of 32" in [e.reason for e in told if isinstance(e, Missed)]


def test_a_transpose_that_changes_nothing_changes_nothing() -> None:
    text = HEADER + "(float[n, 64] x) => (float[n, 64] y) { t = Transpose <perm = [0, 1]> (w) y = MatMul (x, t) }"
    model = from_text(text, {"w": _random(64, 64)})
    assert _sqnr(model, make_pass("quantize-weights", {"bits": 8})(model, Context.of()), width=64) > 30


def test_an_embedding_in_blocks_is_not_quantized_again() -> None:
    text = HEADER + "(int64[n] i) => (float[n, 64] y) { y = Gather (t, i) }"
    once = make_pass("quantize-weights", {})(from_text(text, {"t": _random(200, 64)}), Context.of())
    with pytest.raises(PassError, match="the model is quantized already: it has GatherBlockQuantized"):
        make_pass("quantize-weights", {})(once, Context.of())


def _small_language_model() -> Model:
    return from_text(
        HEADER
        + """(int64[n, s] ids) => (float[n, s, 512] logits) {
            e = Gather (table, ids)
            t = Transpose <perm = [1, 0]> (w)
            h = MatMul (e, t)
            a = Tanh (h)
            b = MatMul (a, v)
            c = Tanh (b)
            u = Transpose <perm = [1, 0]> (table)
            logits = MatMul (c, u)
        }""",
        {"table": _random(512, 128), "w": _random(128, 128, seed=1) / 11, "v": _random(128, 128, seed=2) / 11},
    )


def _sqnr(before: Model, after: Model, width: int = 0) -> float:
    random = np.random.default_rng(7)
    made = [
        Sample(
            str(i),
            {"x": random.standard_normal((4, width)).astype(F32)}
            if width
            else {"ids": random.integers(0, 512, (2, 9))},
        )
        for i in range(6)
    ]
    found = compare_outputs((answers(before, one.feeds), answers(after, one.feeds)) for one in InMemory(tuple(made)))
    assert found.sqnr_db is not None
    return found.sqnr_db
