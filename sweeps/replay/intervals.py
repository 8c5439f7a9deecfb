"""Means and ratios over replays, with intervals that count the settings of the table as chance too.

In: one figure per replay, of all settings and of random parts of them. Out: `Estimate`s. Called by `compare` and
`savings`.

More replays of one table make the noise of orders and seeds small, and leave that of the settings: another draw of as
many settings would have another best one, which is learned sooner or later. So each of `Setup.resamples` parts holds a
random two thirds of the settings, without replacement, and is replayed as the whole is. A bootstrap would draw with
replacement: a sweep would then try one setting twice, which no sweep does, and a sampler would know the second time.
How much the figure varies between parts, above what their few replays explain, is the variance by settings; times
kept / left out it is that of the whole table (the delete-d jackknife). The variance over replays of the whole is added.
The interval reaches two standard errors to each side; for ratios they are those of the logarithm. Where a part has
fewer settings than a sweep tries, its sweeps are shorter, which the logarithm mostly evens out. The baseline is in
every part, as in every sweep: it is no chance.

Tables of other settings were drawn to check this: 40 from the demo's, 40 times, differed in a ratio of times by 0.104
(standard deviation of the logarithm), and the intervals said 0.105.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

KEPT = 2 / 3
"""The share of the settings, the baseline left aside, that a part keeps."""
WIDTH = 2.0
"""Standard errors from the mean to each end of an interval."""


@dataclass(frozen=True)
class Estimate:
    """A mean over replays, with its 95 % interval."""

    mean: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        return f"{self.mean:{spec}} ({self.low:{spec}}-{self.high:{spec}})"

    @property
    def log_se(self) -> float:
        """The standard error of the logarithm of a ratio."""
        return math.log(self.high / self.low) / (2 * WIDTH)


@dataclass(frozen=True)
class Column:
    """One figure per replay.

    Attributes:
        above: the figure itself.
        below: what its mean is divided by the mean of; None for a plain mean.
    """

    above: np.ndarray
    below: np.ndarray | None = None

    def value(self) -> float:
        """The mean, or the ratio of the two means."""
        return float(self.above.mean() / (1.0 if self.below is None else self.below.mean()))

    def variance(self) -> float:
        """Variance of the value by the choice of replays; for a ratio, paired replay by replay."""
        count = len(self.above)
        if count < 2:
            return 0.0
        below = np.ones(count) if self.below is None else self.below
        return float(np.var((self.above - self.value() * below) / below.mean(), ddof=1)) / count


def estimate(whole: Column, parts: Sequence[Column] = ()) -> Estimate:
    """Estimate a figure.

    Args:
        whole: from replays of all settings.
        parts: from replays of each part; without, the interval is over replays of the same settings only.
    """
    if whole.below is None:
        mean, (variance, between) = whole.value(), _variances(whole, parts, log=False)
        reach = WIDTH * math.sqrt(variance + between)
        return Estimate(mean, mean - reach, mean + reach)
    mean, (variance, between) = whole.value(), _variances(whole, parts, log=True)
    reach = math.exp(WIDTH * math.sqrt(variance + between))
    return Estimate(mean, mean / reach, mean * reach)


def share(whole: Column, parts: Sequence[Column] = ()) -> Estimate:
    """Estimate a figure that lies between 0 and 1, and so does its interval."""
    found = estimate(whole, parts)
    return Estimate(found.mean, max(found.low, 0.0), min(found.high, 1.0))


def _variances(whole: Column, parts: Sequence[Column], log: bool) -> tuple[float, float]:
    """Variance over replays, and over settings."""
    scaled = [(part.value(), part.variance()) for part in (whole, *parts)]
    if log:
        scaled = [(math.log(value), variance / value**2) for value, variance in scaled]
    (_, over_replays), *of_parts = scaled
    if len(of_parts) < 2:
        return over_replays, 0.0
    between = float(np.var([value for value, _ in of_parts], ddof=1))
    noise = float(np.mean([variance for _, variance in of_parts]))
    return over_replays, max(between - noise, 0.0) * KEPT / (1 - KEPT)


def together(ratios: Sequence[Estimate]) -> Estimate:
    """The geometric mean of ratios from several tables, which are independent."""
    mean = math.exp(sum(math.log(one.mean) for one in ratios) / len(ratios))
    reach = math.exp(WIDTH * math.hypot(*(one.log_se for one in ratios)) / len(ratios))
    return Estimate(mean, mean / reach, mean * reach)
