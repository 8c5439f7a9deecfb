"""How often a trial sees its train split, whether that is far from what has worked, and how often it is evaluated.

In: the settings, and the seconds of each split as far as they are known. Out: the length in seconds; words for the plan
and the start of a sweep; the time between evaluations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean

from hausa_asr.errors import UserError
from hausa_asr.settings.recipe import Dimension
from hausa_asr.settings.sweep import SweepConfig

FEW, MANY = 3, 100
"""Published fine-tunes on a few hours see them 15 to 100 times; of hundreds of hours fewer passes are enough."""


def of_known_length(config: SweepConfig, seconds: Mapping[str, float]) -> SweepConfig:
    """The settings with a trial's length in seconds.

    Raises:
        UserError: it is given in epochs, and nothing is prepared yet.
    """
    if config.finetune.length_epochs is None:
        return config
    if "train" not in seconds:
        raise UserError(
            "A trial's length is given in epochs, but how long the train split is will be known once it is prepared.",
            where="finetune.length_epochs",
            fix="Run `hausa-asr prepare --config FILE` first, or give finetune.length_s.",
        )
    return config.with_length(seconds["train"])


def epochs(config: SweepConfig, seconds: Mapping[str, float]) -> float | None:
    """How often a trial of full length sees the train split; None if that is not known."""
    train_s = seconds.get("train")
    return config.recipe().length_s / train_s if train_s else None


def warning(config: SweepConfig, seconds: Mapping[str, float]) -> str:
    """What to look at where a trial sees its data very rarely or very often; "" otherwise. The demo is to be short."""
    times = epochs(config, seconds)
    if times is None or FEW <= times <= MANY or config.data.corpus == "demo":
        return ""
    train_h = seconds["train"] / 3600
    return (
        f"a trial sees its {train_h:.3g} h of train {times:.2g} times, where {FEW} to {MANY} are usual; "
        "set finetune.length_epochs"
    )


def evaluation_interval_s(config: SweepConfig) -> float:
    """Seconds of audio that a trial is trained on between two evaluations: the mean over what the space may draw.

    It is the harmonic mean, since trials of half the batch are evaluated twice as often.
    """
    searched, recipe = config.space.get("batch_s", ()), config.recipe()
    batches = fmean(map(_mean_inverse, searched)) if searched else 1 / recipe.batch_s
    return recipe.eval_every_steps / batches


def _mean_inverse(one: Dimension) -> float:
    """The mean of 1/x, where x is drawn from a dimension."""
    if one.choices is not None:
        return fmean(1 / choice for choice in one.choices)
    assert one.low is not None and one.high is not None
    if one.log:
        return (1 / one.low - 1 / one.high) / math.log(one.high / one.low)
    return math.log(one.high / one.low) / (one.high - one.low)
