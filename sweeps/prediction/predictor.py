"""What a sweep expects of its trials, and of settings that were not tried: `Predictor`.

In: the rungs' cohorts, finished and failed trials, and the settings of all as numbers. Out: for every trial where it
will end, as a mean and a spread of its standing; the gain to be hoped for from new settings; the chance that a stopped
trial would have won. Two things are put together: a trial's own ranks so far (`standing`), and the trials with like
settings (`surrogate`): slow starters that end well are known by their settings. Called by the scheduler, the sampler,
the verdict and the replay.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from sweeps.prediction.standing import Standing, standings
from sweeps.prediction.surrogate import Surrogate
from sweeps.pruning.rule import Score

FEWEST = 3
"""With fewer ranked trials, settings say nothing yet."""
AT_MOST = 120
"""At most this many trials go into the process, half of them the best and half the latest: more would take too long."""
_PENDING = 0.2
"""The variance of the guess that stands for a trial that runs and was not ranked yet."""
_DRAWS = 4000
_WIDER = 1.2
"""What the spreads are multiplied by. On seven tables 80 % intervals then held 72 to 84 %, and 62 to 79 % without
(`python benchmarks/foretell.py`)."""


@dataclass(frozen=True)
class Expected:
    """Where a trial will end: mean and standard deviation of its standing, less is better."""

    mean: float
    spread: float


class Predictor:
    """Predict the trials of one sweep.

    Args:
        cohorts: for each rung its share of the length, and the scores there by trial, which grow (`Rule.shares`).
    """

    def __init__(self, cohorts: Sequence[tuple[float, Mapping[str, Score]]]) -> None:
        self._cohorts = cohorts
        self._places: dict[str, np.ndarray] = {}
        self._finals: dict[str, float] = {}
        self._failed: set[str] = set()
        self._learned: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self._seen: tuple[int, ...] = ()
        self._standings: dict[str, Standing] = {}
        self._expected: dict[str, Expected] = {}  # of those asked for since the last news
        self._surrogate: Surrogate | None = None

    def place(self, trial: str, settings: np.ndarray) -> None:
        """Record a trial's settings, (D,) numbers from 0 to 1."""
        self._places[trial] = settings

    def finish(self, trial: str, wer: float) -> None:
        """Record the final WER of a trial."""
        self._finals[trial] = wer

    def fail(self, trial: str) -> None:
        """Record that a trial diverged."""
        self._failed.add(trial)

    def learn(self, settings: np.ndarray, standings: np.ndarray, variances: np.ndarray) -> None:
        """Take in trials of earlier sweeps: (N, D) settings, their (N,) standings there, and how far to trust each."""
        self._learned = settings, standings, variances
        self._seen = ()

    def means(self, trials: Collection[str]) -> dict[str, float]:
        """The expected standings of these trials; what a rung ranks by."""
        return {trial: one.mean for trial, one in self.expected(trials).items()}

    def expected(self, trials: Collection[str]) -> dict[str, Expected]:
        """Where these trials will end. One without ranks and settings is expected to be average."""
        self._update()
        new = [trial for trial in trials if trial not in self._expected]
        if new:
            self._expected |= self._expect(new)
        return {trial: self._expected[trial] for trial in trials}

    def _expect(self, trials: Sequence[str]) -> dict[str, Expected]:
        means, variances, noise = np.zeros(len(trials)), np.ones(len(trials)), 1.0
        if self._surrogate is not None:
            noise = self._surrogate.noise
            known = [number for number, trial in enumerate(trials) if trial in self._places]
            if known:
                chosen = np.array([self._places[trials[number]] for number in known])
                means[known], variances[known] = self._surrogate(chosen)
        found = {}
        for trial, mean, variance in zip(trials, means.tolist(), variances.tolist(), strict=True):
            own = self._standings.get(trial)
            if own is None and self._surrogate is None:
                found[trial] = Expected(0.0, 1.0)
            elif own is None:
                found[trial] = Expected(mean, _WIDER * math.sqrt(variance + noise))
            elif self._surrogate is None:
                found[trial] = Expected(own.mean, _WIDER * math.sqrt(own.variance))
            else:
                # What settings leave open is the trial's own: its ranks say it, as far as they can be trusted.
                value, trust = _observed(own)
                share = noise / (noise + trust)
                left = variance * (1 - share) ** 2 + noise * trust / (noise + trust)
                found[trial] = Expected(mean + share * (value - mean), _WIDER * math.sqrt(left))
        return found

    def gains(self, settings: np.ndarray, running: Collection[str] = ()) -> np.ndarray | None:
        """How much better than the best so far new settings may be: expected improvement, for each of them.

        Args:
            settings: (M, D) numbers from 0 to 1.
            running: trials that were not ranked yet. They count as what is expected of them, so that several workers
                do not try the same.

        Returns:
            (M,) standings gained; None while too little is known.
        """
        self._update()
        if self._surrogate is None:
            return None
        surrogate = self._surrogate
        waiting = [trial for trial in running if trial in self._places and trial not in self._standings]
        if waiting:
            places = np.array([self._places[trial] for trial in waiting])
            surrogate = surrogate.with_more(places, surrogate(places)[0], np.full(len(waiting), _PENDING))
        best = float(surrogate(surrogate.places)[0].min())
        means, variances = surrogate(settings)
        spread = np.sqrt(variances + surrogate.noise / 2)
        ahead = (best - means) / spread
        return spread * (ahead * ndtr(ahead) + np.exp(-(ahead**2) / 2) / np.sqrt(2 * np.pi))

    def chance_missed(self, winner: str, stopped: Collection[str]) -> float:
        """The chance that at least one of the stopped trials would have ended better than the winner."""
        self._update()
        stopped = [trial for trial in stopped if trial in self._standings or trial in self._places]
        if not stopped:
            return 0.0
        found = self.expected([winner, *stopped])
        means = np.array([found[trial].mean for trial in stopped])
        spreads = np.array([found[trial].spread for trial in stopped])
        drawn = means + spreads * np.random.default_rng(0).standard_normal((_DRAWS, len(stopped)))
        return float(np.mean(drawn.min(axis=1) < found[winner].mean))

    def _update(self) -> None:
        """Read the cohorts again, and fit the surrogate, if anything is new."""
        seen = (len(self._places), len(self._finals), len(self._failed), *(len(one) for _, one in self._cohorts))
        if seen == self._seen:
            return
        self._seen, self._expected = seen, {}
        self._standings = standings(self._cohorts, self._finals, self._failed)
        known = [trial for trial in self._places if trial in self._standings]
        if len(known) > AT_MOST:
            best = sorted(known, key=lambda trial: self._standings[trial].mean)[: AT_MOST // 2]
            known = [*best, *[trial for trial in known if trial not in set(best)][-(AT_MOST - len(best)) :]]
        self._surrogate = None
        places = np.array([self._places[trial] for trial in known])
        observed = np.array([_observed(self._standings[trial]) for trial in known]).reshape(-1, 2)
        values, trusts = observed[:, 0], observed[:, 1]
        if self._learned is not None:
            earlier, standings_there, variances = self._learned
            places = np.concatenate([earlier, places]) if len(known) else earlier
            values, trusts = np.r_[standings_there, values], np.r_[variances, trusts]
        if len(values) >= FEWEST:
            self._surrogate = Surrogate(places, values, trusts)


def _observed(one: Standing) -> tuple[float, float]:
    """A standing as an unbiased observation of the final one, and its variance."""
    return one.score / one.correlation, 1.0 / one.correlation**2 - 1.0
