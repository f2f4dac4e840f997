"""Derivatives by gates against differences, and the criterion that rests on them."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.reference
import pytest

from onnxopt.context import Context
from onnxopt.data.sample import InMemory, Sample
from onnxopt.errors import EngineError, MissingExtraError
from onnxopt.ir.model import Model
from onnxopt.ir.read import read_model
from onnxopt.lift import extra
from onnxopt.lift.gate import Gate
from onnxopt.passes import make_pass

_NET = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[1, 3, 6, 6] x) => (float[1, 1] y)
{
    a = Conv <pads = [1, 1, 1, 1]> (x, w1)
    b = Tanh (a)
    c = Conv <pads = [1, 1, 1, 1]> (b, w2)
    d = GlobalAveragePool (c)
    y = Flatten (d)
}
"""


def _weights(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "w1": random.standard_normal((16, 3, 3, 3)).astype(np.float32),
        "w2": random.standard_normal((1, 16, 3, 3)).astype(np.float32),
    }


def _written(path, weights: dict[str, np.ndarray], pool: str = "GlobalAveragePool"):
    model = onnx.parser.parse_model(_NET.replace("GlobalAveragePool", pool))
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    onnx.save(model, path)
    return path


def _feeds(seed: int = 1) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).standard_normal((1, 3, 6, 6)).astype(np.float32)}


def _output(path) -> float:
    return float(onnx.reference.ReferenceEvaluator(str(path)).run(None, _feeds())[0][0, 0])


def test_a_derivative_is_what_a_difference_says(tmp_path):
    pytest.importorskip("torch", reason="needs torch")
    from onnxopt.lift.gates import GateGradients

    weights, step = _weights(), 1e-2
    gates = GateGradients(
        str(_written(tmp_path / "net.onnx", weights)), [[Gate("w2", 1, np.arange(16) // 2)]], [8], seed=0
    )
    gates.add([_feeds()])
    whole = _output(tmp_path / "net.onnx")
    for channel, found in enumerate(gates.means()[0]):
        ends = []
        for sign in (1, -1):
            moved = dict(weights, w2=weights["w2"].copy())
            moved["w2"][:, 2 * channel : 2 * channel + 2] *= 1 + sign * step
            ends.append(_output(_written(tmp_path / "moved.onnx", moved)))
        assert found == pytest.approx(((ends[0] - ends[1]) / (2 * step) / whole) ** 2, rel=1e-2)


def _pruned(path) -> Model:
    samples = InMemory(tuple(Sample(f"sample {seed}", _feeds(seed)) for seed in range(4)))
    change = make_pass("prune-channels", {"criterion": "taylor", "weigh": False, "align": 4, "keep": 0.5})
    return change(read_model(path), Context.of(data=samples, scratch=path.parent, seed=0))


def test_channels_that_reach_no_output_go_first(tmp_path):
    pytest.importorskip("torch", reason="needs torch")
    weights = _weights()
    weights["w2"][:, 1::2] = 0
    weights["w1"][1::2] *= 100
    pruned = _pruned(_written(tmp_path / "net.onnx", weights))
    kept = pruned.graph.graph.initializers["w1"].const_value.numpy()
    np.testing.assert_array_equal(kept, weights["w1"][::2])


def test_an_operator_without_gradients_is_named(tmp_path):
    pytest.importorskip("torch", reason="needs torch")
    with pytest.raises(EngineError, match="no gradient passes through GlobalLpPool") as error:
        _pruned(_written(tmp_path / "net.onnx", _weights(), pool="GlobalLpPool"))
    assert "hessian" in error.value.hint


def test_without_torch_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(extra, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="criterion taylor needs torch") as error:
        _pruned(_written(tmp_path / "net.onnx", _weights()))
    assert "onnxopt[torch]" in error.value.hint
