"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381) with torchvision's ImageNet weights."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn

from onnxopt_zoo.makers.torch_export import export, load_weights
from onnxopt_zoo.taken import Taken

# Table 2 of the paper: expansion, channels, repeats, stride of the first.
_BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_LAST_CHANNELS = 1280
_CLASSES = 1000


def make(taken: Taken, out: Path) -> None:
    """Write the model: input float32 [batch, 3, 224, 224] to logits float32 [batch, 1000]."""
    network = build()
    network.load_state_dict(load_weights(taken.file), strict=True)
    axes = {0: "batch"}
    example = torch.zeros(1, 3, 224, 224)
    export(network, [example], out, opset=17, inputs={"input": axes}, outputs={"logits": axes})


def build() -> nn.Module:
    """Return the network with random weights, its parameters named as in torchvision's checkpoints."""
    layers: list[nn.Module] = [_convolution(3, 32, size=3, stride=2)]
    channels = 32
    for expansion, wider, repeats, stride in _BLOCKS:
        for number in range(repeats):
            layers.append(_Block(channels, wider, expansion, stride if number == 0 else 1))
            channels = wider
    layers.append(_convolution(channels, _LAST_CHANNELS))
    classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(_LAST_CHANNELS, _CLASSES))
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    parts = (("features", nn.Sequential(*layers)), ("pool", pool), ("classifier", classifier))
    return nn.Sequential(OrderedDict(parts))


class _Block(nn.Module):
    """An inverted residual: widen, convolve each channel by itself, narrow; added to its input if that fits."""

    def __init__(self, channels: int, wider: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = channels * expansion
        widen = [_convolution(channels, hidden)] if expansion > 1 else []
        self.conv = nn.Sequential(
            *widen,
            _convolution(hidden, hidden, size=3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, wider, 1, bias=False),
            nn.BatchNorm2d(wider),
        )
        self.adds = stride == 1 and channels == wider

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [batch, channels, h, w] to [batch, wider, h / stride, w / stride]."""
        y = self.conv(x)
        return x + y if self.adds else y


def _convolution(channels: int, wider: int, size: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(channels, wider, size, stride, padding=size // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(wider), nn.ReLU6(inplace=False))
