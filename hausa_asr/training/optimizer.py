"""AdamW over a wav2vec 2.0 model: which weights learn at what rate, and a step that skips what is not finite.

Called by the fine-tune. Nothing here waits for the device: whether gradients were finite is known there, heeded there,
and only counted.
"""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from transformers import Wav2Vec2ForCTC

from hausa_asr.recipe import FinetuneConfig
from hausa_asr.training.schedules import freed_at, lr_factor, rewarm_factor

_LAYER = re.compile(r"encoder\.layers\.(\d+)\.")
HEAD = "head"


class Optimizer:
    """AdamW with fairseq's betas, whose learning rates follow the schedule.

    A part that is frozen has no gradients, so it has no optimizer state either until it learns. What is freed later has
    a group of its own, since it warms up by itself.

    Args:
        model: the model, on its device.
        config: the recipe.
        updates: the updates of the whole trial.
    """

    def __init__(self, model: Wav2Vec2ForCTC, config: FinetuneConfig, updates: int) -> None:
        self._config, self._updates = config, updates
        layers = len(model.wav2vec2.encoder.layers)
        groups: dict[tuple[str, int, bool], list[torch.nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if name.startswith("lm_head."):
                part, freed = HEAD, 0
            else:
                layer = _LAYER.search(name)
                if name.startswith("wav2vec2.encoder.layer_norm.") and model.config.do_stable_layer_norm:
                    index = layers - 1  # it lies above the top layer, and is freed with it
                else:
                    index = int(layer[1]) if layer else -1
                part = "encoder"
                freed = freed_at(index, updates, layers, config.freeze_transformer_fraction, config.unfreeze)
            groups.setdefault((part, freed, parameter.ndim > 1), []).append(parameter)
        self._adamw: Any = torch.optim.AdamW(
            [
                {"params": parameters, "weight_decay": config.weight_decay if matrices else 0.0}
                for (_, _, matrices), parameters in groups.items()
            ],
            lr=config.lr_peak,
            betas=(0.9, 0.98),
            eps=1e-8,
            fused=True,
        )
        self._parts = [(part, freed) for part, freed, _ in groups]

    def lr(self, step: int) -> float:
        """The learning rate of an update, of what is neither the head nor newly freed."""
        config = self._config
        return config.lr_peak * lr_factor(config.schedule, step, self._updates, config.warmup_fraction)

    def step(self, step: int, learning: list[torch.nn.Parameter], loss: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Clip the gradients and make one update, or none if the loss or a gradient is not finite.

        Args:
            step: the update.
            learning: the parameters that have gradients.
            loss: () the update's loss.

        Returns:
            The norm of the gradients before clipping and whether it was skipped (1.0 or 0.0), both () on the device.
        """
        base = self.lr(step)
        for group, (part, freed) in zip(self._adamw.param_groups, self._parts, strict=True):
            mult = self._config.head_lr_mult if part == HEAD else 1.0
            group["lr"] = base * mult * rewarm_factor(step, freed, self._updates, self._config.rewarm_fraction)
        norm = torch.nn.utils.clip_grad_norm_(learning, self._config.max_grad_norm or math.inf, foreach=True)
        skipped = 1.0 - (torch.isfinite(norm) & torch.isfinite(loss)).float()
        # The fused kernel leaves weights and state as they are where this is 1; it is how a GradScaler skips.
        self._adamw.found_inf = skipped
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)
        return norm, skipped

    def touched(self) -> set[int]:
        """The `id`s of the parameters that any update may have changed: those with optimizer state."""
        return {id(parameter) for parameter in self._adamw.state}

    def state_dict(self) -> dict:
        """What a checkpoint keeps."""
        return self._adamw.state_dict()

    def load_state_dict(self, state: dict) -> None:
        """Go on from a checkpoint."""
        self._adamw.load_state_dict(state)
