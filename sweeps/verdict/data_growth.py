"""Would more hours help? The winner's dev WER on parts of train and on all of it, and what twice as much would give.

In: the ledger's state, with the runs of `finalists.data_growth`. Out: a `DataGrowth`, or None before two sizes are
there. A power law, `WER = a * hours^-b`, is fitted to all runs by least squares of the logarithms; its interval is that
of the mean of a straight line. Learning curves of speech recognition follow such a law over a wide range (Hestness et
al., 2017, arXiv 1712.00409), and one doubling is not far. Called by `result`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np
from scipy import stats

from hausa_asr.settings.sweep import SweepConfig
from sweeps.planning.finalists import complete, growth
from sweeps.record.state import State
from sweeps.wording import in_brackets, many

_LEAST = 1e-4
"""A WER of 0 has no logarithm."""


@dataclass(frozen=True)
class DataGrowth:
    """What more data would give.

    Attributes:
        setting: the trial whose recipe it is.
        hours: of train.
        wers: dev WER by share of train, a figure for each seed.
        twice: the dev WER that twice the hours would give.
        low, high: its 95 % interval.
        slope: `b` of the law: 1.0 would halve the WER with each doubling.
    """

    setting: str
    hours: float
    wers: Mapping[float, list[float]]
    twice: float
    low: float
    high: float
    slope: float

    def sentence(self) -> str:
        """For the end of a sweep."""
        curve = ", ".join(f"{100 * share:.0f} % {fmean(wers):.3f}" for share, wers in sorted(self.wers.items()))
        seeds = many(max(map(len, self.wers.values())), "seed")
        return (
            f"more data: with twice the {self.hours:.3g} hours of train, {self.setting} is expected at a dev WER of "
            f"{self.twice:.3f} {in_brackets(self.low, self.high)}; so far {curve}, over {seeds}"
        )

    def to_json(self) -> dict[str, Any]:
        """As plain values, for `result.json`."""
        wers = {f"{share:g}": wers for share, wers in self.wers.items()}
        return asdict(self) | {"wers": wers, "sentence": self.sentence()}


def data_growth(state: State, config: SweepConfig, train_s: float) -> DataGrowth | None:
    """Fit the law to the runs that ended well; None where they are of fewer than two shares, or fewer than three.

    Args:
        state: of the sweep, its finalists ended.
        config: its settings.
        train_s: seconds of speech in train.
    """
    runs = [state.trials[run.id] for run in growth(state, config) if run.id in state.trials]
    parts = [run for run in runs if run.state == "finished" and run.best]
    if not parts:
        return None
    setting = parts[0].of
    whole = config.recipe(state.trials[setting].settings).train_share
    wers: dict[float, list[float]] = {}
    for run in (*parts, *(run for run in complete(state, config) if run.of == setting)):
        assert run.best
        wers.setdefault(config.recipe(run.settings).train_share / whole, []).append(run.best["wer"])
    points = [(math.log(share), math.log(max(_LEAST, wer))) for share, every in wers.items() for wer in every]
    if len(wers) < 2 or len(points) < 3:
        return None
    x, y = np.array(points).T
    line = stats.linregress(x, y)
    ahead = math.log(2.0)
    left = y - (line.intercept + line.slope * x)
    degrees = len(points) - 2
    spread = float((x - x.mean()) @ (x - x.mean()))
    error = math.sqrt(float(left @ left) / degrees * (1 / len(points) + (ahead - float(x.mean())) ** 2 / spread))
    mean, reach = line.intercept + line.slope * ahead, float(stats.t.ppf(0.975, degrees)) * error
    low, twice, high = (math.exp(mean + side * reach) for side in (-1, 0, 1))
    return DataGrowth(setting, train_s * whole / 3600, wers, twice, low, high, -float(line.slope))
