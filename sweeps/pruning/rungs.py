"""Place the rungs of a sweep, and say when a trial is ready for them; all in seconds of audio trained on.

In: the settings, or a trial's recipe. Out: numbers. Called when a sweep starts, at every report, and by the replay.
The ledger keeps the rungs with which a sweep began.
"""

from __future__ import annotations

from hausa_asr.recipe import FinetuneConfig
from hausa_asr.settings.sweep import SweepConfig


def rungs(length_s: float, first_rung: float, reduction: int) -> list[float]:
    """Place the rungs in seconds of audio: the first at a share of the length, each next `reduction` times later."""
    marks = []
    at_s = first_rung * length_s
    while at_s < length_s * 0.999:
        marks.append(at_s)
        at_s *= reduction
    return marks


def rungs_s(config: SweepConfig) -> list[float]:
    """Place the rungs of a new sweep, in seconds of audio; none if it does not prune."""
    pruning = config.pruning
    return rungs(config.recipe().length_s, pruning.first_rung, pruning.reduction) if pruning.rule == "asha" else []


def free_s(recipe: FinetuneConfig) -> float:
    """The seconds of audio after which the whole transformer learns."""
    freeing = 2 if recipe.unfreeze == "top_down" else 1  # layer by layer takes as long again (training/freezing.py)
    return freeing * recipe.freeze_transformer_fraction * recipe.length_s


def ready_s(recipe: FinetuneConfig, first_rung_s: float = 0.0, of: FinetuneConfig | None = None) -> float:
    """The seconds of audio after which a trial can be compared: warmed up, its transformer wholly free, not too young.

    Leaving the CTC plateau takes a number of updates, and with large batches the same audio makes fewer of them. So a
    trial is too young until it has made as many updates as the fixed recipe makes by the first rung.

    Args:
        recipe: the trial's.
        first_rung_s: the first rung, in seconds of audio; 0 where updates do not matter.
        of: the fixed recipe of the sweep.
    """
    young_s = first_rung_s * (recipe.batch_s / of.batch_s) if of else 0.0
    return max(recipe.warmup_fraction * recipe.length_s, free_s(recipe), young_s)
