"""Which setting won, and how surely: the finalists' word errors in, a verdict with intervals out.

The best settings and the baseline were trained again on fresh seeds. Called at the end of a sweep; the report page and
`result.json` repeat it. Numbers only: no files, no models.

The winner has the lowest dev WER, averaged over its seeds. Each interval is the middle 95 % of a paired bootstrap: all
models on the same resampled dev sets, by speaker where speakers are known (`metrics.bootstrap_units`). Where a setting
was trained on several seeds those are resampled too, so that the noise of training is in the interval: one fewer is
drawn than there are, which gives their mean its right variance (Rao and Wu, 1988). On simulated sweeps with 8 to 30
speakers the intervals held the truth in 92 to 99 % of 400 cases with two seeds or more, and in 71 to 86 % with one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hausa_asr.metrics import bootstrap_units, bootstrap_wer, interval
from sweeps.wording import in_brackets, many


@dataclass(frozen=True)
class FinalistScores:
    """One finalist run on dev.

    Attributes:
        setting: the trial whose settings it repeats, such as `t003`.
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
        """Over the whole of dev."""
        return float(self.errors.sum() / max(1, self.words.sum()))


@dataclass(frozen=True)
class Standing:
    """How one setting did.

    Attributes:
        setting: the trial that found it.
        wer: dev WER, mean over seeds.
        low, high: its 95 % interval.
        seeds: dev WER by seed.
        trials: the runs, in the order of `seeds`.
        p_best: in what share of the resamples it has the lowest WER.
    """

    setting: str
    wer: float
    low: float
    high: float
    seeds: dict[int, float]
    trials: list[str]
    p_best: float


@dataclass(frozen=True)
class Difference:
    """The winner's dev WER minus another setting's, with its 95 % interval; negative where the winner is better."""

    other: str
    wer: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.high < 0 or self.low > 0

    def __str__(self) -> str:
        """The interval the other way round: by how much the winner is lower."""
        return in_brackets(-self.high, -self.low) + ("" if self.is_clear else ", too close to call")


@dataclass(frozen=True)
class Verdict:
    """What the finalists showed.

    Attributes:
        winner: the setting with the lowest dev WER.
        standings: all settings that have a run, the lowest dev WER first.
        baseline: the baseline's setting; None if there is none.
        to_baseline: the winner against the baseline; None where it has no run, or is the winner.
        relative: the change of WER against the baseline as a share of that: -0.4 is 40 % fewer errors.
        to_runner_up: the winner against the second; None if there is none.
        unit: `speaker` or `utterance`: what was resampled.
        units: how many of them dev has.
        resamples: how often.
        seeds: how many seeds each setting was to have.
        missing: settings that have fewer, and how many they have.
    """

    winner: str
    standings: list[Standing]
    baseline: str | None
    to_baseline: Difference | None
    relative: float | None
    to_runner_up: Difference | None
    unit: str
    units: int
    resamples: int
    seeds: int
    missing: dict[str, int]

    def of(self, setting: str) -> Standing:
        """How a setting did. Raises `KeyError` where it has no run."""
        return {standing.setting: standing for standing in self.standings}[setting]

    def sentences(self) -> list[str]:
        """For the end of a sweep: the verdict in a line, and what is to be known about it."""
        return [self._verdict(), *self._notes()]

    def to_json(self) -> dict[str, Any]:
        """As plain values, for the ledger and `result.json`."""
        return asdict(self) | {"sentences": self.sentences()}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Verdict:
        """The verdict that `to_json` wrote."""
        values: dict[str, Any] = {name: fields[name] for name in cls.__dataclass_fields__}
        values["standings"] = [
            Standing(**{**one, "seeds": {int(seed): wer for seed, wer in one["seeds"].items()}})
            for one in fields["standings"]
        ]
        for name in ("to_baseline", "to_runner_up"):
            values[name] = Difference(**fields[name]) if fields[name] else None
        return cls(**values)

    def _verdict(self) -> str:
        best = self.of(self.winner)
        wer, over = f"{best.wer:.3f} {in_brackets(best.low, best.high)}", many(len(best.seeds), "seed")
        if self.winner == self.baseline:
            text = f"winner {self.winner}, the baseline: nothing beat it; dev WER {wer} over {over}"
        else:
            text = f"winner {self.winner}  dev WER {wer} over {over}"
        if self.to_baseline:
            base = self.of(self.to_baseline.other)
            gap = round(-self.to_baseline.wer, 3) + 0.0  # there is no -0.000
            text += f"; baseline {base.wer:.3f} {in_brackets(base.low, base.high)}: {gap:.3f} lower {self.to_baseline}"
        if self.to_runner_up:
            text += f"; P(best) {best.p_best:.2f}"
            if self.to_runner_up != self.to_baseline:
                text += f", runner-up {self.to_runner_up.other} {-self.to_runner_up.wer:.3f} behind {self.to_runner_up}"
        return text

    def _notes(self) -> Iterator[str]:
        over = f"intervals: 95 %, {self.resamples:,} resamples of {many(self.units, self.unit)}"
        single = [standing.setting for standing in self.standings if len(standing.seeds) < 2]
        if not single:
            yield f"{over} and of the seeds"
        elif len(single) == len(self.standings):
            yield f"{over}; with one seed each, the noise of training is not in them"
        else:
            yield f"{over} and of the seeds; {', '.join(single)} with one seed: its noise of training is not in them"
        for setting, count in self.missing.items():
            which = f"{setting}, the baseline," if setting == self.baseline else setting
            yield f"{which} has {count} of {many(self.seeds, 'seed')}" + ("" if count else ", so it is left out")


