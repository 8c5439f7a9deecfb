"""A count over all of something, with its interval: what every line of a diagnosis is.

In: counts by utterance. Out: rates with 95 % intervals from a bootstrap of utterances, or of speakers where at least
eight are known. Called by `words`, `letters`, `groups` and `findings`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hausa_asr.metrics import bootstrap_wer, interval

RESAMPLES = 2_000


@dataclass(frozen=True)
class Tally:
    """Counts by utterance: how many of what there is, both (U,), and the unit that each utterance is resampled with."""

    counts: np.ndarray
    of: np.ndarray
    units: np.ndarray

    @cached_property
    def draws(self) -> np.ndarray:
        """(RESAMPLES,) rates on resampled utterances, NaN in draws that have nothing to count.

        Two tallies of the same utterances draw the same ones.
        """
        # An unfit draw has no units of what is counted: told apart from none wrong by a second count, of all.
        both = np.stack([self.counts, self.of])
        rates = bootstrap_wer(both, self.of, self.units, resamples=RESAMPLES)
        return np.where(rates[:, 1] > 0, rates[:, 0], np.nan)

    @property
    def support(self) -> int:
        """How many of the resampled units have something to count: of few, an interval says little."""
        return len(np.unique(self.units[self.of > 0]))


@dataclass(frozen=True)
class Figure:
    """One line of a diagnosis.

    Attributes:
        name: what is counted.
        count, of: how many, of how many there are.
        low, high: the 95 % interval of the rate.
    """

    name: str
    count: int
    of: int
    low: float
    high: float

    @property
    def rate(self) -> float:
        """`count` as a share of `of`; 0 if there is nothing to count."""
        return self.count / self.of if self.of else 0.0


def figure(name: str, tally: Tally) -> Figure:
    """The rate of a tally, with its interval."""
    count, of = int(tally.counts.sum()), int(tally.of.sum())
    low, high = _interval(tally.draws)
    return Figure(name, count, of, low, high)


def difference(one: Tally, other: Tally) -> tuple[float, float]:
    """The 95 % interval of one rate less another, on the same resampled utterances."""
    return _interval(one.draws - other.draws)


def _interval(draws: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of what is known; zeros where nothing is."""
    known = draws[~np.isnan(draws)]
    return interval(known) if len(known) else (0.0, 0.0)
