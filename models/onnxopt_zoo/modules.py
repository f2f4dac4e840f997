"""Small torch modules to export: each function returns (module, example), as ``onnxopt export`` wants it."""

from __future__ import annotations

import torch
from torch import nn

from onnxopt_zoo.makers.mobilenet_v2 import build

_SEED = 0


def resnet() -> tuple[nn.Module, torch.Tensor]:
    """Return a residual network of three stages for images float32 [batch, 3, 32, 32] (He et al. 2016, sec. 4.2)."""
    torch.manual_seed(_SEED)
    return _ResNet((16, 32, 64)).eval(), torch.randn(2, 3, 32, 32)


def resnet18() -> tuple[nn.Module, torch.Tensor]:
    """Return ResNet-18 with random weights for images float32 [batch, 3, 224, 224] (He et al. 2016, table 1)."""
    torch.manual_seed(_SEED)
    stem = nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)
    )
    return _ResNet((64, 128, 256, 512), repeats=2, stem=stem, classes=1000).eval(), torch.randn(2, 3, 224, 224)


def mobilenet_v2() -> tuple[nn.Module, torch.Tensor]:
    """Return MobileNetV2 with random weights for images float32 [batch, 3, 224, 224]."""
    torch.manual_seed(_SEED)
    return build().eval(), torch.randn(2, 3, 224, 224)


def bert() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """Return a four-layer BERT encoder for int64 ids and mask [batch, sequence] (Devlin et al. 2019)."""
    torch.manual_seed(_SEED)
    example = {
        "input_ids": torch.randint(0, 1000, (2, 16)),
        "attention_mask": torch.tensor([[1] * 16, [1] * 10 + [0] * 6]),
    }
    return _Bert(vocabulary=1000, width=128, heads=4, layers=4, positions=512).eval(), example


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int, wider: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, wider, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(wider)
        self.second = nn.Conv2d(wider, wider, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(wider)
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(channels, wider, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [batch, channels, h, w] to [batch, wider, h / stride, w / stride]."""
        y = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(self.second_norm(self.second(y)) + self.shortcut(x))


class _ResNet(nn.Module):
    def __init__(
        self, widths: tuple[int, ...], repeats: int = 1, stem: nn.Module | None = None, classes: int = 10
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, 1, 1) if stem is None else stem
        before = (widths[0], *widths[:-1])
        strides = (1, *(2 for _ in widths[1:]))
        blocks: list[nn.Module] = []
        for a, b, stride in zip(before, widths, strides, strict=True):
            blocks += [_ResidualBlock(a, b, stride), *(_ResidualBlock(b, b, 1) for _ in range(repeats - 1))]
        self.blocks = nn.Sequential(*blocks)
        self.classify = nn.Linear(widths[-1], classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map images [batch, 3, h, w] to logits [batch, classes]."""
        return self.classify(self.blocks(self.stem(image)).mean((2, 3)))


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)
        self.mix = nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.attention_norm, self.feed_norm = nn.LayerNorm(width, eps=1e-12), nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map [batch, sequence, width] to the same; ``mask`` is added to the attention scores."""
        q, k, v = (self._split(part(x)) for part in (self.query, self.key, self.value))
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + mask
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = self.attention_norm(x + self.mix(mixed))
        return self.feed_norm(x + self.narrow(nn.functional.gelu(self.widen(x))))

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class _Bert(nn.Module):
    def __init__(self, vocabulary: int, width: int, heads: int, layers: int, positions: int) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(vocabulary, width), nn.Embedding(positions, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(_Layer(width, heads) for _ in range(layers))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Map ids and mask [batch, sequence] to hidden states [batch, sequence, width]."""
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.norm(self.words(input_ids) + self.places(places))
        mask = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        for layer in self.layers:
            x = layer(x, mask)
        return x
