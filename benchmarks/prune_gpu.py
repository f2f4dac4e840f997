"""Where zeros and missing channels gain on an NVIDIA GPU: 2:4 weights on tensor cores, and a half-wide ResNet-50.

The weights are what ``prune-n-m`` and ``prune-channels`` make; torch runs them in float16, the sparse ones through
cuSPARSELt, as TensorRT does. Dense and pruned run in turn on one stream, each round giving one ratio. The products are
checked against the dense product of the same zeros. Needs CUDA, and onnx2torch for the network.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import torch

import onnxopt_zoo
from onnxopt.context import Context
from onnxopt.explain.prunable import find_prunable
from onnxopt.ir.layer_weights import replace_constant
from onnxopt.ir.model import Model, normalise, private_copy
from onnxopt.ir.read import read_model
from onnxopt.ir.weights import constant_tensor
from onnxopt.ir.write import write_model
from onnxopt.passes import make_pass
from onnxopt.profile.statistics import Speedup, speedup
from onnxopt.prune.groups import prepared

SHAPES = ((768, 3072), (1024, 4096), (4096, 4096), (4096, 11008))
"""Inputs and outputs of a layer: feed-forward of BERT-base and -large, and products of LLaMA-7B."""

ROWS = (256, 4096)
_ROUNDS = 44
_WARMING = 4
"""Rounds that do not count."""

_RUNS = 10
"""In a graph that is timed as a whole."""

_TOLERANCE = 2e-3
"""Of the norm of a product in float16 with sums in float32."""


@dataclass(frozen=True)
class Row:
    """A comparison.

    Attributes:
        what: Was pruned.
        rows: Vectors multiplied, or pictures.
        error: Of the pruned, as a share of the norm; None where it computes something else.
        speedup: Over the dense one.
    """

    what: str
    rows: int
    error: float | None
    speedup: Speedup


def main() -> None:
    """Measure, and print a line a comparison."""
    options = _options()
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device: this benchmark runs where there is one")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    rows = []
    for row in chain(_products(), _network(options)):
        rows.append(row)
        error = "" if row.error is None else f", error {row.error:.1e}"
        print(f"{row.what}, {row.rows} rows: {row.speedup}{error}", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, default=Path("build/zoo"), help="folder of models")
    parser.add_argument("--downloads", type=Path, default=Path.home() / ".cache/onnxopt/zoo", help="folder of packages")
    parser.add_argument("--model", type=Path, help="the network, in place of the zoo's light_resnet50")
    parser.add_argument("--pictures", type=int, default=512, help="in a batch of the network")
    parser.add_argument("--out", type=Path, default=Path("build/prune_gpu.json"), help="file for all figures")
    return parser.parse_args()


def _products() -> Iterator[Row]:
    """Yield products with dense weights beside those of which two of four are zero."""
    for inputs, outputs in SHAPES:
        dense, pruned = _weights(inputs, outputs)
        sparse = torch.sparse.to_sparse_semi_structured(pruned)
        for rows in ROWS:
            x = torch.randn(rows, inputs, dtype=torch.float16, device="cuda")
            wanted = x.double() @ pruned.double().T
            made = torch.nn.functional.linear(x, sparse)
            error = float((made.double() - wanted).norm() / wanted.norm())
            if not error < _TOLERANCE:
                raise SystemExit(f"{inputs} x {outputs}: the sparse product is off by {error:.1e} of its norm")
            found = _compared(_replayed(_linear(x, dense)), _replayed(_linear(x, sparse)))
            yield Row(f"2:4 zeros, {inputs} to {outputs}", rows, error, found)


def _weights(inputs: int, outputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weight of a product before and after ``prune-n-m``, [outputs, inputs], float16, on the device."""
    random = np.random.default_rng(0)
    weight = (random.standard_normal((inputs, outputs)) / inputs**0.5).astype(np.float32)
    value = onnx_ir.Value(name="x", shape=onnx_ir.Shape([1, inputs]), type=onnx_ir.TensorType(onnx_ir.DataType.FLOAT))
    stored = onnx_ir.Value(name="w", const_value=onnx_ir.tensor(weight, name="w"))
    node = onnx_ir.node("MatMul", [value, stored], name="product")
    graph = onnx_ir.Graph([value], node.outputs, nodes=[node], initializers=[stored], opset_imports={"": 17})
    graph.outputs[0].name, graph.outputs[0].dtype = "y", onnx_ir.DataType.FLOAT
    graph.outputs[0].shape = onnx_ir.Shape([1, outputs])
    model = onnx_ir.Model(graph, ir_version=8)
    normalise(model)
    pruned = make_pass("prune-n-m")(Model(model), Context.of()).graph.graph.initializers["w"].const_value
    assert pruned is not None
    first, second = (torch.from_numpy(array.T.copy()).half().cuda() for array in (weight, pruned.numpy()))
    return first, second


