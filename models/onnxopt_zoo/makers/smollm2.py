"""SmolLM2-135M-Instruct: a LLaMA decoder with a cache of keys and values, from a 4-bit GGUF file."""

from __future__ import annotations

from pathlib import Path

import gguf
import torch
from torch import nn

from onnxopt_zoo.makers.torch_export import export
from onnxopt_zoo.taken import Taken

LAYERS = 30
_HIDDEN = 576
_FEED_FORWARD = 1536
_HEADS = 9
_KEY_HEADS = 3
_HEAD = 64
_VOCABULARY = 49_152
_EPSILON = 1e-5
_ROPE_BASE = 100_000.0

_Cache = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one layer, each [batch, 3, length, 64]."""


def make(taken: Taken, out: Path) -> None:
    """Write the model: input_ids int64 [batch, seq] and the cache to logits float32 [batch, seq, 49152] and the cache.

    The cache is past.L.key and past.L.value, float32 [batch, 3, past, 64], for each of 30 layers; past may be 0.
    """
    network = Decoder(LAYERS)
    network.load_state_dict(read_weights(taken.file), strict=True)
    past = [torch.zeros(1, _KEY_HEADS, 4, _HEAD) for _ in range(2 * LAYERS)]
    names = [f"{layer}.{kind}" for layer in range(LAYERS) for kind in ("key", "value")]
    batch_and_length = {0: "batch", 1: "seq"}
    export(
        network,
        [torch.ones(1, 3, dtype=torch.int64), *past],
        out,
        opset=17,
        inputs={"input_ids": batch_and_length, **{f"past.{name}": {0: "batch", 2: "past"} for name in names}},
        outputs={"logits": batch_and_length, **{f"present.{name}": {0: "batch", 2: "total"} for name in names}},
        fold=False,
    )


def read_weights(file: Path) -> dict[str, torch.Tensor]:
    """Return the file's tensors as float32, under this network's names."""
    weights = {}
    for tensor in gguf.GGUFReader(file).tensors:
        values = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
        if tensor.name.endswith(("attn_q.weight", "attn_k.weight")):
            values = _half_rotation(values)
        weights[tensor.name] = values
    return weights


def _half_rotation(rows: torch.Tensor) -> torch.Tensor:
    """Undo the file's order of rows, which is for rotating neighbours instead of halves."""
    pairs = rows.reshape(-1, _HEAD // 2, 2, _HIDDEN)
    return pairs.swapaxes(1, 2).reshape(rows.shape)


class Decoder(nn.Module):
    """The network, its parameters named as in the file; the head is the embedding again."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.token_embd = nn.Embedding(_VOCABULARY, _HIDDEN)
        self.blk = nn.ModuleList(_Layer() for _ in range(layers))
        self.output_norm = _Norm()

    def forward(self, input_ids: torch.Tensor, *past: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Map tokens [batch, seq] and the cache to logits, [batch, seq, vocabulary], and the longer cache."""
        x = self.token_embd(input_ids)
        before, new = past[0].shape[2], input_ids.shape[1]
        places = torch.arange(before + new, device=x.device)
        rotation = _rotation(places[before:])
        hidden = places[None, :] > places[before:, None]
        present: list[torch.Tensor] = []
        for number, layer in enumerate(self.blk):
            x, cache = layer(x, (past[2 * number], past[2 * number + 1]), rotation, hidden)
            present += cache
        return nn.functional.linear(self.output_norm(x), self.token_embd.weight), *present


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn_norm = _Norm()
        self.attn_q = nn.Linear(_HIDDEN, _HEADS * _HEAD, bias=False)
        self.attn_k = nn.Linear(_HIDDEN, _KEY_HEADS * _HEAD, bias=False)
        self.attn_v = nn.Linear(_HIDDEN, _KEY_HEADS * _HEAD, bias=False)
        self.attn_output = nn.Linear(_HEADS * _HEAD, _HIDDEN, bias=False)
        self.ffn_norm = _Norm()
        self.ffn_gate = nn.Linear(_HIDDEN, _FEED_FORWARD, bias=False)
        self.ffn_up = nn.Linear(_HIDDEN, _FEED_FORWARD, bias=False)
        self.ffn_down = nn.Linear(_FEED_FORWARD, _HIDDEN, bias=False)

    def forward(
        self, x: torch.Tensor, past: _Cache, rotation: _Cache, hidden: torch.Tensor
    ) -> tuple[torch.Tensor, _Cache]:
        """Map [batch, seq, 576] to the same shape, and lengthen the cache; ``hidden`` [seq, total] is the future."""
        attended, cache = self._attend(self.attn_norm(x), past, rotation, hidden)
        x = x + attended
        y = self.ffn_norm(x)
        return x + self.ffn_down(nn.functional.silu(self.ffn_gate(y)) * self.ffn_up(y)), cache

    def _attend(
        self, x: torch.Tensor, past: _Cache, rotation: _Cache, hidden: torch.Tensor
    ) -> tuple[torch.Tensor, _Cache]:
        queries = _rotated(_heads(self.attn_q(x), _HEADS), rotation)
        keys = torch.cat([past[0], _rotated(_heads(self.attn_k(x), _KEY_HEADS), rotation)], dim=2)
        values = torch.cat([past[1], _heads(self.attn_v(x), _KEY_HEADS)], dim=2)
        scores = queries @ _shared(keys).transpose(2, 3) / _HEAD**0.5
        mixed = torch.softmax(scores.masked_fill(hidden, -torch.inf), dim=-1) @ _shared(values)
        return self.attn_output(mixed.transpose(1, 2).flatten(2)), (keys, values)


class _Norm(nn.Module):
    """Root mean square normalization (Zhang and Sennrich 2019), spelled out."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(_HIDDEN))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [batch, seq, 576] to the same shape."""
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + _EPSILON))


def _heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """Split [batch, seq, heads * 64] into [batch, heads, seq, 64]."""
    return x.unflatten(2, (heads, _HEAD)).transpose(1, 2)


def _shared(x: torch.Tensor) -> torch.Tensor:
    """Repeat each of the 3 heads of keys or values for its 3 queries."""
    return x[:, :, None].expand(-1, -1, _HEADS // _KEY_HEADS, -1, -1).flatten(1, 2)


def _rotation(places: torch.Tensor) -> _Cache:
    """Return cosine and sine of the rotary angles (Su et al. 2021, arXiv:2104.09864), each [seq, 64]."""
    frequencies = _ROPE_BASE ** -(torch.arange(0, _HEAD, 2).float() / _HEAD)
    angles = places[:, None].float() * frequencies.repeat(2)
    return angles.cos(), angles.sin()


def _rotated(x: torch.Tensor, rotation: _Cache) -> torch.Tensor:
    """Turn the halves of the last axis of [batch, heads, seq, 64] against each other."""
    first, second = x.chunk(2, dim=-1)
    cosine, sine = rotation
    return x * cosine + torch.cat([-second, first], dim=-1) * sine
