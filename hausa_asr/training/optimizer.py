"""AdamW over a wav2vec 2.0 model: learning rates by part, and a step that skips gradients that are not finite.

Called by the fine-tune after every backward pass. Nothing here waits for the device: whether the gradients are finite
is checked there, and comes back as a tensor.
"""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

import torch
from transformers import Wav2Vec2ForCTC

from hausa_asr.recipe import FinetuneConfig
from hausa_asr.training.freezing import freed_at, rewarm_factor
from hausa_asr.training.schedules import lr_factor

_LAYER = re.compile(r"encoder\.layers\.(\d+)\.")
HEAD, ENCODER = "head", "encoder"


class _Group(NamedTuple):
    """What the weights of one AdamW group share: their part, the first update in which they learn, weight decay."""

    part: str
    freed: int
    decays: bool


class StepResult(NamedTuple):
    """One update: the gradients' norm before clipping, and 1.0 if it was skipped, else 0.0; both () on the device."""

    norm: torch.Tensor
    skipped: torch.Tensor


class Optimizer:
    """AdamW whose learning rates follow the schedule.

    A frozen part has no gradients, and so no optimizer state until it learns. Parts that are unfrozen later have a
    group of their own, since each has a warm-up of its own.

    Args:
        model: the model, on its device.
        config: the recipe.
        updates: the updates of the whole trial.
    """

    def __init__(self, model: Wav2Vec2ForCTC, config: FinetuneConfig, updates: int) -> None:
        self._config, self._updates = config, updates
        groups: dict[_Group, list[torch.nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            group = self._group_of(model, name, decays=parameter.ndim > 1)
            groups.setdefault(group, []).append(parameter)
        self._adamw: Any = torch.optim.AdamW(
            [
                {"params": parameters, "weight_decay": config.weight_decay if group.decays else 0.0}
                for group, parameters in groups.items()
            ],
            lr=config.lr_peak,
            betas=(config.adam_beta1, config.adam_beta2),
            eps=1e-8,
            fused=True,
        )
        self._groups = list(groups)

    def _group_of(self, model: Wav2Vec2ForCTC, name: str, decays: bool) -> _Group:
        """The group of a weight, by its name."""
        if name.startswith("lm_head."):
            return _Group(HEAD, 0, decays)
        layers = len(model.wav2vec2.encoder.layers)
        layer = _LAYER.search(name)
        if name.startswith("wav2vec2.encoder.layer_norm.") and model.config.do_stable_layer_norm:
            index = layers - 1  # it is above the top layer, and is unfrozen with it
        else:
            index = int(layer[1]) if layer else -1
        fraction, unfreeze = self._config.freeze_transformer_fraction, self._config.unfreeze
        return _Group(ENCODER, freed_at(index, self._updates, layers, fraction, unfreeze), decays)

    def lr(self, step: int) -> float:
        """The learning rate of an update, for all parts but the head and those newly unfrozen."""
        config = self._config
        return config.lr_peak * lr_factor(config.schedule, step, self._updates, config.warmup_fraction)

    def step(self, step: int, learning: list[torch.nn.Parameter], loss: torch.Tensor) -> StepResult:
        """Clip the gradients and make one update, or skip it if the loss or a gradient is not finite.

        Args:
            step: the update.
            learning: the parameters that have gradients.
            loss: () the update's loss.
        """
        base = self.lr(step)
        for settings, group in zip(self._adamw.param_groups, self._groups, strict=True):
            mult = self._config.head_lr_mult if group.part == HEAD else 1.0
            rewarm = rewarm_factor(step, group.freed, self._updates, self._config.rewarm_fraction)
            settings["lr"] = base * mult * rewarm
        norm = torch.nn.utils.clip_grad_norm_(learning, self._config.max_grad_norm or math.inf, foreach=True)
        skipped = 1.0 - (torch.isfinite(norm) & torch.isfinite(loss)).float()
        # With found_inf = 1 the fused kernel changes neither weights nor state, as when a GradScaler skips.
        self._adamw.found_inf = skipped
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)
        return StepResult(norm, skipped)

    def touched(self) -> set[int]:
        """The `id`s of the parameters that an update may have changed: those with optimizer state."""
        return {id(parameter) for parameter in self._adamw.state}

    def state_dict(self) -> dict:
        """AdamW's state, for a checkpoint."""
        return self._adamw.state_dict()

    def load_state_dict(self, state: dict) -> None:
        """Restore AdamW's state from a checkpoint."""
        self._adamw.load_state_dict(state)
