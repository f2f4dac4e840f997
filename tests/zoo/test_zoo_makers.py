"""The makers' networks with random weights: they load what is saved under their names, and export what they compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from onnxopt_zoo.taken import Taken

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def _made(make: Callable[[Taken, Path], None], weights: Any, tmp_path: Path) -> Path:
    torch.save(weights, tmp_path / "weights.pt")
    make(Taken(tmp_path / "weights.pt", {}), tmp_path / "model.onnx")
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)
    return tmp_path / "model.onnx"


def _run(model: Path, inputs: Mapping[str, Any]) -> list[Any]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return list(session.run(None, {name: np.asarray(value) for name, value in inputs.items()}))


def _agree(network: Any, model: Path, inputs: Mapping[str, Any]) -> None:
    """Compare on a batch and a size that the export was not traced with."""
    with torch.inference_mode():
        expected = network.eval()(*inputs.values())
    expected = expected if isinstance(expected, tuple) else (expected,)
    for got, wanted in zip(_run(model, inputs), expected, strict=True):
        np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-3, atol=1e-4)


def test_mobilenet_v2(tmp_path: Path) -> None:
    from onnxopt_zoo.makers import mobilenet_v2

    network = mobilenet_v2.build()
    assert sum(parameter.numel() for parameter in network.parameters()) == 3_504_872
    model = _made(mobilenet_v2.make, network.state_dict(), tmp_path)
    _agree(network, model, {"input": torch.rand(2, 3, 224, 224)})
    assert sum(node.op_type == "Conv" for node in onnx.load(model).graph.node) == 52


def test_resemblyzer(tmp_path: Path) -> None:
    from onnxopt_zoo.makers.resemblyzer import VoiceEncoder, make

    network = VoiceEncoder()
    state = {**network.state_dict(), "similarity_weight": torch.ones(1), "similarity_bias": torch.ones(1)}
    model = _made(make, {"model_state": state, "step": 1}, tmp_path)
    _agree(network, model, {"mels": torch.rand(3, 77, 40)})


@pytest.mark.parametrize(
    ("name", "network", "size"), [("pnet", "_PNet", (40, 56)), ("rnet", "_RNet", (24, 24)), ("onet", "_ONet", (48, 48))]
)
def test_mtcnn(name: str, network: str, size: tuple[int, int], tmp_path: Path) -> None:
    from onnxopt_zoo.makers import mtcnn

    built = getattr(mtcnn, network)()
    model = _made(getattr(mtcnn, f"make_{name}"), built.state_dict(), tmp_path)
    _agree(built, model, {"image" if name == "pnet" else "crops": torch.rand(2, 3, *size)})


def test_crepe(tmp_path: Path) -> None:
    from onnxopt_zoo.makers.crepe import Crepe, make

    network = Crepe()
    model = _made(make, network.state_dict(), tmp_path)
    _agree(network, model, {"frames": torch.rand(3, 1024)})


def test_xfeat(tmp_path: Path) -> None:
    from onnxopt_zoo.makers.xfeat import XFeat, make

    network = XFeat()
    model = _made(make, {**network.state_dict(), "fine_matcher.0.weight": torch.ones(1)}, tmp_path)
    _agree(network, model, {"image": torch.rand(2, 3, 64, 160)})


def test_fashion_trains_the_same_each_time() -> None:
    from onnxopt_zoo.makers import fashion

    images, labels = torch.rand(512, 1, 28, 28), torch.randint(0, 10, (512,))
    before = torch.get_num_threads(), torch.random.get_rng_state()
    trained = []
    for _ in range(2):
        with fashion._repeatable():
            network = fashion.build()
            fashion._train(network, images, labels)
        trained.append(network.state_dict())
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.random.get_rng_state(), before[1])


def test_unsafe_checkpoints_are_refused(tmp_path: Path) -> None:
    from onnxopt_zoo.makers.torch_export import load_weights

    torch.save({"weights": Path("a path is no tensor")}, tmp_path / "weights.pt")
    with pytest.raises(Exception, match="weights_only"):
        load_weights(tmp_path / "weights.pt")


def test_smollm2_steps_as_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One layer of the decoder gives the same logits for a text at once and for its two halves with the cache."""
    pytest.importorskip("gguf", reason="needs the [zoo] extra")
    from onnxopt_zoo.makers import smollm2

    monkeypatch.setattr(smollm2, "LAYERS", 1)
    monkeypatch.setattr(smollm2, "_VOCABULARY", 50)
    weights = smollm2.Decoder(1).state_dict()
    monkeypatch.setattr(smollm2, "read_weights", lambda _file: weights)
    smollm2.make(Taken(tmp_path, {}), tmp_path / "model.onnx")
    ids = np.array([[3, 1, 4, 1, 5, 9]])
    empty = np.zeros((1, 3, 0, 64), np.float32)
    whole = _run(tmp_path / "model.onnx", {"input_ids": ids, "past.0.key": empty, "past.0.value": empty})
    first = _run(tmp_path / "model.onnx", {"input_ids": ids[:, :4], "past.0.key": empty, "past.0.value": empty})
    rest = {"input_ids": ids[:, 4:], "past.0.key": first[1], "past.0.value": first[2]}
    np.testing.assert_allclose(_run(tmp_path / "model.onnx", rest)[0], whole[0][:, 4:], atol=1e-4)


def test_smollm2_turns_rows_for_halves() -> None:
    pytest.importorskip("gguf", reason="needs the [zoo] extra")
    from onnxopt_zoo.makers import smollm2

    rows = torch.arange(128.0)[:, None].expand(128, 576)
    turned = smollm2._half_rotation(rows)[:, 0].tolist()
    assert turned[:3] == [0.0, 2.0, 4.0]
    assert turned[32:35] == [1.0, 3.0, 5.0]
    assert turned[64] == 64.0


def test_minilm_gives_the_last_hidden_state(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the [zoo] extra")
    from onnxopt_zoo.makers.minilm import make

    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=50
    )
    network = transformers.BertModel(config, add_pooling_layer=False).eval()
    network.save_pretrained(tmp_path)
    make(Taken(tmp_path / "model.safetensors", {}), tmp_path / "model.onnx")
    ids = torch.randint(0, 50, (3, 5))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    with torch.inference_mode():
        expected = network(**inputs).last_hidden_state.numpy()
    np.testing.assert_allclose(_run(tmp_path / "model.onnx", inputs)[0], expected, atol=1e-4)


def test_centerface_gets_free_sizes(tmp_path: Path) -> None:
    from onnxopt_zoo.makers.centerface import make

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [10, 3, 32, 32]) for name in ("image", "y")]
    scale = helper.make_tensor("scale", TensorProto.FLOAT, [1], [2.0])
    declared = helper.make_tensor_value_info("scale", TensorProto.FLOAT, [1])
    node = helper.make_node("Mul", ["image", "scale"], ["y"])
    graph = helper.make_graph([node], "g", [values[0], declared], [values[1]], [scale], value_info=[])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=4), tmp_path / "in.onnx")
    make(Taken(tmp_path / "in.onnx", {}), tmp_path / "model.onnx")
    assert _run(tmp_path / "model.onnx", {"image": np.ones((1, 3, 64, 96), np.float32)})[0].shape == (1, 3, 64, 96)
