"""Seconds by layer, from what a runtime tells by names of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from onnxopt.context import Context
from onnxopt.ir.model import private_copy
from onnxopt.passes import make_pass
from onnxopt.quantize.costs import measure_costs
from onnxopt.quantize.mixed import QuantizeMixed
from onnxopt.targets.target import local_target
from tests.graphs import cnn, samples


def test_a_layer_is_timed_by_what_the_last_node_fused_with_it_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Convolution, normalisation and Relu are one node to the runtime, named by what the Relu makes."""
    model, data = cnn(), samples(cnn(), 4)
    change = make_pass("quantize-mixed", {})
    assert isinstance(change, QuantizeMixed)
    ready = change.ready(private_copy(model.graph), data, Context.of(data=data, scratch=tmp_path))
    first, second = (layer.name for layer in ready.layers)
    taken = {"plain": {"r1": 3.0, second: 1.0}, "rounded": {first: 1.0, second: 0.5}, "alternating": {}}

    def seconds(path: Path, *_: Any) -> dict[str, float]:
        return taken[path.name]

    monkeypatch.setattr("onnxopt.quantize.costs.node_seconds", seconds)
    models = [tmp_path / name for name in taken]
    costs = measure_costs(ready, models, set(), [], local_target())
    assert costs.gains == {first: pytest.approx(2.0), second: pytest.approx(0.5)}
    assert costs.shares == {first: pytest.approx(0.75), second: pytest.approx(0.25)}
    assert costs.total == pytest.approx(4.0)
