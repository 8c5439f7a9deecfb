"""Learning-rate and freeze schedules, as pure functions of the step; the fine-tune asks them before every update.

A step is an optimizer update, counted from 0. Nothing here holds state, so a resumed trial is where it was.
"""

from __future__ import annotations

import math
from typing import NamedTuple

SCHEDULES = ("linear", "cosine", "tri_stage")
UNFREEZE = ("all", "top_down")

TRI_STAGE_HOLD = 0.4
"""Share of the updates spent at the peak, as in every fairseq wav2vec 2.0 recipe (warm-up 0.1, hold 0.4, decay 0.5)."""
TRI_STAGE_FINAL = 0.05
"""Where fairseq's tri-stage schedule ends, as a share of the peak."""


def lr_factor(schedule: str, step: int, updates: int, warmup_fraction: float) -> float:
    """The learning rate of one update as a share of its peak.

    Args:
        schedule: one of `SCHEDULES`.
        step: the update, 0 to `updates` - 1.
        updates: the number of updates of the whole trial.
        warmup_fraction: the share of the updates that rises linearly to the peak.

    Returns:
        A number above 0 and at most 1. `linear` and `cosine` fall towards 0, `tri_stage` holds the peak and then
        decays exponentially to `TRI_STAGE_FINAL` (fairseq, `tri_stage_lr_scheduler.py`).
    """
    warmup = max(1, round(warmup_fraction * updates))
    if step < warmup:
        return (step + 1) / warmup
    rest = max(1, updates - warmup)
    done = (step - warmup) / rest
    if schedule == "linear":
        return 1.0 - done
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    if schedule == "tri_stage":
        hold = min(round(TRI_STAGE_HOLD * updates), rest)
        if step < warmup + hold:
            return 1.0
        decay = max(1, updates - warmup - hold)
        return math.exp(math.log(TRI_STAGE_FINAL) * min(1.0, (step - warmup - hold) / decay))
    raise ValueError(f"no such schedule: {schedule!r}, known are {', '.join(SCHEDULES)}")


class Trainable(NamedTuple):
    """Which parts of the transformer learn at a step. The CTC head always does.

    Attributes:
        first_layer: transformer layers from this index upwards learn; equal to the number of layers when none does.
        projection: the feature projection, the mask embedding and the positional convolution learn. They lie below
            all layers, so they learn only once every layer does.
    """

    first_layer: int
    projection: bool


def trainable(step: int, updates: int, layers: int, freeze_fraction: float, unfreeze: str) -> Trainable:
    """Which transformer layers learn at `step`.

    The whole transformer is frozen for the first `freeze_fraction` of the updates. Then `all` frees it at once, as
    fairseq's `freeze_finetune_updates` does, and `top_down` frees the top layer at once and the others one after
    another, evenly, until as many updates again have passed.

    Args:
        step: the update, from 0.
        updates: the number of updates of the whole trial.
        layers: the number of transformer layers.
        freeze_fraction: 0 to 1.
        unfreeze: one of `UNFREEZE`.
    """
    frozen = round(freeze_fraction * updates)
    if step < frozen:
        return Trainable(layers, projection=False)
    if unfreeze == "all" or frozen == 0:
        return Trainable(0, projection=True)
    if unfreeze != "top_down":
        raise ValueError(f"no such way to unfreeze: {unfreeze!r}, known are {', '.join(UNFREEZE)}")
    freed = 1 + math.floor((step - frozen) * layers / frozen)
    return Trainable(max(0, layers - freed), projection=freed > layers)


def freed_at(layer: int, updates: int, layers: int, freeze_fraction: float, unfreeze: str) -> int:
    """The first update in which a part learns, by the rule of `trainable`.

    Args:
        layer: a transformer layer, or -1 for what lies below all of them.
        updates, layers, freeze_fraction, unfreeze: as in `trainable`.
    """
    frozen = round(freeze_fraction * updates)
    if unfreeze == "all" or frozen == 0:
        return frozen
    return frozen + math.ceil((layers - 1 - layer) * frozen / layers)


def rewarm_factor(step: int, freed: int, updates: int, rewarm_fraction: float) -> float:
    """The learning rate of a part that was freed on the way, as a share of the others'.

    AdamW's first steps are as large as the learning rate, whatever the gradients: harmless in the warm-up, and not at
    the peak, where a head-only phase usually ends. So it rises linearly; 1 for what learns from the beginning.
    """
    if freed == 0:
        return 1.0
    return min(1.0, (step - freed + 1) / max(1, round(rewarm_fraction * updates)))
