"""Where a trial will end among the trials of its sweep, from its ranks at the rungs.

In: the cohorts of the rungs, and the WERs of finished trials. Out: a `Standing` for each trial. Called by `predictor`.

A standing is a normal score: 0 is an average trial, -1 is better than 84 % of all, +1 is worse than 84 %. Only ranks
count, so nothing depends on how low the WER of a corpus can get. Early on the eval loss sees what WER does not; later
the loss may rise by overfitting while WER falls on. So a rung is ranked by the sum of a trial's ranks by loss, CER and
WER. On no recorded table this is much worse than the best of the three, and none of them is best on all
(docs/log.md).

How much a rank at a rung says of the end is a correlation that depends on the share of the length: `CORRELATIONS`, the
mean over recorded tables. At the second and later rungs only the better trials are left. Their ranks there are spread
over what their earlier ranks let expect of them, and not over all trials.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from sweeps.pruning.rule import Score, rank_sums, ranks

CORRELATIONS = (
    (0.05, 0.50), (0.1, 0.60), (0.14, 0.68), (0.2, 0.73), (0.3, 0.76), (0.4, 0.78), (0.56, 0.86), (0.7, 0.91),
    (0.85, 0.97), (1.0, 0.99),
)  # fmt: skip
"""Share of the length, and the correlation of the rank there (by the sum of three) with the final one by WER: the mean
over seven recorded tables, rounded (`python benchmarks/foretell.py`). The last one is for another seed."""
FAILED = 2.0
"""The standing of a trial that diverged: as the worst of forty."""


@dataclass(frozen=True)
class Standing:
    """What the ranks of one trial say.

    Attributes:
        score: its normal score at the last rung where it was ranked.
        correlation: of that score with the final one.
    """

    score: float
    correlation: float

    @property
    def mean(self) -> float:
        """The expected final standing."""
        return self.correlation * self.score

    @property
    def variance(self) -> float:
        """Of the final standing around that."""
        return 1.0 - self.correlation**2


def correlation(share: float) -> float:
    """How well ranks at this share of the length foretell those at the end."""
    shares, values = zip(*CORRELATIONS, strict=True)
    return float(np.interp(share, shares, values))


def standings(
    cohorts: Sequence[tuple[float, Mapping[str, Score]]], finals: Mapping[str, float], failed: Collection[str] = ()
) -> dict[str, Standing]:
    """The standing of every trial that was ranked somewhere.

    Args:
        cohorts: for each rung, its share of the length and the scores there by trial; by rising share.
        finals: the final WER of each finished trial.
        failed: the trials that diverged.
    """
    found: dict[str, Standing] = {}
    for share, scores in cohorts:
        if scores:
            _rank(found, list(scores), rank_sums(list(scores.values())), correlation(share))
    if finals:
        _rank(found, list(finals), [min(wer, 1.0) for wer in finals.values()], correlation(1.0))
    return found | {trial: Standing(FAILED, correlation(1.0)) for trial in failed}


def _rank(found: dict[str, Standing], trials: list[str], values: list[float], now: float) -> None:
    """Add the standings of a cohort, ranked by `values`, whose correlation with the end is `now`."""
    expected = np.zeros(len(trials))
    spread = np.ones(len(trials))
    for place, trial in enumerate(trials):
        if trial in found:
            # As in a Markov chain: what an earlier rung says of the end, it says by way of this one.
            link = min(0.999, found[trial].correlation / now)
            expected[place] = link * found[trial].score
            spread[place] = 1.0 - link**2
    scores = np.zeros(1)
    width = 1.0
    if len(trials) > 1:
        scores = ndtri((np.array(ranks(values)) + 0.5) / len(trials))
        width = math.sqrt(float(np.var(expected) + np.mean(spread)))
    for trial, one in zip(trials, float(np.mean(expected)) + width * scores, strict=True):
        found[trial] = Standing(float(one), now)
