"""Sums that saturate without VNNI: counted as a plain loop counts them, named, and gone with 7-bit weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxopt.context import Context
from onnxopt.data.sample import InMemory, Sample
from onnxopt.errors import PassError
from onnxopt.evaluate.drift import EXACT_DB
from onnxopt.explain.portability import Portability, Saturation, find_saturation
from onnxopt.explain.saturation import Product
from onnxopt.ir.model import Model
from onnxopt.ir.weights import constant_tensor
from onnxopt.ir.windows import Window
from onnxopt.passes import make_pass
from tests.graphs import cnn, from_text, mlp, samples

F32, I8, U8 = np.float32, np.int8, np.uint8
Array = np.ndarray[Any, Any]
Found = Callable[[Model, InMemory], Portability]


@pytest.fixture
def found(tmp_path: Path) -> Found:
    return lambda model, data: find_saturation(model, data, Context.of(scratch=tmp_path))


def _feeds(**arrays: Array) -> InMemory:
    return InMemory((Sample("one", arrays),))


def _of(found: Portability, layer: str) -> Saturation:
    return next(one for one in found.layers if one.layer == layer)


def _rows_product(weight: Array, scale: Array) -> Model:
    """Return a product of what is stored as it is: the input's scale is 1, its zero point 3."""
    return from_text(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (float[n, {len(weight)}] x) => (float[n, m] y) {{
            xq = QuantizeLinear (x, one, three) xd = DequantizeLinear (xq, one, three)
            wd = DequantizeLinear <axis = 1> (w, s, z)
            [product] y = MatMul (xd, wd)
        }}""",
        {"one": np.array(1, F32), "three": np.array(3, U8), "w": weight, "s": scale, "z": np.zeros(len(scale), I8)},
    )


def _pair_sums(row: Array, column: Array) -> Iterator[int]:
    """Yield the sums of two products one after the other, as plain numbers."""
    for start in range(0, len(row), 2):
        yield sum(int(a) * int(b) for a, b in zip(row[start : start + 2], column[start : start + 2], strict=True))


def _by_hand(pairs: list[tuple[Array, Array, float]], zero: int) -> tuple[float, float]:
    """Return the share of sums cut off, and the SQNR of the outputs, of (row, column, scale) each."""
    sums, cut, exact, saturated = 0, 0, [], []
    for row, column, scale in pairs:
        made = list(_pair_sums(row, column))
        kept = [min(max(one, -32768), 32767) for one in made]
        sums, cut = sums + len(made), cut + sum(a != b for a, b in zip(made, kept, strict=True))
        moved = zero * int(column.astype(int).sum())
        exact.append((sum(made) - moved) * scale)
        saturated.append((sum(kept) - moved) * scale)
    noise = np.mean(np.subtract(exact, saturated) ** 2)
    return cut / sums, 10 * np.log10(np.var(exact) / noise)


def test_rows_are_counted_as_a_loop_counts_them(found: Found) -> None:
    """Nine inputs: the last has no neighbour."""
    random = np.random.default_rng(0)
    rows = random.integers(0, 256, (40, 9))
    weight, scale = random.integers(-128, 128, (9, 5)).astype(I8), random.uniform(0.5, 2, 5).astype(F32)
    one = _of(found(_rows_product(weight, scale), _feeds(x=rows.astype(F32) - 3)), "product")
    pairs = [(row, weight[:, index], scale[index]) for row in rows for index in range(5)]
    share, decibels = _by_hand(pairs, 3)
    assert one.share == pytest.approx(share)
    assert one.share > 0.01
    assert one.sqnr_db == pytest.approx(decibels, abs=0.01)
    steps = np.abs(weight.astype(float)).max(0) / 63
    seven = np.clip(np.rint(weight / steps), -64, 63) * steps
    exact, narrow = ((rows - 3) @ (stored * scale) for stored in (weight, seven))
    assert one.narrow_db == pytest.approx(10 * np.log10(exact.var() / np.square(exact - narrow).mean()), abs=0.01)


def test_windows_are_counted_channels_last_group_by_group(found: Found) -> None:
    """Padding stands in as the zero point; strides and dilations move the window."""
    random = np.random.default_rng(1)
    image = random.integers(0, 256, (2, 6, 7, 8))
    weight = random.integers(-128, 128, (4, 3, 3, 2)).astype(I8)
    scale = random.uniform(0.5, 2, 4).astype(F32)
    model = from_text(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[n, 6, 7, 8] x) => (float[n, 4, a, b] y) {
            xq = QuantizeLinear (x, one, zero) xd = DequantizeLinear (xq, one, zero)
            wd = DequantizeLinear <axis = 0> (w, s, z)
            [layer] y = Conv <group = 2, pads = [1, 0, 1, 2], strides = [2, 1], dilations = [1, 3]> (xd, wd)
        }""",
        {"one": np.array(1, F32), "zero": np.array(9, U8), "w": weight, "s": scale, "z": np.zeros(4, I8)},
    )
    one = _of(found(model, _feeds(x=image.astype(F32) - 9)), "layer")
    padded = np.pad(image, [(0, 0), (0, 0), (1, 1), (0, 2)], constant_values=9)
    pairs = []
    for sample in padded:
        for output, kernel in enumerate(weight):
            channels = sample[3 * (output // 2) : 3 * (output // 2) + 3]
            for top in range(0, 7, 2):
                for left in range(7):
                    window = channels[:, top : top + 3, left : left + 4 : 3]
                    row, column = (np.moveaxis(part, 0, -1).ravel() for part in (window, kernel))
                    pairs.append((row, column, scale[output]))
    share, decibels = _by_hand(pairs, 9)
    assert one.share == pytest.approx(share)
    assert one.share > 0.01
    assert one.sqnr_db == pytest.approx(decibels, abs=0.01)


def _window(pads: str) -> Window:
    text = f"""<ir_version: 8, opset_import: ["" : 17]> g (float[n, 4, 6, 7] x, float[3, 4, 3, 4] w)
        => (float[n, 3, a, b] y) {{ y = Conv <strides = [1, 2], {pads}> (x, w) }}"""
    return Window.of(from_text(text).graph.graph[0], (3, 4))


def test_zeros_around_an_image_follow_from_the_size_where_the_node_says_so() -> None:
    """The pads of SAME_UPPER written out give the same windows; those of SAME_LOWER give others."""
    image = np.random.default_rng(2).integers(0, 256, (1, 4, 6, 7)).astype(U8)

    def rows(pads: str) -> Array:
        return _window(pads).rows(image, 5, np.arange)

    upper = rows('auto_pad = "SAME_UPPER"')
    assert upper.shape == (24, 3, 4, 4)
    assert np.array_equal(upper, rows("pads = [1, 1, 1, 2]"))
    lower = rows('auto_pad = "SAME_LOWER"')
    assert np.array_equal(lower, rows("pads = [1, 2, 1, 1]"))
    assert not np.array_equal(upper, lower)
    assert len(rows('auto_pad = "VALID"')) == 8


def test_of_many_windows_some_are_chosen() -> None:
    image = np.arange(4 * 60 * 70).reshape(1, 4, 60, 70)
    window = _window('auto_pad = "SAME_UPPER"')
    whole, some = window.rows(image, 0, np.arange), window.rows(image, 0, lambda count: np.arange(0, count, 7))
    assert np.array_equal(some, whole[::7])


def _product(weight: Array) -> Product:
    return Product(weight.astype(I8), np.ones(weight.shape[1], F32), np.zeros(weight.shape[1], I8))


def test_a_layer_that_cannot_saturate_is_told_apart_from_one_whose_order_saves_it() -> None:
    """Large weights never stand side by side in the second; a kernel that packs otherwise might add them."""
    apart, rows = np.zeros((8, 4)), np.full((3, 8), 255, U8)
    apart[[0, 2]] = 127
    small, lucky, bad = _product(np.full((8, 4), 64)), _product(apart), _product(apart[[0, 2, 1, 3, 4, 5, 6, 7]])
    assert [one.tally(rows, 0).share for one in (small, lucky, bad)] == [0, 0, 0.25]
    assert [one.could for one in (small, lucky, bad)] == [0, 4, 4]
    tally = lucky.tally(rows, 0)
    assert tally.sqnr_db(tally.cut_noise) == EXACT_DB


@pytest.mark.parametrize("weight", [65, -65])
def test_sums_are_cut_off_at_both_ends_of_an_int16(weight: int) -> None:
    """65 * (255 + 249) is 32760 and fits; 65 * (255 + 250) is 32825."""
    product = _product(np.full((2, 1), weight))
    assert product.tally(np.array([[255, 249]], U8), 0).cut == 0
    assert product.tally(np.array([[255, 250]], U8), 0).cut == 1


def _planted() -> tuple[Model, InMemory]:
    """Return a first layer whose weights are all near the largest, a second that looks at one number at a time."""
    random = np.random.default_rng(3)
    model = from_text(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[n, 32] x) => (float[n, 16] y) {
            [same] a = MatMul (x, w) b = Relu (a) [single] y = MatMul (b, v)
        }""",
        {"w": random.uniform(0.9, 1, (32, 16)).astype(F32), "v": np.eye(16, dtype=F32)},
    )
    rows = random.uniform(0.5, 1, (24, 8, 32)).astype(F32)
    return model, InMemory(tuple(Sample(str(index), {"x": one}) for index, one in enumerate(rows)))


def _quantized(model: Model, data: InMemory, folder: Path, **options: object) -> Model:
    return make_pass("quantize-static", options)(model, Context.of(data=data, scratch=folder))


def _largest_weight(model: Model, layer: str) -> int:
    node = next(node for node in model.graph.graph if node.name == layer)
    up = node.inputs[1].producer() if node.inputs[1] is not None else None
    tensor = constant_tensor(up.inputs[0]) if up is not None else None
    assert tensor is not None
    return int(np.abs(tensor.numpy().astype(int)).max())


def test_seven_bits_for_the_layer_that_saturates_end_it_at_the_cost_that_was_told(found: Found, tmp_path: Path) -> None:
    model, data = _planted()
    before = found(_quantized(model, data, tmp_path), data)
    worst = before.layers[0]
    assert (worst.layer, before.narrow) == ("same", ("same",))
    assert worst.share > 0.5
    assert worst.sqnr_db < 0 < 10 < worst.narrow_db < 60
    assert (_of(before, "single").share, _of(before, "single").could) == (0, 0)
    remedied = _quantized(model, data, tmp_path, narrow=["same"])
    after = found(remedied, data)
    assert (_of(after, "same").share, after.narrow, after.saturating) == (0, (), ())
    assert [_largest_weight(remedied, name) for name in ("same", "single")] == [63, 127]


def test_what_is_not_simulated_is_told_with_the_reason(found: Found, tmp_path: Path) -> None:
    data = samples(cnn(), 4)
    signed = found(_quantized(cnn(), data, tmp_path, signed_activations=True), data)
    assert not signed.layers
    assert {one.reason for one in signed.left} == {
        "it multiplies int8 by int8: only uint8 by int8 is added in an int16"
    }
    depthwise = from_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[1, 4, 5, 5] x) => (float[1, 4, 3, 3] y)'
        "{ [alone] y = Conv <group = 4> (x, w) }",
        {"w": np.ones((4, 1, 3, 3), F32)},
    )
    images = samples(depthwise, 4)
    alone = found(_quantized(depthwise, images, tmp_path), images)
    assert [(one.node, one.reason) for one in alone.left] == [
        ("alone", "it looks at each channel alone, which kernels add in an int32")
    ]


def test_a_float_model_is_refused(found: Found) -> None:
    with pytest.raises(PassError, match="no layer computes in 8 bits"):
        found(mlp(), samples(mlp(), 1))
