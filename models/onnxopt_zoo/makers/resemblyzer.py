"""Resemblyzer's voice encoder: three LSTM layers that turn mel frames into a speaker's embedding."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from onnxopt_zoo.makers.torch_export import export, load_weights
from onnxopt_zoo.taken import Taken


def make(taken: Taken, out: Path) -> None:
    """Write the model: mels float32 [batch, frames, 40] to embedding float32 [batch, 256] of length one."""
    weights = load_weights(taken.file)["model_state"]
    network = VoiceEncoder()
    # the checkpoint also has a scale and an offset of the training loss
    network.load_state_dict({key: value for key, value in weights.items() if not key.startswith("similarity_")})
    inputs = {"mels": {0: "batch", 1: "frames"}}
    export(network, [torch.zeros(1, 160, 40)], out, opset=17, inputs=inputs, outputs={"embedding": {0: "batch"}})


class VoiceEncoder(nn.Module):
    """The network, its parameters named as in the checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(40, 256, num_layers=3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, mels: torch.Tensor) -> torch.Tensor:
        """Map [batch, frames, 40] to unit vectors, [batch, 256]."""
        _, (hidden, _) = self.lstm(mels)
        embedding = torch.relu(self.linear(hidden[-1]))
        return embedding / torch.linalg.vector_norm(embedding, dim=1, keepdim=True)
