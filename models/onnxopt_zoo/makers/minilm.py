"""all-MiniLM-L6-v2: a BERT of six layers that embeds sentences, exported by way of transformers."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from torch import nn

from onnxopt_zoo.makers.torch_export import export
from onnxopt_zoo.taken import Taken

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def make(taken: Taken, out: Path) -> None:
    """Write the model: three int64 [batch, sequence] to last_hidden_state float32 [batch, sequence, 384]."""
    transformers.utils.logging.disable_progress_bar()
    # safetensors only, and nothing is looked up on a network; "eager" spells attention out
    network = transformers.AutoModel.from_pretrained(
        taken.file.parent, attn_implementation="eager", local_files_only=True, use_safetensors=True
    )
    axes = {0: "batch", 1: "sequence"}
    examples = [torch.ones(2, 8, dtype=torch.int64), torch.ones(2, 8, dtype=torch.int64), torch.zeros(2, 8).long()]
    inputs = dict.fromkeys(_INPUTS, axes)
    export(_LastHiddenState(network), examples, out, opset=17, inputs=inputs, outputs={"last_hidden_state": axes})


class _LastHiddenState(nn.Module):
    """Gives only the token embeddings, without the pooled one, which sentence embedding does not use."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        """Map three [batch, sequence] to [batch, sequence, 384]."""
        output = self.network(input_ids=input_ids, attention_mask=mask, token_type_ids=types)
        return output.last_hidden_state
