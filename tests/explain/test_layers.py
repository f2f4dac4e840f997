"""``explain`` names the layer planted to be bad, with the cause, and leaving it in float restores the outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxopt.context import Context
from onnxopt.explain.layers import LayersExplained, explain_layers
from onnxopt.ir.model import Model
from onnxopt.passes import make_pass
from onnxopt.quantize.mixed import QuantizeMixed
from onnxopt.report.explained import explained_table
from tests.graphs import from_text
from tests.quantize.products import product_weight, products, steady_seconds, wide_samples, with_outlier


@pytest.fixture(autouse=True)
def _steady(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxopt.quantize.costs.node_seconds", steady_seconds)


def _explained(model: Model, folder: Path, worst: int = 1, **options: bool) -> LayersExplained:
    change = make_pass("quantize-mixed", options)
    assert isinstance(change, QuantizeMixed)
    ctx = Context.of(data=wide_samples(24), scratch=folder)
    return explain_layers(model, change, worst, ctx)


def test_an_outlier_in_an_activation_is_named_and_leaving_its_reader_in_float_restores_the_output(
    tmp_path: Path,
) -> None:
    model = with_outlier()
    found = _explained(model, tmp_path)
    worst = found.layers[0]
    reader = next(node.name for node in model.graph.graph if node.inputs[0] is not None and node.inputs[0].name == "c")
    assert worst.layers == (reader,)
    assert worst.cause is not None
    assert worst.cause.startswith("outliers in 'c': 99 % of its values lie within a ")
    assert worst.restored_db is not None
    assert worst.restored_db > found.sqnr_db + 10
    assert [layer.cause for layer in found.layers[1:]] == [None, None]
    assert [layer.sqnr_db for layer in found.layers] == sorted(layer.sqnr_db for layer in found.layers)


def test_an_outlier_among_weights_of_one_scale_is_named(tmp_path: Path) -> None:
    """One output's weights are a thousand times larger, and made small again behind the product."""
    scale = np.ones(256, np.float32)
    scale[5] = 1000
    model = from_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 256] x) => (float[n, 256] y)'
        "{ a = MatMul (x, w) b = Tanh (a) c = MatMul (b, v) y = Mul (c, s) }",
        {"w": product_weight(0), "v": product_weight(1) * scale, "s": 1 / scale},
    )
    worst = _explained(model, tmp_path, per_channel=False).layers[0]
    assert worst.cause is not None
    assert worst.cause.startswith("outliers in its weights: one is ")
    assert _explained(model, tmp_path).layers[0].sqnr_db > worst.sqnr_db + 10


def test_gains_are_shares_of_the_whole_time(tmp_path: Path) -> None:
    found = _explained(products(), tmp_path, worst=0)
    assert [layer.share for layer in found.layers] == pytest.approx([0.5, 0.5])
    assert [layer.gain for layer in found.layers] == pytest.approx([1 / 3, 1 / 3])
    assert explained_table(found)
    assert {one.layer for one in found.portability.layers} == {name for layer in found.layers for name in layer.layers}