def _linear(x: torch.Tensor, weight: torch.Tensor) -> Callable[[], Any]:
    return lambda: torch.nn.functional.linear(x, weight)


def _network(options: argparse.Namespace) -> Iterator[Row]:
    """Yield a network beside itself at half of the multiply-accumulates; weights are made up."""
    from onnx2torch import convert

    folder, name = options.zoo / "light_resnet50", "light_resnet50"
    place = options.model or onnxopt_zoo.get(name, folder, cache=options.downloads).model
    model = Model(prepared(make_pass("freeze-weights")(read_model(place), Context.of()).graph))
    pruned = make_pass("prune-channels", {"keep": 0.5, "criterion": "l2"})(model, Context.of())
    options.out.parent.mkdir(parents=True, exist_ok=True)
    networks = []
    for word, one in (("dense", model), ("half", pruned)):
        file = write_model(_of_any_batch(one), options.out.parent / f"gpu-{word}.onnx")[0]
        network = _with_random_weights(convert(str(file)).eval()).half().cuda()
        networks.append(network.to(memory_format=torch.channels_last))
    shape = [dim for dim in model.signature.inputs[0].shape or () if isinstance(dim, int)]
    x = torch.randn(options.pictures, *shape[-3:], dtype=torch.float16, device="cuda")
    x = x.to(memory_format=torch.channels_last)
    before, after = networks
    with torch.inference_mode():
        found = _compared(lambda: before(x), lambda: after(x))
    left = find_prunable(pruned).macs / find_prunable(model).macs
    yield Row(f"{name} with {left:.1%} of its multiply-accumulates", options.pictures, None, found)


def _of_any_batch(model: Model) -> Model:
    """Return a model whose Reshapes leave the number of pictures open."""
    graph = private_copy(model.graph)
    for node in (node for node in graph.graph if node.op_type == "Reshape"):
        shape = constant_tensor(node.inputs[1])
        if shape is not None:
            replace_constant(node, 1, np.asarray([-1, *shape.numpy()[1:]]))
    return Model(graph)


def _with_random_weights(network: torch.nn.Module) -> torch.nn.Module:
    """Return a network whose numbers stay finite in float16: those of the model are all alike."""
    for weight in (weight for weight in network.parameters() if weight.ndim > 1):
        torch.nn.init.kaiming_normal_(weight, nonlinearity="relu")
    return network


def _compared(slow: Callable[[], Any], fast: Callable[[], Any]) -> Speedup:
    """Return the speed-up over rounds that alternate."""
    ratios = []
    for place in range(_ROUNDS):
        order = (slow, fast) if place % 2 else (fast, slow)
        taken = {one: _seconds(one) for one in order}
        ratios.append(taken[slow] / taken[fast])
    return speedup(ratios[_WARMING:])


def _replayed(run: Callable[[], Any]) -> Callable[[], Any]:
    """Return what replays a graph of some runs, so that launching takes no time of its own."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(_RUNS):
            run()
    return lambda: graph.replay()


def _seconds(run: Callable[[], Any]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / 1e3


if __name__ == "__main__":
    main()
