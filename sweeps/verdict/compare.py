"""Compare settings by the word errors of their runs on one split: WER, its interval, and paired differences.

In: what each run made of a split, utterance by utterance. Out: figures by setting. Numbers only: no files, no models.
Called by `verdict`, for dev, and by `margin`, for test.

Each interval is the middle 95 % of a paired bootstrap: all models on the same resampled splits, by speaker where
speakers are known (`metrics.bootstrap_units`). Where a setting was trained on several seeds those are resampled too, so
that the noise of training is in the interval: one fewer is drawn than there are, which gives their mean its right
variance (Rao and Wu, 1988). On simulated sweeps with 8 to 30 speakers the intervals held the truth in 92 to 99 % of 400
cases with two seeds or more, and in 71 to 86 % with one. So of settings with one seed it is not said which is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hausa_asr.metrics import bootstrap_units, bootstrap_wer, interval
from sweeps.wording import in_brackets, lower

ONE_SEED = "one seed cannot tell which is better"


@dataclass(frozen=True)
class RunScores:
    """One run on a split.

    Attributes:
        setting: the trial whose settings it has, such as `t003`.
        trial: its own id, such as `t003-s1`.
        seed: its seed.
        errors: word errors of each of U utterances, (U,).
        words: words of each reference, (U,).
    """

    setting: str
    trial: str
    seed: int
    errors: np.ndarray
    words: np.ndarray

    @property
    def wer(self) -> float:
        """Over the whole split."""
        return float(self.errors.sum() / max(1, self.words.sum()))


@dataclass(frozen=True)
class Difference:
    """The winner's WER minus another setting's, with its 95 % interval; negative where the winner is better.

    `seeds` is how many seeds the one of the two has that has fewer.
    """

    other: str
    wer: float
    low: float
    high: float
    seeds: int

    @property
    def is_clear(self) -> bool | None:
        """Whether the interval leaves out 0; None with one seed, whose interval lacks the noise of training."""
        return None if self.seeds < 2 else self.high < 0 or self.low > 0

    def __str__(self) -> str:
        """By how much the winner is lower, or higher."""
        return lower(self.wer, self.low, self.high) + self._unclear

    @property
    def within(self) -> str:
        """The interval of the gap, and whether that is too close to call."""
        low, high = (self.low, self.high) if self.wer > 0 else (-self.high, -self.low)
        return in_brackets(low, high) + self._unclear

    @property
    def _unclear(self) -> str:
        return ", too close to call" if self.is_clear is False else ""


class Resampled:
    """Mean WER of settings on one split and on many resampled ones.

    Args:
        models: the runs, M of them, all scored on the same U utterances.
        speakers: the speaker of each utterance, "" where unknown.
        settings: all settings, in the order that breaks ties; where not given, those of the runs.
        resamples, seed: of the bootstrap.

    Attributes:
        unit: `speaker` or `utterance`: what is resampled.
        units: how many of them the split has.
        resamples: how often.
        runs: each setting's runs, perhaps none.
        means: (R,) mean WER over the seeds of each setting that has a run.

    Raises:
        ValueError: the runs were not scored on the same utterances.
    """

    def __init__(
        self,
        models: Sequence[RunScores],
        speakers: Sequence[str],
        settings: Sequence[str] = (),
        *,
        resamples: int = 10_000,
        seed: int = 0,
    ) -> None:
        words = models[0].words
        if any(len(model.errors) != len(speakers) or not np.array_equal(model.words, words) for model in models):
            raise ValueError("the finalists were not scored on the same utterances")
        self.unit, units = bootstrap_units(speakers)
        self.units, self.resamples = int(units.max()) + 1, resamples
        errors = np.stack([model.errors for model in models])
        rates = bootstrap_wer(errors, words, units, resamples=resamples, seed=seed)
        rows: dict[str, list[int]] = {name: [] for name in settings}
        for row, model in enumerate(models):
            rows.setdefault(model.setting, []).append(row)
        self.runs = {name: [models[row] for row in of] for name, of in rows.items()}
        draw = np.random.default_rng([seed, 1])
        self.means = {name: _mean_of_seeds(rates[:, of], draw) for name, of in rows.items() if of}

    def wer(self, setting: str) -> float:
        """Mean WER over a setting's seeds."""
        return float(np.mean([run.wer for run in self.runs[setting]]))

    def interval(self, setting: str) -> tuple[float, float]:
        """The 95 % interval of a setting's WER."""
        return interval(self.means[setting])

    def difference(self, winner: str, other: str) -> Difference:
        """The winner against another setting, paired."""
        seeds = min(len(self.runs[winner]), len(self.runs[other]))
        ends = interval(self.means[winner] - self.means[other])
        return Difference(other, self.wer(winner) - self.wer(other), *ends, seeds)


def _mean_of_seeds(rates: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """(R, S) of one setting to the mean of S - 1 seeds drawn anew for each resample, (R,); of the one, if S is 1."""
    resamples, seeds = rates.shape
    if seeds == 1:
        return rates[:, 0]
    drawn = draw.integers(seeds, size=(resamples, seeds - 1))
    return np.take_along_axis(rates, drawn, axis=1).mean(axis=1)
