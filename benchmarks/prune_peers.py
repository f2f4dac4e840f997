"""What the peers prune of a model, used as their own documentation says. A program for an interpreter that has them.

It knows nothing of this package: ``python benchmarks/prune_peers.py TOOL MODEL SAMPLES OUT SHARE...`` writes
``OUT/SHARE.onnx`` for each share of the multiply-accumulates, and ``OUT/SHARE.tuned.onnx`` where the tool can win
accuracy back without training. Peers ask for a share of the channels, so that is halved until the multiply-accumulates
are as near as it gets. ``python benchmarks/prune_peers.py`` lists the tools there are.
NNCF (2.19) and Neural Compressor (3.0) have no pruning of channels any more.
"""

from __future__ import annotations

import copy
import math
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx

Prune = Callable[[float, int | None], onnx.ModelProto]
"""Removes that share of the channels, by so many samples at most; by all if None."""

Tune = Callable[[onnx.ModelProto], onnx.ModelProto]
"""Wins accuracy back."""

_TRIES = 9
_SAMPLES = 64
"""Calibration samples, as every peer is given."""

_FEW = 2
"""Of them while the share of the channels is looked for: the model that is kept is made with all."""


def main() -> None:
    """Prune, or list the tools."""
    warnings.filterwarnings("ignore")
    if len(sys.argv) == 1:
        print("\n".join(TOOLS))
        return
    tool, path, samples, out, *shares = sys.argv[1:]
    model = onnx.load(path)
    feeds = [dict(np.load(file)) for file in sorted(Path(samples).glob("*.npz"))[:_SAMPLES]]
    prune, tune = TOOLS[tool](model, feeds)
    whole = _macs(prune(0.0, _FEW))
    for share in map(float, shares):
        made = _nearest(prune, whole, share)
        onnx.save(made, Path(out) / f"{share:g}.onnx")
        if tune is not None:
            onnx.save(tune(made), Path(out) / f"{share:g}.tuned.onnx")


def _nearest(prune: Prune, whole: float, share: float) -> onnx.ModelProto:
    """Return the model whose multiply-accumulates are nearest to a share of the whole."""
    low, high = 0.0, 1.0
    found: list[tuple[float, float]] = []
    for _ in range(_TRIES):
        middle = (low + high) / 2
        left = _macs(prune(middle, _FEW)) / whole
        found.append((abs(left - share), middle))
        low, high = (middle, high) if left > share else (low, middle)
    return prune(min(found)[1], None)


