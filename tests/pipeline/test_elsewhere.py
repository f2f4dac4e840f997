"""Models made for a machine that is not this one: what saturates there is found, what was not measured is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from onnxopt.api import quantize_model
from onnxopt.data.files import write_samples
from onnxopt.data.sample import InMemory, Sample
from onnxopt.errors import UsageError
from onnxopt.ir.model import Model
from onnxopt.ir.read import read_model
from onnxopt.ir.weights import constant_tensor
from onnxopt.passes import make_pass
from onnxopt.pipeline.candidates import SCHEMES, scheme_steps
from onnxopt.pipeline.optimize import Result
from onnxopt.targets import target as targets
from onnxopt.targets.target import target, target_names
from onnxopt.targets.ways import find_way, schemes_of
from tests.graphs import from_text, saved

F32 = np.float32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A first layer whose weights are all near the largest; a second that looks at one number at a time."""
    folder = tmp_path_factory.mktemp("elsewhere")
    random = np.random.default_rng(3)
    model = from_text(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[n, 32] x) => (float[n, 16] y) {
            [same] a = MatMul (x, w) b = Relu (a) [single] y = MatMul (b, v)
        }""",
        {"w": random.uniform(0.9, 1, (32, 16)).astype(F32), "v": np.diag(random.uniform(0.5, 1, 16)).astype(F32)},
    )
    saved(model, folder / "model.onnx")
    for part in ("calibration", "evaluation"):
        rows = (random.uniform(0.5, 1, (24, 8, 32)) * random.uniform(0.3, 1, (24, 8, 1))).astype(F32)
        write_samples(InMemory(tuple(Sample(str(i), {"x": one}) for i, one in enumerate(rows))), folder / "data" / part)
    return folder


def made(folder: Path, name: str, scheme: str = "int8", **options: object) -> tuple[Result, Path]:
    out = folder / f"{name}-{scheme}.onnx"
    told = {"data": str(folder / "data"), "cache": folder / "cache", **options}
    return quantize_model(folder / "model.onnx", out, scheme=scheme, target=name, **told), out  # type: ignore[arg-type]


def largest_weights(model: Model) -> dict[str, int]:
    """Return the largest stored weight of each layer, by name."""
    found = {}
    for node in model.graph.graph:
        up = node.inputs[1].producer() if len(node.inputs) > 1 and node.inputs[1] is not None else None
        stored = constant_tensor(up.inputs[0]) if node.op_type == "MatMul" and up is not None else None
        if stored is not None:
            found[node.name or ""] = int(np.abs(stored.numpy().astype(int)).max())
    return found


def test_the_layer_that_saturates_without_vnni_gets_7_bits_and_no_other(folder: Path) -> None:
    result, out = made(folder, "x86-avx2")
    assert largest_weights(read_model(out)) == {"same": 63, "single": 127}
    told = json.loads(result.record.to_json())
    row = told["target"]
    assert (row["name"], row["runtime"], row["speed_measured"]) == ("x86-avx2", "ort", False)
    assert [one["layer"] for one in row["narrowed"]] == ["same"]
    assert row["narrowed"][0]["share"] > 0.3
    assert row["narrowed"][0]["sqnr_db"] < row["narrowed"][0]["narrow_db"]
    assert told["best"]["steps"][-1]["options"]["narrow"] == ["same"]
    notes = "\n".join(told["notes"])
    assert "speed on x86-avx2 was not measured; accuracy was judged here, in ort" in notes
    assert "7-bit weights for 'same'" in notes


def test_nothing_is_timed_and_everything_is_scored(folder: Path) -> None:
    result, _ = made(folder, "x86-avx512-vnni")
    for one in (result.record.baseline, result.record.best):
        assert (one.timing, one.speedup) == (None, None)
        assert one.scores is not None


def test_with_vnni_all_weights_keep_8_bits(folder: Path) -> None:
    result, _ = made(folder, "x86-avx512-vnni")
    assert largest_weights(read_model(result.chosen.file.path)) == {"same": 127, "single": 127}
    assert "narrowed" not in result.record.target


def test_tensorrt_gets_zero_points_of_0_and_is_judged_in_onnx_runtime(folder: Path) -> None:
    result, _ = made(folder, "nvidia-t4")
    quantizers = [node for node in read_model(result.chosen.file.path).graph.graph if node.op_type == "QuantizeLinear"]
    zeros = [constant_tensor(node.inputs[2]) for node in quantizers]
    assert zeros
    assert {(zero.dtype.name, int(zero.numpy())) for zero in zeros if zero is not None} == {("INT8", 0)}
    assert (result.record.target["runtime"], result.record.best.runtime) == ("tensorrt", "ort")


def test_a_missed_budget_writes_nothing(folder: Path) -> None:
    result, out = made(folder, "arm64-dot", min_sqnr=90.0)
    assert "the result loses too much" in (result.record.shortfall or "")
    assert not out.exists()


def test_that_sums_saturate_in_one_place_only_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "sums of products do not saturate here and may there: the accuracy told is of this machine"
    for isa, known in ((("avx2", "avx512-vnni"), True), (("neon",), True), (("avx2",), False)):
        here = targets.local_target()
        monkeypatch.setattr("onnxopt.pipeline.elsewhere.local_target", lambda here=here, isa=isa: _with(here, isa))
        assert (text in made(folder, "x86-avx2")[0].record.notes) is known


def _with(row: targets.Target, isa: tuple[str, ...]) -> targets.Target:
    return targets.Target(row.name, row.device, isa, row.runtimes, row.precisions, row.max_opset)


@pytest.mark.parametrize(
    ("name", "scheme", "what", "hint"),
    [
        ("x86-avx2", "auto", "cannot be measured on this machine", "choose a scheme: int8, mixed, int8-dynamic"),
        ("x86-avx3", "int8", "there is no target 'x86-avx3'", "did you mean 'x86-avx2'?"),
        ("nvidia-t4", "bf16", "does not run scheme 'bf16'", "what runs there: int8 in tensorrt"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(
    folder: Path, name: str, scheme: str, what: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        made(folder, name, scheme)
    assert what in caught.value.what
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("name", [name for name in target_names() if name != "local"])
def test_every_way_is_a_scheme_whose_pass_has_the_options(name: str) -> None:
    row = target(name)
    for runtime in row.runtimes:
        for scheme in schemes_of(row, runtime):
            way = find_way(row, runtime, scheme)
            last, options = scheme_steps(scheme, runtime=runtime, **way.options)[-1]
            assert last == SCHEMES[scheme]
            assert way.options.items() <= make_pass(last, options).options.items()
