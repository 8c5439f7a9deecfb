"""Learning-rate schedules: the step in, the share of the peak rate out. Called by the optimizer before every update.

A step is an optimizer update, counted from 0. Nothing here holds state, so a resumed trial goes on as before.
"""

from __future__ import annotations

import math

from hausa_asr.recipe import SCHEDULES

TRI_STAGE_HOLD = 0.4
"""Share of the updates at the peak, as in every fairseq recipe for wav2vec 2.0 (warm-up 0.1, hold 0.4, decay 0.5)."""
TRI_STAGE_FINAL = 0.05
"""The last learning rate of fairseq's tri-stage schedule, as a share of the peak."""


def lr_factor(schedule: str, step: int, updates: int, warmup_fraction: float) -> float:
    """The learning rate of one update as a share of its peak.

    Args:
        schedule: one of `recipe.SCHEDULES`.
        step: the update, 0 to `updates` - 1.
        updates: the number of updates of the whole trial.
        warmup_fraction: the share of the updates in which it rises linearly to the peak.

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
