"""Loading weights and exporting networks, the same way for every maker."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch


def load_weights(file: Path) -> Any:
    """Return the tensors of a checkpoint, on the CPU, without running anything that is pickled in it."""
    return torch.load(file, weights_only=True, map_location="cpu")


def export(
    network: torch.nn.Module,
    examples: Sequence[torch.Tensor],
    out: Path,
    *,
    opset: int,
    inputs: Mapping[str, Mapping[int, str]],
    outputs: Mapping[str, Mapping[int, str]],
    fold: bool = True,
) -> None:
    """Write ``network`` as ONNX, by the exporter that traces TorchScript.

    Args:
        network: Put into evaluation mode, and traced once with ``examples``.
        examples: One tensor for each input.
        out: The file to write.
        opset: Of the ONNX standard domain.
        inputs: The dynamic axes of each input, by its name, in order.
        outputs: The same for the outputs.
        fold: Whether constants and BatchNorm are folded.
    """
    mode = torch.onnx.TrainingMode.EVAL if fold else torch.onnx.TrainingMode.PRESERVE
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # tracing warns of the branches it does not follow, and of its own age
        torch.onnx.export(
            network.eval(),
            tuple(examples),
            str(out),
            dynamo=False,
            opset_version=opset,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: dict(axes) for name, axes in {**inputs, **outputs}.items() if axes},
            do_constant_folding=fold,
            training=mode,
        )
