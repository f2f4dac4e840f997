"""The passes before int8: ``equalize-layers``, ``smooth-activations``, ``round-weights`` and ``correct-bias``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest

from onnxopt.context import Context, Event, Missed
from onnxopt.data.sample import InMemory, Sample, Samples
from onnxopt.evaluate.drift import compare_outputs
from onnxopt.evaluate.gram import Gram, patches
from onnxopt.evaluate.statistic import ChannelMoments
from onnxopt.ir.model import Model
from onnxopt.ir.quant import fit_array, quantize
from onnxopt.ir.windows import Window
from onnxopt.passes import make_pass
from onnxopt.quantize.rounding import round_jointly
from onnxopt.targets.kernels import BY_CHANNEL
from tests.graphs import answers, cnn, from_text, node_lines, samples
from tests.quantize.products import WIDTH, product_weight, products, wide_samples, with_outlier

F32 = np.float32
HEADER = '<ir_version: 8, opset_import: ["" : 17]>'


def _random(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal(shape).astype(F32)


def _apply(
    name: str, model: Model, folder: Path, data: Samples | None = None, **options: Any
) -> tuple[Model, set[str]]:
    """Return the model a pass makes, and the reasons it gave for what it left alone."""
    told: list[Event] = []
    after = make_pass(name, options)(model, Context.of(data=data, scratch=folder, emit=told.append))
    return after, {event.reason for event in told if isinstance(event, Missed)}


def _sqnr(before: Model, after: Model, data: Samples) -> float:
    found = compare_outputs((answers(before, one.feeds), answers(after, one.feeds)) for one in data).sqnr_db
    assert found is not None
    return found


def _quantized(model: Model, folder: Path, data: Samples, **options: Any) -> Model:
    return _apply("quantize-static", model, folder, data, **options)[0]


def _array(model: Model, name: str) -> np.ndarray[Any, Any]:
    tensor = model.graph.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()


def _uneven(between: str = "b = Relu (a)", after: str = "") -> Model:
    """Return two convolutions whose channels in between differ a thousandfold."""
    scale = np.geomspace(0.03, 30, 6).astype(F32)
    return from_text(
        f"{HEADER} g (float[n, 3, 8, 8] x) => (float[n, 5, 8, 8] y) {{ a = Conv (x, w, c) {between}"
        f" y = Conv (b, v) {after} }}",
        {
            "w": _random(6, 3, 1, 1) * scale.reshape(-1, 1, 1, 1),
            "c": _random(6, seed=1) * scale,
            "v": _random(5, 6, 1, 1, seed=2) / scale.reshape(-1, 1, 1),
            "lo": np.array(0, F32),
            "hi": np.array(6, F32),
            "slope": np.full((6, 1, 1), 0.1, F32),
        },
    )


@pytest.mark.parametrize(
    "between", ["b = Relu (a)", "b = PRelu (a, slope)", "b = LeakyRelu (a)", "b = MaxPool <kernel_shape = [1, 1]> (a)"]
)
def test_equalizing_evens_channels_out_and_changes_no_bit(tmp_path: Path, between: str) -> None:
    model = _uneven(between)
    after, _ = _apply("equalize-layers", model, tmp_path)
    made, read = (np.abs(_array(after, name)) for name in ("w", "v"))
    assert node_lines(after) == node_lines(model)
    assert np.ptp(np.log2(made.max((1, 2, 3)))) < 0.5 * np.ptp(np.log2(np.abs(_array(model, "w")).max((1, 2, 3))))
    assert np.abs(np.log2(made.max((1, 2, 3)) / read.max((0, 2, 3)))).max() <= 1.01
    for one in samples(model, 4):
        assert np.array_equal(answers(model, one.feeds)["y"], answers(after, one.feeds)["y"])


def test_equalizing_serves_weights_of_one_scale(tmp_path: Path) -> None:
    model, data = _uneven(), samples(_uneven(), 8)
    after, _ = _apply("equalize-layers", model, tmp_path)
    coarse = [_sqnr(model, _quantized(one, tmp_path, data, per_channel=False), data) for one in (model, after)]
    assert coarse[1] > coarse[0] + 6


def test_equalizing_goes_through_depthwise_layers(tmp_path: Path) -> None:
    scale = np.geomspace(0.01, 10, 6).astype(F32).reshape(-1, 1, 1, 1)
    model = from_text(
        f"{HEADER} g (float[n, 3, 8, 8] x) => (float[n, 4, 6, 6] y) {{ a = Conv (x, w) b = Relu (a)"
        " d = Conv <group = 6> (b, u, c) e = Relu (d) y = Conv (e, v) }",
        {
            "w": _random(6, 3, 1, 1) * scale,
            "u": _random(6, 1, 3, 3),
            "c": _random(6),
            "v": _random(4, 6, 1, 1) / scale[:, 0],
        },
    )
    after, _ = _apply("equalize-layers", model, tmp_path)
    one = samples(model, 1)[0].feeds
    assert np.array_equal(answers(model, one)["y"], answers(after, one)["y"])
    assert np.ptp(np.log2(np.abs(_array(after, "u")).max((1, 2, 3)))) < 6
    assert np.ptp(np.log2(np.abs(_array(after, "w")).max((1, 2, 3)))) < 6


@pytest.mark.parametrize(
    ("between", "after", "reason"),
    [
        ("b = Clip (a, lo, hi)", "", "Clip does not give a multiple for a multiple"),
        ("b = Tanh (a)", "", "Tanh does not give a multiple for a multiple"),
        ("b = Add (a, a)", "", "it adds a tensor to itself"),
        ("b = Relu (a) z = Sigmoid (b)", "unread = Abs (z)", "what it reads is read elsewhere too"),
    ],
)
def test_equalizing_tells_where_it_cannot_be(tmp_path: Path, between: str, after: str, reason: str) -> None:
    model = _uneven(between, after)
    if after:
        graph = model.graph.clone()
        graph.graph.outputs.append(next(node for node in graph.graph if node.op_type == "Abs").outputs[0])
        graph.graph.outputs[-1].type, graph.graph.outputs[-1].shape = graph.graph.inputs[0].type, None
        model = Model(graph)
    left, reasons = _apply("equalize-layers", model, tmp_path)
    assert reason in reasons
    assert np.array_equal(_array(left, "w"), _array(model, "w"))


def test_smoothing_moves_an_outlier_into_the_weights_and_changes_no_bit(tmp_path: Path) -> None:
    model, data = with_outlier(), wide_samples(6)
    after, reasons = _apply("smooth-activations", model, tmp_path, data)
    assert node_lines(after) == node_lines(model)
    assert _array(after, "s").max() < 10 < _array(model, "s").max()
    for one in data:
        assert np.array_equal(answers(model, one.feeds)["y"], answers(after, one.feeds)["y"])
    found = [_sqnr(model, _quantized(one, tmp_path, data), data) for one in (model, after)]
    assert found[1] > found[0] + 10
    assert "Tanh does not give a multiple for a multiple" in reasons


def test_smoothing_goes_into_the_norm_that_several_layers_read(tmp_path: Path) -> None:
    scale = np.ones(WIDTH, F32)
    scale[3] = 300
    small = (1 / scale)[:, None]
    model = from_text(
        f"{HEADER} g (float[n, 256] x) => (float[n, 256] y) {{ a = LayerNormalization (x, s, h)"
        " q = MatMul (a, w) k = MatMul (a, v) y = Mul (q, k) }",
        {"s": scale, "h": _random(WIDTH), "w": product_weight(0) * small, "v": product_weight(1) * small},
    )
    data = wide_samples(4)
    after, _ = _apply("smooth-activations", model, tmp_path, data, alpha=0.5)
    assert np.ptp(np.log2(_array(after, "s"))) < np.ptp(np.log2(scale))
    assert np.array_equal(_array(after, "s") / scale, _array(after, "h") / _array(model, "h"))
    assert _sqnr(model, after, data) > 120
    found = [_sqnr(model, _quantized(one, tmp_path, data), data) for one in (model, after)]
    assert found[1] > found[0] + 6


def test_smoothing_inserts_a_node_only_if_asked_to(tmp_path: Path) -> None:
    data = InMemory(
        tuple(
            Sample(one.name, {"x": one.feeds["x"] * np.geomspace(0.1, 50, WIDTH).astype(F32)})
            for one in wide_samples(4)
        )
    )
    left, reasons = _apply("smooth-activations", products(), tmp_path, data)
    assert left.digest == products().digest
    assert reasons == {"it reads an input of the graph", "Tanh does not give a multiple for a multiple"}
    after, _ = _apply("smooth-activations", products(), tmp_path, data, insert=True)
    assert [line.split(" = ")[1].split()[0] for line in node_lines(after)] == ["Mul", "MatMul", "Tanh", "MatMul"]
    assert _sqnr(products(), after, data) > 120


def test_smoothing_leaves_alone_what_promises_no_gain(tmp_path: Path) -> None:
    after, reasons = _apply("smooth-activations", cnn(), tmp_path, samples(cnn(), 4))
    assert any("not worth it" in reason for reason in reasons)
    assert np.array_equal(_array(after, "w1"), _array(cnn(), "w1"))


def _correlated(count: int = 6) -> InMemory:
    """Return samples whose channels are mixtures of few, around a mean, so that rounding errors add up."""
    mix = _random(4, WIDTH, seed=9)
    return InMemory(tuple(Sample(str(i), {"x": _random(64, 4, seed=i) @ mix + 2}) for i in range(count)))


def test_rounded_weights_lie_on_the_grid_that_is_found_again_and_disturb_less(tmp_path: Path) -> None:
    model, data, fresh = products(), _correlated(), _correlated(9)[6:]
    after, _ = _apply("round-weights", model, tmp_path, data)
    before_8, after_8 = (_quantized(one, tmp_path, data) for one in (model, after))
    assert node_lines(after) == node_lines(model)
    for name in ("w", "v"):
        assert np.array_equal(_array(before_8, f"{name}_scale"), _array(after_8, f"{name}_scale"))
        assert np.allclose(_read_back(after_8, name), _array(after, name), rtol=1e-6, atol=0)
    nearest, jointly = (_sqnr(model, _weights_alone(model, one), fresh) for one in (before_8, after_8))
    assert jointly > nearest + 6


def _weights_alone(model: Model, rounded: Model) -> Model:
    """Return the model with the weights that int8 reads back, and everything else in float."""
    graph = model.graph.clone()
    for name in ("w", "v"):
        graph.graph.initializers[name].const_value = onnx_ir.tensor(_read_back(rounded, name), name=name)
    return Model(graph)


def _read_back(rounded: Model, name: str) -> np.ndarray[Any, Any]:
    return _array(rounded, f"{name}_quantized").astype(F32) * _array(rounded, f"{name}_scale")


@pytest.mark.parametrize("shape", [(1, 8, 300), (40, 1, 9), (4, 6, 27)], ids=str)
def test_every_grid_is_found_again_and_no_row_gets_worse(shape: tuple[int, int, int]) -> None:
    groups, outputs, inputs = shape
    weight = _random(*shape) * np.geomspace(1e-6, 1e6, outputs).astype(F32)[:, None]
    rows = _random(groups, 64, inputs, seed=1) @ (np.eye(inputs, dtype=F32) + 0.3)
    gram = (rows.transpose(0, 2, 1) @ rows).astype(np.float64)
    how = fit_array(weight.reshape(-1, inputs), BY_CHANNEL)
    scale = how.scale.reshape(groups, outputs, 1)
    found = round_jointly(weight, gram, scale)
    again = fit_array(found.reshape(-1, inputs), BY_CHANNEL)
    assert np.array_equal(again.scale, how.scale)
    nearest = quantize(weight.reshape(-1, inputs), how).reshape(shape) * scale
    worse, off = (
        np.square((one - weight).astype(np.float64) @ rows.transpose(0, 2, 1)).sum(2) for one in (nearest, found)
    )
    assert (off <= worse * (1 + 1e-5)).all()
    assert off.sum() < 0.8 * worse.sum()


@pytest.mark.parametrize(
    "attributes",
    [
        "",
        'auto_pad = "SAME_UPPER"',
        "strides = [2, 1], pads = [1, 0, 2, 1]",
        "dilations = [2, 1]",
        "group = 2, pads = [1, 1, 1, 1]",
        "group = 4",
    ],
)
def test_patches_are_what_a_convolution_multiplies(attributes: str) -> None:
    groups = {"group = 2": 2, "group = 4": 4}.get(attributes.split(",")[0], 1)
    weight = _random(8, 4 // groups, 3, 2)
    head = f"<{attributes}>" if attributes else ""
    model = from_text(
        f"{HEADER} g (float[n, 4, 9, 7] x) => (float[n, 8, p, q] y) {{ y = Conv {head} (x, w) }}", {"w": weight}
    )
    window = Window.of(model.graph.graph[0], (3, 2))
    x = _random(2, 4, 9, 7, seed=1)
    made = patches(x, window) @ weight.reshape(groups, 8 // groups, -1).transpose(0, 2, 1)
    expected = np.moveaxis(answers(model, {"x": x})["y"], 1, -1).reshape(-1, groups, 8 // groups).transpose(1, 0, 2)
    assert np.allclose(made, expected, atol=1e-4)
    gram = Gram(window)
    gram.add(x)
    again = Gram.of(gram.state())
    assert again.window == window
    assert np.array_equal(again.matrix, gram.matrix)
    assert gram.rows == made.shape[1]


def _shifted(add: str = "y = Add (a, c)") -> Model:
    """Return a product whose inputs are all near one, so that what its weights are off by adds up."""
    return from_text(
        f"{HEADER} g (float[n, 256] x) => (float[n, 8] y) {{ a = MatMul (x, w) {add} }}",
        {"w": _random(WIDTH, 8), "c": _random(8, seed=1), "wide": _random(3, 8)},
    )


def _near_one(count: int) -> InMemory:
    return InMemory(tuple(Sample(str(i), {"x": 1 + 0.05 * _random(64, WIDTH, seed=i)}) for i in range(count)))


@pytest.mark.parametrize("operator", ["MatMul", "Gemm"])
def test_a_shift_is_taken_back_in_the_bias(tmp_path: Path, operator: str) -> None:
    """A Gemm without a bias gets one."""
    model = _shifted() if operator == "MatMul" else _gemm()
    data, fresh = _near_one(6), _near_one(9)[6:]
    after, _ = _apply("correct-bias", model, tmp_path, data)
    found = [_sqnr(model, _quantized(one, tmp_path, data), fresh) for one in (model, after)]
    assert after.operators == model.operators
    assert found[1] > found[0] + 3
    assert _sqnr(model, after, fresh) < 60


def test_a_product_without_a_constant_behind_it_has_no_bias(tmp_path: Path) -> None:
    model = from_text(
        f"{HEADER} g (float[n, 256] x) => (float[n, 256] y) {{ a = MatMul (x, w) b = Tanh (a) d = MatMul (b, v)"
        " y = Add (d, c) }",
        {"w": product_weight(0), "v": product_weight(1), "c": _random(WIDTH)},
    )
    _, reasons = _apply("correct-bias", model, tmp_path, wide_samples(4))
    assert "no constant is added to what it makes that could take the correction" in reasons


def test_a_correction_that_does_not_help_is_undone(tmp_path: Path) -> None:
    """The samples corrections are judged on are the first, and the mean is that of the others."""
    far = tuple(Sample(str(i), {"x": -20 * one.feeds["x"]}) for i, one in enumerate(_near_one(4)))
    model, data = _shifted(), InMemory((*_near_one(2), *far))
    after, reasons = _apply("correct-bias", model, tmp_path, data, trials=2)
    assert np.array_equal(_array(after, "c"), _array(model, "c"))
    assert any(reason.startswith("corrected, an output is at ") for reason in reasons)


def test_moments_are_those_of_all_arrays_and_survive_being_written_down() -> None:
    parts = [_random(2, 3, 5, seed=1), _random(4, 3, 7, seed=2)]
    seen = ChannelMoments(1)
    for part in parts:
        seen.add(part)
    again = ChannelMoments.of(seen.state())
    everything = np.concatenate([np.moveaxis(part, 1, 0).reshape(3, -1) for part in parts], 1)
    assert np.allclose(again.means, everything.mean(1))
    assert np.allclose(again.powers, np.square(everything).mean(1))
    assert np.array_equal(again.peaks, np.abs(everything).max(1))
    assert again.count == everything.shape[1]


def _gemm() -> Model:
    return from_text(f"{HEADER} g (float[n, 256] x) => (float[n, 8] y) {{ y = Gemm (x, w) }}", {"w": _random(WIDTH, 8)})


def test_a_gram_matrix_sees_every_place_of_a_sequence_and_leaves_out_what_is_not_finite() -> None:
    array = np.zeros((256, 8, 4), np.float32)
    array[:, range(8), np.arange(8) % 4] = 1
    array[3, 5] = np.nan
    gram = Gram(None)
    gram.add(array)
    seen = np.diagonal(gram.matrix[0]) / gram.rows
    assert np.allclose(seen, 0.25, atol=0.02)
