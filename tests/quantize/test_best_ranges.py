"""The method ``auto``: ranges by what they do to the outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxopt.context import Context, Event, Progress
from onnxopt.data.sample import InMemory, Sample
from onnxopt.evaluate.drift import compare_outputs
from onnxopt.ir.model import Model
from onnxopt.passes import make_pass
from onnxopt.quantize.best_ranges import METHODS
from tests.graphs import answers, from_text
from tests.quantize.products import product_weight, steady_seconds

F32 = np.float32
WIDTH = 256


def _two_tastes() -> Model:
    """Return two products: the first needs the outliers of what it reads, the second forgets them by a Tanh."""
    loud = np.zeros((WIDTH, WIDTH), F32)
    loud[0] = product_weight(2)[0] / 2
    return from_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 256] x, float[n, 256] z) => (float[n, 256] y)'
        "{ a = MatMul (x, u) b = MatMul (z, v) t = Tanh (b) y = Add (a, t) }",
        {"u": loud + 0.001 * product_weight(0), "v": product_weight(1)},
    )


def _samples(count: int) -> InMemory:
    """Return samples: in x channel 0 is large and all that counts; in z two numbers are huge and count little."""
    random = np.random.default_rng(3)
    made = []
    for index in range(count):
        x, z = (random.standard_normal((16, WIDTH)).astype(F32) for _ in "xz")
        x[:, 0] *= 40
        z[0, 0] = 500 if index % 6 == 0 else z[0, 0]
        made.append(Sample(str(index), {"x": x, "z": z}))
    return InMemory(tuple(made))


def _kept(model: Model, folder: Path, method: str, told: list[Event] | None = None) -> float:
    data = _samples(12)
    emit = (lambda _: None) if told is None else told.append
    after = make_pass("quantize-static", {"method": method})(model, Context.of(data=data, scratch=folder, emit=emit))
    found = compare_outputs((answers(model, one.feeds), answers(after, one.feeds)) for one in data)
    assert found.sqnr_db is not None
    return found.sqnr_db


def test_each_tensor_gets_the_range_the_outputs_keep_most_with(tmp_path: Path) -> None:
    model, told = _two_tastes(), []
    alone = {method: _kept(model, tmp_path, method) for method in METHODS}
    chosen = _kept(model, tmp_path, "auto", told)
    assert chosen > max(alone.values()) + 1, alone
    assert [event.what for event in told if isinstance(event, Progress)].count("choosing ranges") >= 2


@pytest.mark.parametrize("name", ["quantize-mixed", "round-weights"])
def test_other_passes_take_it_too(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxopt.quantize.costs.node_seconds", steady_seconds)
    model = _two_tastes()
    context = Context.of(data=_samples(24), scratch=tmp_path)
    after = make_pass(name, {"method": "auto"})(model, context)
    assert after.digest != model.digest
