"""XFeat (Potje et al. 2024, arXiv:2404.19174): keypoints and descriptors, rewritten so that its sizes stay dynamic."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from onnxopt_zoo.makers.torch_export import export, load_weights
from onnxopt_zoo.taken import Taken


def make(taken: Taken, out: Path) -> None:
    """Write the model: image float32 [batch, 3, h, w] to features, keypoints and reliability at an eighth of the size.

    The features are [batch, 64, h / 8, w / 8], the keypoint logits [batch, 65, ...], the reliability [batch, 1, ...].
    """
    weights = load_weights(taken.file)
    network = XFeat()
    # the fine matcher works on pairs of descriptors and is no part of this network
    network.load_state_dict({key: value for key, value in weights.items() if not key.startswith("fine_matcher.")})
    coarse = {0: "batch", 2: "h8", 3: "w8"}
    outputs = dict.fromkeys(("features", "keypoints", "reliability"), coarse)
    inputs = {"image": {0: "batch", 2: "h", 3: "w"}}
    export(network, [torch.rand(1, 3, 96, 128)], out, opset=16, inputs=inputs, outputs=outputs)


class XFeat(nn.Module):
    """The network, its parameters named as in the checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.skip1 = nn.Sequential(nn.AvgPool2d(4, stride=4), nn.Conv2d(1, 24, 1))
        self.block1 = nn.Sequential(_layer(1, 4), _layer(4, 8, stride=2), _layer(8, 8), _layer(8, 24, stride=2))
        self.block2 = nn.Sequential(_layer(24, 24), _layer(24, 24))
        self.block3 = nn.Sequential(_layer(24, 64, stride=2), _layer(64, 64), _layer(64, 64, size=1))
        self.block4 = nn.Sequential(_layer(64, 64, stride=2), _layer(64, 64), _layer(64, 64))
        wide = (_layer(64, 128, stride=2), _layer(128, 128), _layer(128, 128), _layer(128, 64, size=1))
        self.block5 = nn.Sequential(*wide)
        self.block_fusion = nn.Sequential(_layer(64, 64), _layer(64, 64), nn.Conv2d(64, 64, 1))
        thin = (_layer(64, 64, size=1), _layer(64, 64, size=1))
        self.heatmap_head = nn.Sequential(*thin, nn.Conv2d(64, 1, 1), nn.Sigmoid())
        points = (_layer(64, 64, size=1) for _ in range(3))
        self.keypoint_head = nn.Sequential(*points, nn.Conv2d(64, 65, 1))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Map [batch, 3, h, w] to features, keypoint logits and reliability."""
        grey = _normalized(image.mean(dim=1, keepdim=True))
        x3 = self.block3(self.block2(self.block1(grey) + self.skip1(grey)))
        x4 = self.block4(x3)
        x5 = self.block5(x4)
        size = x3.shape[-2:]
        coarser = [nn.functional.interpolate(x, size, mode="bilinear") for x in (x4, x5)]
        features = self.block_fusion(x3 + coarser[0] + coarser[1])
        points = self.keypoint_head(nn.functional.pixel_unshuffle(grey, 8))
        return features, points, self.heatmap_head(features)


class _Layer(nn.Module):
    """A convolution, BatchNorm without weights of its own, and ReLU."""

    def __init__(self, channels: int, wider: int, size: int, stride: int) -> None:
        super().__init__()
        convolution = nn.Conv2d(channels, wider, size, stride, padding=size // 2, bias=False)
        self.layer = nn.Sequential(convolution, nn.BatchNorm2d(wider, affine=False), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [batch, channels, h, w] to [batch, wider, h / stride, w / stride]."""
        return self.layer(x)


def _layer(channels: int, wider: int, size: int = 3, stride: int = 1) -> nn.Module:
    return _Layer(channels, wider, size, stride)


def _normalized(grey: torch.Tensor) -> torch.Tensor:
    """Return each image with zero mean and unit variance: an InstanceNorm whose size stays dynamic."""
    centred = grey - grey.mean(dim=(2, 3), keepdim=True)
    return centred / torch.sqrt((centred * centred).mean(dim=(2, 3), keepdim=True) + 1e-5)
