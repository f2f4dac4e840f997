"""The pass ``split-outliers``: outlier channels are multiplied apart, exactly, and widen no range but their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxopt.context import Context, Event, Missed
from onnxopt.evaluate.drift import compare_outputs
from onnxopt.ir.model import Model
from onnxopt.passes import make_pass
from tests.graphs import answers, from_text, node_lines
from tests.quantize.products import product_weight, wide_samples, with_outlier

HEADER = '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 256] x) => (float[n, 256] y) '


def _apply(name: str, model: Model, folder: Path, told: list[Event] | None = None, **options: float) -> Model:
    emit = (lambda _: None) if told is None else told.append
    return make_pass(name, options)(model, Context.of(data=wide_samples(12), scratch=folder, emit=emit))


def _sqnr(before: Model, after: Model) -> float:
    found = compare_outputs((answers(before, s.feeds), answers(after, s.feeds)) for s in wide_samples(4))
    assert found.sqnr_db is not None
    return found.sqnr_db


def test_outliers_get_a_product_and_a_range_of_their_own(tmp_path: Path) -> None:
    model = with_outlier()
    split = _apply("split-outliers", model, tmp_path)
    assert node_lines(split)[3:8] == [
        "c_others = Mul (c, c_without_outliers)",
        "c_few = Gather (c, c_outliers)",
        "d = MatMul (c_others, u)",
        "d_of_outliers = MatMul (c_few, node_3_outliers)",
        "d_whole = Add (d, d_of_outliers)",
    ]
    assert _sqnr(model, split) > 100
    plain, apart = (_sqnr(model, _apply("quantize-static", one, tmp_path, method="minmax")) for one in (model, split))
    assert apart > plain + 10


@pytest.mark.parametrize("body", ["y = Gemm (s, w, b)", "y = Gemm <transB = 1> (s, w)", "y = MatMul (s, w)"])
def test_what_an_output_comes_from_keeps_its_name(body: str, tmp_path: Path) -> None:
    scale = np.ones(256, np.float32)
    scale[[3, 100]] = 50
    weights = {"w": product_weight(0), "k": scale, "b": product_weight(1)[0]}
    used = {name: array for name, array in weights.items() if name != "b" or "b)" in body}
    model = from_text(HEADER + "{ s = Mul (x, k) " + body + "}", used)
    split = _apply("split-outliers", model, tmp_path)
    assert split.signature == model.signature
    assert split.operators["MatMul"] == model.operators.get("MatMul", 0) + 1
    assert _sqnr(model, split) > 100


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"ratio": 1e6}, "no channel it reads peaks beyond 1e+06 times the median channel"),
        ({"ratio": 1.001, "most": 0.01}, "channels are outliers: more than 1%"),
    ],
)
def test_layers_without_a_few_outliers_stay(options: dict[str, float], reason: str, tmp_path: Path) -> None:
    told: list[Event] = []
    model = with_outlier()
    assert _apply("split-outliers", model, tmp_path, told, **options).operators == model.operators
    assert all(reason in one.reason for one in told if isinstance(one, Missed))
    assert sum(isinstance(one, Missed) for one in told) == 3
