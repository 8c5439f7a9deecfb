"""Freeze schedules: which weights learn in which update. Called by the fine-tune before every update.

Pure functions of the step, an optimizer update counted from 0, so a resumed trial goes on as before; and
`set_trainable`, which applies them to a model.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from transformers import Wav2Vec2ForCTC

from hausa_asr.recipe import UNFREEZE


class Trainable(NamedTuple):
    """The parts of the transformer that learn at a step. The CTC head always does.

    Attributes:
        first_layer: transformer layers from this index upwards learn; the number of layers if none does.
        projection: the feature projection, the mask embedding and the positional convolution learn. They are below
            all layers, so they learn only once every layer does.
    """

    first_layer: int
    projection: bool


def trainable(step: int, updates: int, layers: int, freeze_fraction: float, unfreeze: str) -> Trainable:
    """The parts of the transformer that learn at `step`.

    The whole transformer is frozen for the first `freeze_fraction` of the updates. Then `all` unfreezes it at once, as
    fairseq's `freeze_finetune_updates` does. `top_down` unfreezes the top layer first and the others one after another,
    evenly over as many updates as it was frozen for.

    Args:
        step: the update, from 0.
        updates: the number of updates of the whole trial.
        layers: the number of transformer layers.
        freeze_fraction: 0 to 1.
        unfreeze: one of `recipe.UNFREEZE`.
    """
    frozen = round(freeze_fraction * updates)
    if step < frozen:
        return Trainable(layers, projection=False)
    if unfreeze == "all" or frozen == 0:
        return Trainable(0, projection=True)
    if unfreeze != "top_down":
        raise ValueError(f"no such freeze schedule: {unfreeze!r}, known are {', '.join(UNFREEZE)}")
    freed = 1 + math.floor((step - frozen) * layers / frozen)
    return Trainable(max(0, layers - freed), projection=freed > layers)


def freed_at(layer: int, updates: int, layers: int, freeze_fraction: float, unfreeze: str) -> int:
    """The first update in which a layer learns, by the same rule as `trainable`.

    Args:
        layer: a transformer layer, or -1 for the parts below all layers.
        updates, layers, freeze_fraction, unfreeze: as in `trainable`.
    """
    frozen = round(freeze_fraction * updates)
    if unfreeze == "all" or frozen == 0:
        return frozen
    return frozen + math.ceil((layers - 1 - layer) * frozen / layers)


def rewarm_factor(step: int, freed: int, updates: int, rewarm_fraction: float) -> float:
    """The learning rate of a newly unfrozen part, as a share of the others': a linear rise from 0 to 1.

    AdamW's first steps are as large as the learning rate, whatever the gradients. That is harmless during the warm-up
    but not at the peak, where a head-only phase usually ends.

    Args:
        step: the update, from 0.
        freed: the first update in which the part learns, from `freed_at`; 0 gives 1 at every step.
        updates: the number of updates of the whole trial.
        rewarm_fraction: the share of the updates in which it rises.
    """
    if freed == 0:
        return 1.0
    return min(1.0, (step - freed + 1) / max(1, round(rewarm_fraction * updates)))


def set_trainable(model: Wav2Vec2ForCTC, parts: Trainable, *, feature_encoder: bool, adapters: bool = False) -> None:
    """Turn gradients on for the weights that learn at this step, and off for the rest.

    Autograd records nothing below the lowest part that learns, so a frozen transformer costs a forward pass only.

    Args:
        model: the model.
        parts: the parts of the transformer that learn.
        feature_encoder: the convolutions learn too, once all parts above them do.
        adapters: of each layer, only its adapter learns, and nothing below the layers.
    """
    encoder = model.wav2vec2
    below = parts.projection and not adapters
    encoder.feature_extractor.requires_grad_(feature_encoder and below)
    encoder.feature_projection.requires_grad_(below)
    encoder.masked_spec_embed.requires_grad_(below)
    encoder.encoder.requires_grad_(below)  # the positional convolution and the layer norm
    for index, layer in enumerate(encoder.encoder.layers):
        learns = index >= parts.first_layer
        layer.requires_grad_(learns and not adapters)
        if adapters:
            layer.adapter_layer.requires_grad_(learns)
    # The last layer norm of a pre-norm transformer is above all layers.
    if model.config.do_stable_layer_norm and not adapters:
        encoder.encoder.layer_norm.requires_grad_(parts.first_layer < len(encoder.encoder.layers))
    model.lm_head.requires_grad_(True)
