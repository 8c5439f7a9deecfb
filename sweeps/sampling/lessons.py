"""What trials of earlier sweeps teach: settings, and how well they stood among the trials of their own source.

In: trials of an earlier sweep or experiment. Out: a `Lesson` for each that says something of this sweep's space. Only
ranks count, so a corpus on which all WERs are lower teaches as much as any other. Called by `warm_start`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri

from hausa_asr.settings.sweep import SweepConfig
from sweeps.record.trial import DIVERGED, TrialRecord
from sweeps.sampling.space import parameters

FINISHED_VARIANCE, STOPPED_VARIANCE = 0.3, 0.6
"""How far a standing elsewhere can be trusted here: of a trial that came to its end, and of one that was stopped."""


@dataclass(frozen=True)
class Lesson:
    """One trial of an earlier sweep.

    Attributes:
        settings: as far as they are known.
        standing: a normal score among the trials of its source, less is better.
        variance: how far that may be off for a new sweep.
    """

    settings: dict[str, Any]
    standing: float
    variance: float

    @property
    def mean(self) -> float:
        """What these settings can be expected to reach in a new sweep."""
        return self.standing / (1.0 + self.variance)


def lessons(config: SweepConfig, trials: Iterable[TrialRecord], fixed: Mapping[str, Any] | None = None) -> list[Lesson]:
    """What the trials of one source teach a new sweep.

    Finished trials rank before stopped ones: the former by WER, the latter by how far they came and their last loss.

    Args:
        config: the new sweep's settings.
        trials: of one earlier sweep or experiment.
        fixed: the recipe that they shared beside their own settings, as far as it is known.
    """
    ranked = sorted((key, at, trial) for at, trial in enumerate(trials) if (key := _key(trial)) is not None)
    found = []
    for rank, (key, _, trial) in enumerate(ranked):
        settings = {**(fixed or {}), **trial.settings}
        if parameters(config.space, settings)[0]:
            variance = STOPPED_VARIANCE if key[0] else FINISHED_VARIANCE
            found.append(Lesson(settings, float(ndtri((rank + 0.5) / len(ranked))), variance))
    return found


def _key(trial: TrialRecord) -> tuple[int, float, float] | None:
    """What a trial ranks by, less is better; None for one that says nothing of its settings."""
    if trial.state == "finished" and trial.best:
        return 0, trial.best["wer"], 0.0
    if trial.state == "failed" and trial.reason == DIVERGED:
        return 2, 0.0, 0.0
    if trial.state in ("pruned", "paused") and trial.reports:
        loss = trial.points[-1].loss
        return 1, -trial.seen_s, loss if math.isfinite(loss) else math.inf
    return None


def most_telling(found: list[Lesson], count: int) -> list[Lesson]:
    """At most `count` lessons, so that a proposal stays fast: half of them the best, the rest evenly of the others."""
    if len(found) <= count:
        return found
    ranked = sorted(found, key=lambda one: one.mean)
    best, others = ranked[: count // 2], ranked[count // 2 :]
    return best + [others[at] for at in np.linspace(0, len(others) - 1, count - count // 2).astype(int)]
