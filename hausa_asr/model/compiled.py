"""torch.compile for a transformer's layers, with graphs that all trials of a process share.

A graph holds plain numbers as constants, and the trials of a sweep differ in their dropouts: each would compile graphs
of its own, until torch gives up after some trials. So here the rates are tensors, which a graph takes as inputs. The
attention is left as it is, outside of the graphs, since torch takes its dropout as a number only. Called by training.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, Wav2Vec2ForCTC

_ATTENTION = "hausa_asr_rate_as_tensor"
_GRAPHS = 64
"""Of one layer, at the most: training or not, frozen or not, with padding or without; for two base checkpoints."""


class TensorDropout(nn.Module):
    """Dropout whose rate is a tensor, so that compiled code does not depend on it.

    Args:
        rate: the share of values that become 0; not part of the model's weights.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = torch.tensor(float(rate))  # stays on the CPU: a compiled kernel reads it from there

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return values
        return values * (torch.rand_like(values) >= self.rate) / (1.0 - self.rate)


def compile_layers(model: Wav2Vec2ForCTC) -> None:
    """Compile the transformer's layers where the model stands; they run as before, and compile when first used.

    Args:
        model: its layers' dropouts are replaced by ones of the same rates. Its weights keep their names.
    """
    torch._dynamo.config.recompile_limit = _GRAPHS
    AttentionInterface.register(_ATTENTION, _attention)
    model.set_attn_implementation(_ATTENTION)
    for layer in model.wav2vec2.encoder.layers:
        attention: Any = layer.attention
        attention.dropout = torch.tensor(float(attention.dropout))
        for module in list(layer.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.Dropout):
                    setattr(module, name, TensorDropout(child.p))
        layer.compile(dynamic=True)


@torch._dynamo.disable
def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: torch.Tensor | float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """torch's attention; (B, heads, T, features) to (B, T, heads, features)."""
    mixed = nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, dropout_p=float(dropout), scale=scaling
    )
    return mixed.transpose(1, 2), None
