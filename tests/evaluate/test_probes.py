"""Feeds that show a changed model up: real, made up, and of other sizes."""

from __future__ import annotations

import numpy as np
import pytest

from onnxopt.data.sample import InMemory, Sample
from onnxopt.evaluate.probes import probes
from tests.graphs import from_text, mlp, samples


def test_real_samples_are_spread_over_all_of_them() -> None:
    names = [probe.name for probe in probes(mlp(), samples(mlp(), 10))]
    assert names[:4] == ["sample 0", "sample 3", "sample 6", "sample 9"]
    assert names[4:7] == ["synthetic[0]"] * 3
    assert names[7:] == ["sample 0, twice along 'batch'"]


def test_few_samples_are_used_once_each() -> None:
    names = [probe.name for probe in probes(mlp(), samples(mlp(), 2))]
    assert names[:2] == ["sample 0", "sample 1"]
    assert len(names) == 2 + 3 + 1


def test_made_up_feeds_have_the_shapes_of_real_ones_and_differ() -> None:
    found = probes(mlp(), samples(mlp(), 1, batch=5))
    made = [probe.feeds["x"] for probe in found if probe.name == "synthetic[0]"]
    assert [array.shape for array in made] == [(5, 8)] * 3
    assert len({array.tobytes() for array in made}) == 3


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ("float[n, s] x, float[n, 4] z", ["n", "s"]),
        ("float[?, 3] x, float[?, 4] z", ["x.0", "z.0"]),
        ("float[2, 3] x", []),
    ],
    ids=["named", "unnamed", "fixed"],
)
def test_each_free_dimension_is_doubled_alone(inputs: str, told: list[str]) -> None:
    text = f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => (int64[k] y) {{ y = Shape (x) }}'
    model = from_text(text)
    data = samples(model, 1)
    real = data[0].feeds
    resized = {p.name: p.feeds for p in probes(model, data) if "twice" in p.name}
    assert list(resized) == [f"sample 0, twice along {name!r}" for name in told]
    for name, feeds in zip(told, resized.values(), strict=True):
        for port in model.signature.inputs:
            want = [
                size * (2 if name in (dim, f"{port.name}.{axis}") else 1)
                for axis, (dim, size) in enumerate(zip(port.shape or (), real[port.name].shape, strict=True))
            ]
            assert list(feeds[port.name].shape) == want


def test_a_resized_sample_repeats_real_content() -> None:
    data = samples(mlp(), 1)
    doubled = probes(mlp(), data)[-1].feeds["x"]
    np.testing.assert_array_equal(doubled, np.concatenate([data[0].feeds["x"]] * 2))


def test_without_samples_made_up_ones_are_resized() -> None:
    assert [p.name for p in probes(mlp(), None)] == ["synthetic[0]"] * 3 + ["synthetic[0], twice along 'batch'"]


def test_inputs_nothing_can_be_made_up_for_give_no_probes() -> None:
    model = from_text('<ir_version: 8, opset_import: ["" : 17]> g (string[n] s) => (string[n] t) { t = Identity (s) }')
    assert probes(model, None) == ()
    real = InMemory((Sample("real", {"s": np.array(["a", "b"], object)}),))
    assert [p.feeds["s"].tolist() for p in probes(model, real)] == [["a", "b"], ["a", "b", "a", "b"]]
