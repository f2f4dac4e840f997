"""A small convolutional network trained on Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747) in about a minute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from onnxopt_zoo.makers.torch_export import export
from onnxopt_zoo.media.fashion import PACKAGE, load
from onnxopt_zoo.taken import Taken

_IMAGES = 30_000  # of the 60,000 for training
_PASSES = 3
_BATCH = 128
_PEAK = 4e-3  # learning rate
_SEED = 0


def make(taken: Taken, out: Path) -> None:
    """Train and write the model: image float32 [batch, 1, 28, 28] to logits float32 [batch, 10].

    BatchNorm is left unfolded: a pass that folds it has something to do.
    """
    images, labels = load(taken.packages[PACKAGE], "train")
    with _repeatable():
        network = build()
        _train(network, torch.from_numpy(images[:_IMAGES]), torch.from_numpy(labels[:_IMAGES]))
    axes = {0: "batch"}
    example = torch.zeros(1, 1, 28, 28)
    export(network, [example], out, opset=17, inputs={"image": axes}, outputs={"logits": axes}, fold=False)


def build() -> nn.Sequential:
    """Return the network with random weights."""
    layers: list[nn.Module] = []
    for channels, wider, stride in ((1, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2)):
        layers.append(nn.Conv2d(channels, wider, 3, stride, padding=1, bias=False))
        layers += [nn.BatchNorm2d(wider), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(576, 64), nn.ReLU(), nn.Linear(64, 10))


def _train(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    steps = _PASSES * (len(images) // _BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_PEAK)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _PEAK, total_steps=steps)
    for _ in range(_PASSES):
        order = torch.randperm(len(images))[: len(images) // _BATCH * _BATCH]
        for chosen in order.split(_BATCH):
            flips = torch.rand(_BATCH, 1, 1, 1) < 0.5
            batch = torch.where(flips, images[chosen].flip(3), images[chosen])
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(batch), labels[chosen]).backward()
            optimizer.step()
            schedule.step()


@contextmanager
def _repeatable() -> Iterator[None]:
    """Use one seed and one thread, whose sums come in one order; both are put back afterwards."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
