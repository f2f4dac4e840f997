from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper
from zoo_stand_ins import Registry, described, refuse, wheel

import onnxopt_zoo
from onnxopt.errors import MissingExtraError, OutputError
from onnxopt_zoo import ZooFiles, ZooModel, assembly
from onnxopt_zoo.assembly import assemble
from onnxopt_zoo.errors import IntegrityError
from onnxopt_zoo.files import sha256_of
from onnxopt_zoo.manifest import Manifest
from onnxopt_zoo.taken import Taken


@dataclass
class Zoo:
    """A zoo of one model, whose network is the identity and whose samples are synthesized tones."""

    entry: ZooModel
    registry: Registry
    folder: Path

    def get(self, entry: ZooModel | None = None, *, run: Any = None, samples: bool = True) -> ZooFiles:
        return assemble(
            entry or self.entry,
            self.folder / "out",
            cache=self.folder / "cache",
            samples=samples,
            progress=print,
            run=run or self.registry,
        )

    @property
    def receipt(self) -> dict[str, Any]:
        loaded = yaml.safe_load((self.folder / "out/zoo.yaml").read_text())
        assert isinstance(loaded, dict)
        return loaded


def _identity() -> bytes:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1024]) for name in ("frames", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["frames"], ["y"])], "g", values[:1], values[1:])
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())


def _fields(model: bytes, tmp_path: Path) -> Mapping[str, Any]:
    (tmp_path / "model").write_bytes(model)
    return {
        "id": "tiny",
        "family": "identity",
        "package": "tiny",
        "path": "tiny/model.onnx",
        "sha256": sha256_of(tmp_path / "model"),
        "obtained": "as-is",
        "licence": "MIT",
        "opset": 17,
        "megabytes": 0.1,
        "inputs": "frames",
        "notes": "none",
        "task": {
            "samples": "onnxopt_zoo.tasks.pitch:tones",
            "metric": "onnxopt_zoo.tasks.pitch:within_half_a_semitone",
            "measures": "nothing",
            "calibration": 128,
            "evaluation": 200,
        },
    }


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Zoo:
    archive = wheel({"tiny/model.onnx": _identity()})
    package = described(archive, "tiny-1.0-py3-none-any.whl", tmp_path)
    entry = ZooModel.model_validate(_fields(_identity(), tmp_path))
    manifest = Manifest(packages={"tiny": package}, models=(entry,))
    monkeypatch.setattr(assembly, "load_manifest", lambda: manifest)
    return Zoo(entry, Registry({package.archive: archive}), tmp_path)


def test_a_folder_has_the_model_the_samples_and_what_is_known(zoo: Zoo) -> None:
    files = zoo.get()
    assert files.model.read_bytes() == _identity()
    assert files.metric == zoo.entry.task.metric
    for folder, count in ((files.calibration, 128), (files.evaluation, 200)):
        assert folder is not None
        assert len(list(folder.glob("*.npz"))) == count
    with np.load(zoo.folder / "out/evaluation/0000.npz") as sample:
        assert sample["frames"].shape == (1, 1024)
    receipt = zoo.receipt
    assert receipt["id"] == "tiny"
    assert receipt["goal"] == "maximize"
    assert receipt["model"]["sha256"] == zoo.entry.sha256
    assert receipt["evaluation"]["samples"] == 200
    assert [package["version"] for package in receipt["packages"]] == ["1.0"]


def test_a_second_call_does_nothing(zoo: Zoo) -> None:
    zoo.get()
    before = {path: path.stat().st_mtime_ns for path in (zoo.folder / "out").rglob("*")}
    assert zoo.get(run=refuse) == zoo.get(run=refuse)
    assert {path: path.stat().st_mtime_ns for path in (zoo.folder / "out").rglob("*")} == before


