"""Exporting torch modules: the opset asked for, every parameter under its name, and parity that can fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install onnxopt[torch]")

from onnxopt.errors import ModelError, OnnxoptError, PassError, UsageError, VerificationError  # noqa: E402
from onnxopt.export import from_torch  # noqa: E402
from onnxopt.export.from_torch import Exported, export_model  # noqa: E402
from onnxopt.export.source import open_source  # noqa: E402
from onnxopt.ir.read import read_model  # noqa: E402
from tests.export import modules  # noqa: E402
from tests.graphs import answers  # noqa: E402

HERE = "tests.export.modules"


def _export(name: str, folder: Path, **options: object) -> Exported:
    return export_model(f"{HERE}:{name}", folder / "model.onnx", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["resnet", "bert"])
def test_a_network_is_exact_at_sizes_that_were_not_traced(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxopt_zoo")
    dynamic = ["batch=1..64"] if name == "resnet" else ["batch=1..64", "seq@input_ids.1,attention_mask.1=1..512"]
    found = export_model(f"onnxopt_zoo.modules:{name}", tmp_path / "model.onnx", dynamic=dynamic, opset=18)
    untraced = [one for one in found.parity if not one.traced]
    assert len(untraced) >= 6
    assert 0 < max(one.error for one in found.parity) <= 1e-4
    assert found.exporter == "dynamo"
    kept, lost = found.parameters
    assert kept
    assert lost == ()


@pytest.mark.parametrize("opset", [17, 18, 21])
def test_the_file_has_the_opset_asked_for(opset: int, tmp_path: Path) -> None:
    found = _export("two_outputs", tmp_path, opset=opset)
    written = onnx.load(tmp_path / "model.onnx")
    assert [entry.version for entry in written.opset_import if entry.domain == ""] == [opset]
    assert found.exporter == "dynamo"


def test_an_opset_dynamo_cannot_reach_is_made_by_torchscript_with_the_reason(tmp_path: Path) -> None:
    found = _export("two_outputs", tmp_path, dynamic=["batch=1..8"], opset=13)
    written = onnx.load(tmp_path / "model.onnx")
    assert [entry.version for entry in written.opset_import if entry.domain == ""] == [13]
    assert found.exporter == "torchscript"
    assert str(found.reason).startswith("dynamo: ")
    _all_parameters_are_apart(found)


def test_equal_parameters_are_not_tied(tmp_path: Path) -> None:
    _all_parameters_are_apart(_export("two_outputs", tmp_path))


def _all_parameters_are_apart(found: Exported) -> None:
    module, _ = modules.two_outputs()
    stored = {name: value.const_value for name, value in found.model.graph.graph.initializers.items()}
    for name, tensor in module.named_parameters():
        value = stored[name]
        assert value is not None
        np.testing.assert_array_equal(value.numpy(), tensor.detach().numpy())
    assert found.parameters[1] == ()


def test_outputs_have_the_names_of_a_dict_and_dimensions_theirs(tmp_path: Path) -> None:
    found = _export("two_outputs", tmp_path, dynamic=["batch=1..8"])
    signature = found.model.signature
    assert [port.name for port in signature.inputs] == ["x"]
    assert [port.name for port in signature.outputs] == ["scores", "probabilities"]
    assert [port.shape for port in signature.outputs] == [("batch", 8), ("batch", 8)]


def test_inputs_stand_in_the_order_of_forward(tmp_path: Path) -> None:
    found = _export("masked", tmp_path, dynamic=["batch=1..8", "length@ids.1,mask.1=1..9"])
    assert [(port.name, port.shape) for port in found.model.signature.inputs] == [
        ("ids", ("batch", "length")),
        ("mask", ("batch", "length")),
    ]


def test_the_file_answers_as_the_module_does(tmp_path: Path) -> None:
    _export("two_outputs", tmp_path, dynamic=["batch=1..8"])
    module, _ = modules.two_outputs()
    x = torch.randn(7, 8)
    have = answers(read_model(tmp_path / "model.onnx"), {"x": x.numpy()})
    for name, tensor in module(x).items():
        np.testing.assert_allclose(have[name], tensor.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_a_module_that_branches_on_values_is_not_exported_wrong(tmp_path: Path) -> None:
    """TorchScript freezes the branch; the example with its sign turned shows it."""
    with pytest.raises(VerificationError, match="output 0 of the exported model differs from the module's by"):
        _export("branch_on_values", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_weight_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = from_torch._with_dynamo

    def wrong(*args: object) -> object:
        graph = right(*args)  # type: ignore[arg-type]
        weight = graph.graph.initializers["second.weight"]
        array = weight.const_value.numpy().copy()
        array[0, 0] *= -1
        weight.const_value = from_torch.onnx_ir.tensor(array, name=weight.name)
        return graph

    monkeypatch.setattr(from_torch, "_with_dynamo", wrong)
    with pytest.raises(VerificationError, match="differs from the module's"):
        _export("two_outputs", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_size_written_into_the_module_is_named(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="the exported model does not run"):
        _export("fixed_reshape", tmp_path, dynamic=["batch=1..8"])
    assert list(tmp_path.iterdir()) == []


def test_a_module_that_leaves_torch_is_not_frozen(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="the exported model takes nothing, the module x"):
        _export("leaves_torch", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_both_exporters_reasons_are_told(tmp_path: Path) -> None:
    with pytest.raises(PassError, match=r"dynamo: .*; torchscript: ") as caught:
        _export("unknown", tmp_path)
    assert caught.value.where == f"{HERE}:unknown"
    assert list(tmp_path.iterdir()) == []


def test_training_mode_is_refused_with_the_submodule(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="1 is in training mode") as caught:
        _export("training", tmp_path)
    assert "eval()" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no_module", r"returned tuple, not \(module, example\)"),
        ("no_tensor", "holds something that is no tensor|the example has 2 tensors"),
        ("too_many", "the example has 2 tensors, forward takes 1: x"),
        ("raises", r"raised FileNotFoundError: best\.ckpt"),
        ("missing", "missing"),
    ],
)
def test_a_source_that_is_none_is_refused(name: str, says: str) -> None:
    with pytest.raises(OnnxoptError, match=says):
        open_source(f"{HERE}:{name}")


def _weights(folder: Path, **changes: object) -> Path:
    module, _ = modules.two_outputs()
    torch.save({**module.state_dict(), **changes}, folder / "weights.pt")
    return folder / "weights.pt"


def test_weights_are_loaded(tmp_path: Path) -> None:
    bias = torch.arange(8.0)
    found = _export("two_outputs", tmp_path, weights=_weights(tmp_path, **{"first.bias": bias}))
    value = found.model.graph.graph.initializers["first.bias"].const_value
    assert value is not None
    np.testing.assert_array_equal(value.numpy(), bias.numpy())


def test_safetensors_are_loaded(tmp_path: Path) -> None:
    files = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    module, _ = modules.two_outputs()
    files.save_file(module.state_dict(), tmp_path / "weights.safetensors")
    source = open_source(f"{HERE}:two_outputs", tmp_path / "weights.safetensors")
    assert torch.equal(source.module.state_dict()["first.weight"], module.state_dict()["first.weight"])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"first.bias": torch.zeros(9)}, "first.bias"),
        ({"third.bias": torch.zeros(8)}, "third.bias"),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_the_name(
    changes: dict[str, torch.Tensor], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=says):
        open_source(f"{HERE}:two_outputs", _weights(tmp_path, **changes))


class _Trap:
    """What a hostile file does when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_nothing_in_a_weights_file_runs(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    with pytest.raises(ModelError, match="it holds the Python object"):
        open_source(f"{HERE}:two_outputs", _weights(tmp_path, trap=_Trap(sprung)))
    assert not sprung.exists()


def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="the weights cannot be read"):
        open_source(f"{HERE}:two_outputs", tmp_path / "weights.pt")
    with pytest.raises(UsageError, match="there is no file"):
        open_source(f"{HERE}:two_outputs", tmp_path / "none.pt")


def _program(folder: Path) -> Path:
    module, example = modules.two_outputs()
    sizes = {"x": {0: torch.export.Dim("batch", min=1, max=8)}}
    program = torch.export.export(module, (example,), dynamic_shapes=sizes)
    torch.export.save(program, folder / "program.pt2")
    return folder / "program.pt2"


def test_an_exported_program_is_exported(tmp_path: Path) -> None:
    found = export_model(str(_program(tmp_path)), tmp_path / "model.onnx")
    assert [port.name for port in found.model.signature.inputs] == ["x"]
    module, _ = modules.two_outputs()
    x = torch.randn(5, 8)
    have = answers(read_model(tmp_path / "model.onnx"), {"x": x.numpy()})
    np.testing.assert_allclose(next(iter(have.values())), module(x)["scores"].detach().numpy(), rtol=1e-4, atol=1e-5)


def test_a_program_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "program.pt2"
    path.write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(ModelError, match="is no exported program"):
        open_source(str(path))
    with pytest.raises(UsageError, match="there is no file"):
        open_source(str(tmp_path / "none.pt2"))