def verdict(
    models: Sequence[FinalistScores],
    baseline: str | None,
    *,
    speakers: Sequence[str],
    settings: Sequence[str] = (),
    seeds: int = 1,
    resamples: int = 10_000,
    seed: int = 0,
) -> Verdict:
    """Name the winner.

    Args:
        models: the runs that ended well, M of them, all scored on the same U utterances.
        baseline: which setting is the baseline.
        speakers: the speaker of each utterance, "" where unknown.
        settings: all that were to be run, in the order that breaks ties, so that one without a run is named; where not
            given, those of the runs.
        seeds: how many runs each was to have; at least as many as one of them has.
        resamples, seed: of the bootstrap.

    Raises:
        ValueError: no run at all, or runs that were not scored on the same utterances.
    """
    if not models:
        raise ValueError("no finalist has a run that ended well, so there is no verdict")
    words = models[0].words
    if any(len(model.errors) != len(speakers) or not np.array_equal(model.words, words) for model in models):
        raise ValueError("the finalists were not scored on the same utterances")
    unit, units = bootstrap_units(speakers)
    errors = np.stack([model.errors for model in models])
    resampled = bootstrap_wer(errors, words, units, resamples=resamples, seed=seed)
    runs: dict[str, list[int]] = {name: [] for name in settings}
    for row, model in enumerate(models):
        runs.setdefault(model.setting, []).append(row)
    there = [name for name in runs if runs[name]]
    seeds = max(seeds, *(len(rows) for rows in runs.values()))
    draw = np.random.default_rng([seed, 1])
    means = {name: _mean_of_seeds(resampled[:, runs[name]], draw) for name in there}
    together = np.stack([means[name] for name in there], axis=1)
    lowest = together == together.min(axis=1, keepdims=True)
    p_best = (lowest / lowest.sum(axis=1, keepdims=True)).mean(axis=0)
    standings = []
    for name, p in zip(there, p_best, strict=True):
        own = [models[row] for row in runs[name]]
        low, high = interval(means[name])
        wer = float(np.mean([model.wer for model in own]))
        by_seed = {model.seed: model.wer for model in own}
        standings.append(Standing(name, wer, low, high, by_seed, [model.trial for model in own], float(p)))
    standings.sort(key=lambda standing: standing.wer)  # stable, so the order of `settings` breaks ties
    first = standings[0]

    def against(other: Standing) -> Difference:
        return Difference(other.setting, first.wer - other.wer, *interval(means[first.setting] - means[other.setting]))

    base = next((standing for standing in standings if standing.setting == baseline), None)
    return Verdict(
        winner=first.setting,
        standings=standings,
        baseline=baseline,
        to_baseline=against(base) if base and base is not first else None,
        relative=(first.wer - base.wer) / base.wer if base and base.wer > 0 else None,
        to_runner_up=against(standings[1]) if len(standings) > 1 else None,
        unit=unit,
        units=int(units.max()) + 1,
        resamples=resamples,
        seeds=seeds,
        missing={name: len(rows) for name, rows in runs.items() if len(rows) < seeds},
    )


def _mean_of_seeds(rates: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """(R, S) of one setting to the mean of S - 1 seeds drawn anew for each resample, (R,); of the one, if S is 1."""
    resamples, seeds = rates.shape
    if seeds == 1:
        return rates[:, 0]
    drawn = draw.integers(seeds, size=(resamples, seeds - 1))
    return np.take_along_axis(rates, drawn, axis=1).mean(axis=1)