def test_with_a_filled_cache_no_process_is_started(zoo: Zoo) -> None:
    zoo.get()
    for path in (zoo.folder / "out").rglob("*.npz"):
        path.unlink()
    assert zoo.get(run=refuse).evaluation == zoo.folder / "out/evaluation"
    assert (zoo.folder / "out/evaluation/0199.npz").is_file()


@pytest.mark.parametrize("name", ["model.onnx", "calibration/0003.npz", "zoo.yaml"])
def test_a_changed_file_is_written_again(zoo: Zoo, name: str) -> None:
    zoo.get()
    file = zoo.folder / "out" / name
    right = file.read_bytes()
    file.write_bytes(b"key: [")
    zoo.get(run=refuse)
    assert file.read_bytes() == right


def test_the_model_alone(zoo: Zoo) -> None:
    assert zoo.get(samples=False) == ZooFiles(zoo.folder / "out/model.onnx", None, None, zoo.entry.task.metric)
    assert sorted(path.name for path in (zoo.folder / "out").iterdir()) == ["model.onnx", "zoo.yaml"]
    assert zoo.get(samples=True).evaluation
    assert zoo.get(samples=False, run=refuse).evaluation is None
    assert (zoo.folder / "out/evaluation").is_dir()


def test_something_else_is_not_overwritten(zoo: Zoo) -> None:
    (zoo.folder / "out").mkdir()
    (zoo.folder / "out/thesis.txt").touch()
    with pytest.raises(OutputError, match="something else") as raised:
        zoo.get()
    assert raised.value.where == str(zoo.folder / "out")
    (zoo.folder / "out/thesis.txt").unlink()
    assert zoo.get().model.is_file()


def test_another_model_file_than_pinned_is_refused(zoo: Zoo) -> None:
    other = zoo.entry.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(IntegrityError, match="tiny has SHA-256"):
        zoo.get(other)
    assert not (zoo.folder / "out").exists()


def test_a_missing_module_is_named_with_its_extra(zoo: Zoo) -> None:
    needy = zoo.entry.model_copy(update={"needs": ("no_such_module",)})
    with pytest.raises(MissingExtraError, match="no_such_module") as raised:
        zoo.get(needy)
    assert raised.value.hint == 'pip install "onnxopt[zoo]"'


def test_samples_that_cannot_be_built_leave_the_old_folder(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    zoo.get()
    before = zoo.receipt

    def interrupted(*_arguments: object) -> Sequence[object]:
        raise KeyboardInterrupt

    monkeypatch.setattr("onnxopt_zoo.samples.write_samples", interrupted)
    with pytest.raises(KeyboardInterrupt):
        zoo.get(zoo.entry.model_copy(update={"notes": "changed"}))
    assert zoo.receipt == before
    assert sorted(path.name for path in zoo.folder.glob(".out*")) == []


def test_a_made_model_is_kept_in_the_cache(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []

    def make(taken: Taken, out: Path) -> None:
        made.append(taken.file)
        model = onnx.load(taken.file)
        model.producer_name = "maker"
        onnx.save(model, out)

    monkeypatch.setattr("onnxopt_zoo.makers.centerface.make", make)
    entry = zoo.entry.model_copy(update={"obtained": "rewrite", "maker": "onnxopt_zoo.makers.centerface:make"})
    model = zoo.get(entry, samples=False).model
    assert onnx.load(model).producer_name == "maker"
    model.unlink()
    zoo.get(entry, samples=False)
    assert len(made) == 1
    next((zoo.folder / "cache/made").rglob("model.onnx")).write_bytes(b"damaged")
    model.unlink()
    zoo.get(entry, samples=False)
    assert len(made) == 2
    assert onnx.load(model).producer_name == "maker"


def test_the_public_function_takes_an_id(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxopt_zoo.manifest.load_manifest", assembly.load_manifest)
    zoo.get()
    files = onnxopt_zoo.get("tiny", zoo.folder / "out", cache=zoo.folder / "cache")
    assert files.model == zoo.folder / "out/model.onnx"
