"""Two models layer by layer: channels line up by what a pruned model tells, and the layer that differs is named."""

import json

import numpy as np
import onnx_ir
import pytest

from onnxopt.context import Context, Progress
from onnxopt.errors import ModelError
from onnxopt.evaluate.drift import EXACT_DB, Drift
from onnxopt.explain.layerwise import compare_layers
from onnxopt.explain.measured import Compared, LayerDrift
from onnxopt.ir.model import Model, private_copy
from onnxopt.passes import make_pass
from onnxopt.profile.statistics import Speedup, Verdict
from onnxopt.prune.lineage import KEY
from tests.graphs import cnn, from_text, mlp, samples

F32 = np.float32


def three_layers(**changed: np.ndarray) -> Model:
    """Return three products, every other channel between them zero."""
    random = np.random.default_rng(0)
    shapes = {"w1": (8, 16), "w2": (16, 16), "w3": (16, 4)}
    weights = {name: random.standard_normal(shape).astype(F32) for name, shape in shapes.items()}
    weights["w1"][:, ::2] = 0
    weights["w2"][:, ::2] = 0
    return from_text(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[n, 8] x) => (float[n, 4] y) {
            a = MatMul (x, w1) b = Relu (a) c = MatMul (b, w2) d = Relu (c) y = MatMul (d, w3)
        }""",
        weights | changed,
    )


def compared(first: Model, second: Model) -> dict[str, float | None]:
    return {one.tensor: one.sqnr_db for one in compare_layers(first, second, samples(first, 4), lambda _: None)}


def halved(model: Model) -> Model:
    change = make_pass("prune-channels", {"keep": 0.36, "align": 1, "criterion": "l1", "together": "layer"})
    return change(model, Context.of())


def test_channels_of_a_pruned_model_line_up_with_the_original_s():
    model = three_layers()
    told: list[Progress] = []
    layers = compare_layers(model, halved(model), samples(model, 4), told.append)
    assert [(one.tensor, one.channels, one.of) for one in layers] == [("a", 8, 16), ("c", 8, 16), ("y", 4, 4)]
    assert all(one.sqnr_db == EXACT_DB for one in layers)
    assert [type(one) for one in told] == [Progress] * 4


def test_what_lines_up_wrongly_is_not_exact():
    model = three_layers()
    graph = private_copy(halved(model).graph)
    told = json.loads(graph.metadata_props[KEY])
    told["w1"]["1"] = [[0, 7]]
    graph.metadata_props[KEY] = json.dumps(told)
    found = compared(model, Model(graph))
    assert found["a"] < 20
    assert found["c"] == EXACT_DB


def test_the_layer_that_was_changed_is_the_first_that_differs():
    model = three_layers()
    weight = model.graph.graph.initializers["w2"].const_value.numpy().copy()
    weight[3] *= -1
    found = compared(model, three_layers(w2=weight))
    assert found["a"] == EXACT_DB
    assert found["c"] < 30
    assert found["y"] < 30


def test_a_layer_of_another_shape_is_told_and_the_others_compared():
    model = three_layers()
    graph = private_copy(halved(model).graph)
    del graph.metadata_props[KEY]
    layers = compare_layers(model, Model(graph), samples(model, 2), lambda _: None)
    assert [one.sqnr_db is None for one in layers] == [True, True, False]
    assert layers[0].reason == "it has the shape [2, 8], and the first's is [2, 16]"


def test_convolutions_line_up_by_their_channels():
    graph = private_copy(cnn().graph)
    for name in ("w1", "shift", "mean"):
        weight = graph.graph.initializers[name]
        array = weight.const_value.numpy().copy()
        array[[0, 3, 4]] = 0
        weight.const_value = onnx_ir.tensor(array, name=name)
    pruned = make_pass("prune-channels", {"keep": 0.5, "align": 1})(Model(graph), Context.of())
    found = {one.tensor: one for one in compare_layers(Model(graph), pruned, samples(cnn(), 2), lambda _: None)}
    assert {(one.channels, one.of, one.sqnr_db > 100) for one in found.values()} == {(3, 6, True), (5, 5, True)}


def test_a_model_that_was_pruned_twice_lines_up_with_what_it_was_made_from_and_with_the_first():
    first = mlp(width=32)
    options = {"align": 1, "criterion": "random"}
    once = make_pass("prune-channels", {"keep": 0.75, **options})(first, Context.of())
    twice = make_pass("prune-channels", {"keep": 0.5, **options})(once, Context.of(seed=1))
    assert compared(first, twice)["hidden"] == EXACT_DB
    assert compared(once, twice)["hidden"] == EXACT_DB
    told = compare_layers(twice, once, samples(first, 2), lambda _: None)[0]
    assert (told.sqnr_db, told.reason) == (None, "it keeps channels that the first does not have")


def test_layers_whose_weights_are_quantized_are_compared_and_the_others_told(tmp_path):
    model = mlp(width=32)
    ctx = Context.of(data=samples(model, 8), scratch=tmp_path)
    layers = compare_layers(model, make_pass("quantize-static")(model, ctx), samples(model, 4), lambda _: None)
    assert [one.operator for one in layers] == ["Gemm", "Gemm"]
    assert all(one.sqnr_db is None or 15 < one.sqnr_db < EXACT_DB for one in layers)
    assert any(one.sqnr_db is not None for one in layers)
    assert all(bool(one.reason) == (one.sqnr_db is None) for one in layers)


@pytest.mark.parametrize(
    ("sqnrs", "worst"),
    [((8.0, 9.0, 9.0), 0), ((60.0, 8.0, 7.5), 1), ((EXACT_DB, EXACT_DB), None), ((40.0, None, 12.0), 2), ((), None)],
)
def test_the_layer_that_adds_most_noise_is_named(sqnrs, worst):
    layers = tuple(LayerDrift(f"n{place}", "Conv", "", 1, 1, one) for place, one in enumerate(sqnrs))
    found = Compared(Drift(()), Speedup(1, 1, 1, Verdict.SAME), 1, False, layers).noisiest
    assert (found and found.node) == (None if worst is None else f"n{worst}")


def test_models_without_a_layer_in_common_are_refused():
    with pytest.raises(ModelError, match="no layer that makes a tensor of the same name"):
        compared(three_layers(), mlp())
