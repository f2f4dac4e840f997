"""The three networks of MTCNN (Zhang et al. 2016, arXiv:1604.02878) with facenet-pytorch's weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from onnxopt_zoo.makers.torch_export import export, load_weights
from onnxopt_zoo.taken import Taken

_BATCH = {0: "batch"}
_MAP = {0: "batch", 2: "h", 3: "w"}


def make_pnet(taken: Taken, out: Path) -> None:
    """Write the proposal network: image float32 [batch, 3, h, w] to boxes and probabilities on a coarser grid."""
    _make(_PNet(), taken, out, torch.zeros(1, 3, 64, 64), {"image": _MAP}, {"boxes": _MAP, "probabilities": _MAP})


def make_rnet(taken: Taken, out: Path) -> None:
    """Write the refining network: crops float32 [batch, 3, 24, 24] to boxes [batch, 4], probabilities [batch, 2]."""
    outputs = {"boxes": _BATCH, "probabilities": _BATCH}
    _make(_RNet(), taken, out, torch.zeros(1, 3, 24, 24), {"crops": _BATCH}, outputs)


def make_onet(taken: Taken, out: Path) -> None:
    """Write the output network: as the refining one for 48 x 48, with landmarks [batch, 10] between the two."""
    outputs = {"boxes": _BATCH, "landmarks": _BATCH, "probabilities": _BATCH}
    _make(_ONet(), taken, out, torch.zeros(1, 3, 48, 48), {"crops": _BATCH}, outputs)


def _make(
    network: nn.Module,
    taken: Taken,
    out: Path,
    example: torch.Tensor,
    inputs: Mapping[str, Mapping[int, str]],
    outputs: Mapping[str, Mapping[int, str]],
) -> None:
    network.load_state_dict(load_weights(taken.file), strict=True)
    export(network, [example], out, opset=11, inputs=inputs, outputs=outputs)


class _PNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        _add_convolutions(self, (3, 10, 16, 32), (3, 3, 3))
        self.conv4_1 = nn.Conv2d(32, 2, 1)
        self.conv4_2 = nn.Conv2d(32, 4, 1)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map [batch, 3, h, w] to boxes and probabilities, [batch, 4 and 2, about h / 2, about w / 2]."""
        x = self.prelu1(self.conv1(image))
        x = nn.functional.max_pool2d(x, 2, 2, ceil_mode=True)
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return self.conv4_2(x), torch.softmax(self.conv4_1(x), dim=1)


class _RNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        _add_convolutions(self, (3, 28, 48, 64), (3, 3, 2))
        self.dense4 = nn.Linear(576, 128)
        self.prelu4 = nn.PReLU(128)
        self.dense5_1 = nn.Linear(128, 2)
        self.dense5_2 = nn.Linear(128, 4)

    def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map [batch, 3, 24, 24] to boxes [batch, 4] and probabilities [batch, 2]."""
        x = _pooled(self, crops, (3, 3, 0))
        x = self.prelu4(self.dense4(_flat(x)))
        return self.dense5_2(x), torch.softmax(self.dense5_1(x), dim=1)


class _ONet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        _add_convolutions(self, (3, 32, 64, 64, 128), (3, 3, 3, 2))
        self.dense5 = nn.Linear(1152, 256)
        self.prelu5 = nn.PReLU(256)
        self.dense6_1 = nn.Linear(256, 2)
        self.dense6_2 = nn.Linear(256, 4)
        self.dense6_3 = nn.Linear(256, 10)

    def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Map [batch, 3, 48, 48] to boxes [batch, 4], landmarks [batch, 10] and probabilities [batch, 2]."""
        x = _pooled(self, crops, (3, 3, 2, 0))
        x = self.prelu5(self.dense5(_flat(x)))
        return self.dense6_2(x), self.dense6_3(x), torch.softmax(self.dense6_1(x), dim=1)


def _add_convolutions(network: nn.Module, channels: Sequence[int], sizes: Sequence[int]) -> None:
    """Add layers conv1, prelu1, conv2, ... as the checkpoints name them."""
    for number, size in enumerate(sizes, start=1):
        network.add_module(f"conv{number}", nn.Conv2d(channels[number - 1], channels[number], size))
        network.add_module(f"prelu{number}", nn.PReLU(channels[number]))


def _pooled(network: nn.Module, x: torch.Tensor, pools: Sequence[int]) -> torch.Tensor:
    """Run the convolutions, each followed by a max-pool of that size and stride 2 (0: none)."""
    for number, pool in enumerate(pools, start=1):
        x = getattr(network, f"prelu{number}")(getattr(network, f"conv{number}")(x))
        x = nn.functional.max_pool2d(x, pool, 2, ceil_mode=True) if pool else x
    return x


def _flat(x: torch.Tensor) -> torch.Tensor:
    """Flatten [batch, c, h, w] column by column, as the original Caffe and TensorFlow weights expect."""
    return x.permute(0, 3, 2, 1).flatten(1)