def _macs(model: onnx.ModelProto) -> float:
    """Return the multiply-accumulates of one sample in convolutions and products with weights."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    weights = {one.name: list(one.dims) for one in graph.initializer}
    shapes = {
        value.name: [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.output)
    }
    total = 0.0
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul") and node.input[1] in weights:
            shape, made = weights[node.input[1]], shapes[node.output[0]]
            total += math.prod(shape) * (math.prod(made[2:]) if node.op_type == "Conv" else 1)
    return total


def _onnxsim(model: onnx.ModelProto, feeds: list[dict[str, Any]], *, wanda: bool, pooled: bool) -> tuple[Prune, Tune]:
    """Prune behind its simplifier, which folds BatchNormalization, as its documentation asks for."""
    import onnxsim

    simple, _ = onnxsim.simplify(model)
    inputs = [{name: array for name, array in feed.items() if name != "label"} for feed in feeds]

    def prune(ratio: float, most: int | None) -> onnx.ModelProto:
        made: onnx.ModelProto = (
            onnxsim.apply_structured_wanda_pruning(simple, inputs[:most], sparsity=ratio, global_sparsity=pooled)
            if wanda
            else onnxsim.apply_structured_pruning(simple, sparsity=ratio, global_sparsity=pooled)
        )
        return made

    return prune, lambda made: onnxsim.apply_pruning_finetune(simple, made, inputs)


def _torch_pruning(
    model: onnx.ModelProto, feeds: list[dict[str, Any]], *, importance: str, pooled: bool, options: Mapping[str, Any]
) -> tuple[Prune, None]:
    """Prune the torch module that onnx2torch makes of the model, all but the layer that makes the answer."""
    import torch
    import torch_pruning

    module, name, example = _lifted(model, feeds)
    classes = module(example).shape[-1]
    criterion = getattr(torch_pruning.importance, importance)(**options)
    _prepare(module, criterion, feeds, name)

    def prune(ratio: float, _: int | None) -> onnx.ModelProto:
        clone = copy.deepcopy(module)
        linear = [one for one in clone.modules() if isinstance(one, torch.nn.Linear)]
        pruner = torch_pruning.pruner.BasePruner(
            clone,
            example,
            importance=criterion,
            pruning_ratio=ratio,
            global_pruning=pooled,
            ignored_layers=[one for one in linear if one.out_features == classes],
        )
        pruner.step()
        return _exported(clone, example, name, model.graph.output[0].name)

    return prune, None


def _lifted(model: onnx.ModelProto, feeds: list[dict[str, Any]]) -> tuple[Any, str, Any]:
    """Return a model as a torch module, the name of its input, and an input."""
    import torch

    _without_torchvision()
    from onnx2torch import convert

    name = model.graph.input[0].name
    return convert(model).eval(), name, torch.from_numpy(feeds[0][name][:1])


def _without_torchvision() -> None:
    """Stand in for torchvision, which onnx2torch loads for two operators of detectors, and which ties torch's build."""
    vision, operators = types.ModuleType("torchvision"), types.ModuleType("torchvision.ops")
    operators.roi_align = None  # type: ignore[attr-defined]
    vision.ops = operators  # type: ignore[attr-defined]
    sys.modules.update({"torchvision": vision, "torchvision.ops": operators})


def _prepare(module: Any, criterion: Any, feeds: list[dict[str, Any]], name: str) -> None:
    """Give a data-driven criterion what it looks at: gradients or activations; without labels those of the answers."""
    import torch

    if not hasattr(criterion, "compute_importance") and "Taylor" not in type(criterion).__name__:
        return
    watching = criterion.compute_importance(module) if hasattr(criterion, "compute_importance") else nullcontext()
    with watching:
        for feed in feeds:
            answers = module(torch.from_numpy(feed[name]))
            labels = torch.from_numpy(feed["label"]) if "label" in feed else answers.argmax(-1)
            torch.nn.functional.cross_entropy(answers, labels).backward()


def _exported(module: Any, example: Any, name: str, output: str) -> onnx.ModelProto:
    import io

    import torch

    stream = io.BytesIO()
    torch.onnx.export(
        module,
        (example,),
        stream,
        input_names=[name],
        output_names=[output],
        dynamic_axes={name: {0: "batch"}, output: {0: "batch"}},
        dynamo=False,
    )
    return onnx.load_from_string(stream.getvalue())


def _tools() -> Iterator[tuple[str, Callable[[onnx.ModelProto, list[dict[str, Any]]], tuple[Prune, Tune | None]]]]:
    for wanda, pooled in product((False, True), repeat=2):
        name = f"onnxsim {'wanda' if wanda else 'l2'} {'global' if pooled else 'uniform'}"
        yield name, partial(_onnxsim, wanda=wanda, pooled=pooled)
    criteria: Mapping[str, tuple[str, Mapping[str, Any]]] = {
        "l2": ("GroupMagnitudeImportance", {"p": 2}),
        "l1": ("GroupMagnitudeImportance", {"p": 1}),
        "median": ("FPGMImportance", {}),
        "lamp": ("LAMPImportance", {}),
        "taylor": ("GroupTaylorImportance", {}),
        "activation": ("ActivationImportance", {}),
    }
    for told, (importance, options) in criteria.items():
        for pooled in (False, True):
            name = f"Torch-Pruning {told} {'global' if pooled else 'uniform'}"
            yield name, partial(_torch_pruning, importance=importance, pooled=pooled, options=options)


TOOLS = dict(_tools())


if __name__ == "__main__":
    main()
