"""Torch modules to export, each from a function as ``onnxopt export`` wants it."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

Example = torch.Tensor | tuple[torch.Tensor, ...] | dict[str, torch.Tensor]
Exportable = tuple[nn.Module, Example]


class TwoOutputs(nn.Module):
    """A small network whose biases are all zero, and so equal, as after initialisation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        nn.init.zeros_(self.first.bias)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map [batch, 8] to scores and probabilities of the same shape."""
        hidden = self.second(torch.relu(self.first(x)))
        return {"scores": hidden, "probabilities": hidden.softmax(-1)}


class BranchOnValues(nn.Module):
    """Its branch on values is frozen by the TorchScript exporter, and refused by dynamo."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [batch, 4] to the same."""
        return x + 1 if x.sum() > 0 else x - 1


class FixedReshape(nn.Module):
    """Its reshape has the size of the example written in."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [2, 4] to [8]."""
        return x.reshape(8)


class LeavesTorch(nn.Module):
    """It computes in Python, where no exporter can follow."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [batch, 4] to the same."""
        return torch.tensor(np.array(sorted(x.tolist()), np.float32))


class Unknown(nn.Module):
    """An operator that ONNX has nothing for."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [n, n] to [n]."""
        return torch.linalg.eigvalsh(x @ x.T)


class Masked(nn.Module):
    """Two inputs that share both dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map int64 ids and mask [batch, length] to means [batch, 4]."""
        kept = self.table(ids) * mask.unsqueeze(-1)
        return kept.sum(1) / mask.sum(1, keepdim=True)


def two_outputs() -> Exportable:
    torch.manual_seed(0)
    return TwoOutputs().eval(), torch.randn(2, 8)


def training() -> Exportable:
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).eval()
    module[1].train()
    return module, torch.randn(2, 4)


def branch_on_values() -> Exportable:
    return BranchOnValues().eval(), torch.ones(2, 4)


def fixed_reshape() -> Exportable:
    return FixedReshape().eval(), torch.randn(2, 4)


def leaves_torch() -> Exportable:
    return LeavesTorch().eval(), torch.randn(2, 4)


def unknown() -> Exportable:
    return Unknown().eval(), torch.randn(4, 4)


def masked() -> Exportable:
    torch.manual_seed(0)
    return Masked().eval(), {"mask": torch.ones(2, 5, dtype=torch.int64), "ids": torch.arange(10).reshape(2, 5)}


def no_module() -> object:
    return "weights.pt", torch.randn(2)


def no_tensor() -> object:
    return TwoOutputs().eval(), [1.0, 2.0]


def too_many() -> object:
    return TwoOutputs().eval(), (torch.randn(2, 8), torch.randn(2, 8))


def raises() -> Exportable:
    raise FileNotFoundError("best.ckpt")
