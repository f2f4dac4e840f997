"""Made-up feeds fit the model, and never ask an embedding for a row it does not have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxopt.data.sample import Sample, Samples
from onnxopt.data.split import check_samples
from onnxopt.data.synthetic import Synthetic, index_limits
from onnxopt.errors import DataError
from onnxopt.ir.model import Model
from tests.graphs import cnn, from_text, mlp

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
TABLE = np.zeros((7, 3), np.float32)


def _open(model: Model, **options: Any) -> Samples:
    return Synthetic(**options).open(model, Path())


def _first(interface: str, **options: Any) -> Sample:
    return _open(
        from_text(f"{HEAD} g ({interface}) => (float y) {{ y = Constant <value_float = 1.0> () }}"), **options
    )[0]


def _embedding(body: str, weights: dict[str, Any] | None = None) -> Model:
    return from_text(f"{HEAD} g (int64[batch, s] ids) => (float[a, b, c] y) {{ {body} }}", weights or {"table": TABLE})


@pytest.mark.parametrize("model", [mlp(), cnn(), _embedding("y = Gather (table, ids)")])
def test_feeds_fit_the_model(model: Model) -> None:
    samples = _open(model, synthetic=5)

    check_samples(samples, model.signature)
    assert len(samples) == 5
    assert samples.synthetic
    assert len({sample.digest() for sample in samples}) == 5


def test_floats_are_standard_normal() -> None:
    array = _first("float[1, 100, 100] x").feeds["x"]

    assert abs(array.mean()) < 0.05
    assert abs(array.std() - 1) < 0.05


@pytest.mark.parametrize(
    ("interface", "dtype", "values"),
    [
        ("bool[64] x", "bool", {False, True}),
        ("int32[64] x", "int32", {0, 1}),
        ("uint8[64] x", "uint8", {0, 1}),
        ("int64[64] attention_mask", "int64", {1}),
        ("int8[64] Mask", "int8", {1}),
    ],
)
def test_whole_numbers(interface: str, dtype: str, values: set[int]) -> None:
    (array,) = _first(interface).feeds.values()

    assert array.dtype == dtype
    assert set(array.tolist()) == values


@pytest.mark.parametrize("dtype", ["float16", "double"])
def test_other_floats(dtype: str) -> None:
    array = _first(f"{dtype}[64] x").feeds["x"]

    assert array.dtype == {"double": np.float64}.get(dtype, np.float16)
    assert np.ptp(array) > 1


def test_seeds() -> None:
    first = _open(mlp(), synthetic=3)

    assert _open(mlp(), synthetic=3).fingerprint == first.fingerprint
    assert _open(mlp(), synthetic=3, seed=1).fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("interface", "options", "shape"),
    [
        ("float[batch, 3, h, w] x", {}, (1, 3, 32, 32)),
        ("float[batch, 3, h, w] x", {"dims": {"batch": 2, "h": 5}}, (2, 3, 5, 32)),
        ("float[?, ?] x", {}, (1, 32)),
        ("float[?, ?] x", {"dims": {"x.1": 9}}, (1, 9)),
        ("float[h, w] x", {"dims": {"w": 4, "x.1": 6}}, (1, 6)),
        ("float[t, batch_size, n, unk__12] x", {"dims": {"t": 4}}, (4, 1, 1, 1)),
        ("float[1, num_boxes, bins, N] x", {}, (1, 32, 32, 1)),
    ],
)
def test_sizes_of_dimensions(interface: str, options: dict[str, Any], shape: tuple[int, ...]) -> None:
    assert _first(interface, **options).feeds["x"].shape == shape


@pytest.mark.parametrize(
    ("dims", "what", "hint"),
    [
        ({"heigth": 3}, "no input has a dimension 'heigth'", "did you mean 'height'?"),
        ({"x.4": 3}, "no input has a dimension 'x.4'", "did you mean 'x."),
        ({"height": -1}, "the dimension 'height' cannot be -1", ""),
    ],
)
def test_sizes_that_make_no_sense(dims: dict[str, int], what: str, hint: str) -> None:
    with pytest.raises(DataError) as caught:
        _first("float[1, 3, height] x", dims=dims)
    assert caught.value.what == what
    assert (caught.value.hint or "").startswith(hint)


@pytest.mark.parametrize(
    "body",
    [
        "y = Gather (table, ids)",
        "c = Cast <to = 6> (ids) y = Gather (table, c)",
        "t = Transpose (ids) r = Reshape (t, shape) y = Gather (table, r)",
        "y = Gather <axis = 1> (wide, ids)",
        "a = Gather (large, ids) b = Gather (table, ids) y = Concat <axis = 0> (a, b)",
    ],
)
def test_ids_stay_below_the_rows_of_the_table(body: str) -> None:
    weights = {"table": TABLE, "wide": TABLE.T.copy(), "large": np.zeros((99, 3), "f4"), "shape": np.array([1, -1])}
    model = _embedding(body, weights)

    assert index_limits(model.graph) == {"ids": 7}
    ids = np.concatenate([sample.feeds["ids"].reshape(-1) for sample in _open(model, synthetic=50)])
    assert (ids.min(), ids.max()) == (0, 6)


@pytest.mark.parametrize(
    "body",
    [
        "f = Cast <to = 1> (ids) y = Gather (f, one)",
        "y = Gather (table, one)",
        "o = Add (ids, one) y = Gather (table, o)",
    ],
)
def test_inputs_that_index_no_table_directly(body: str) -> None:
    assert index_limits(_embedding(body, {"table": TABLE, "one": np.array([1])}).graph) == {}


def test_tables_inside_branches_count() -> None:
    model = from_text(
        f"""{HEAD} g (bool c, int64[s] ids) => (float[a, b] y) {{
            y = If (c) <then_branch = t () => (float[a, b] u) {{ u = Gather (table, ids) }},
                        else_branch = e () => (float[a, b] v) {{ v = Gather (large, ids) }}>
        }}""",
        {"table": TABLE, "large": np.zeros((99, 3), "f4")},
    )

    assert index_limits(model.graph) == {"ids": 7}


@pytest.mark.parametrize(
    ("interface", "what", "where"),
    [
        ("string[2] words", "cannot make up feeds of type string", "input 'words'"),
        ("bfloat16[2] x", "cannot make up feeds of type bfloat16", "input 'x'"),
        ("seq(float[2]) s", "cannot make up feeds of type sequence<float32>", "input 's'"),
    ],
)
def test_what_cannot_be_made_up(interface: str, what: str, where: str) -> None:
    with pytest.raises(DataError) as caught:
        _first(interface)
    assert (caught.value.what, caught.value.where, caught.value.hint) == (what, where, "give real samples: --data")


def test_an_unknown_rank() -> None:
    model = mlp()
    model.graph.graph.inputs[0].shape = None

    with pytest.raises(DataError, match="the rank of input 'x' is unknown"):
        _open(model)
