"""Which setting won, and how surely: the finalists' word errors in, a verdict with intervals out.

The best settings and the baseline were trained again on fresh seeds. Called at the end of a sweep; the report page and
`result.json` repeat it. Numbers only: no files, no models.

The winner has the lowest dev WER, averaged over its seeds, with intervals as `compare` says. Dev chose it, so once test
is scored the headline is its margin there (`margin`). With one seed each, neither a chance to be the best is given nor
said what is too close to call: of two equal settings whose runs differ by the noise of training (a standard deviation
of 0.02 of WER), 25 % would be called different on 120 utterances and 61 % on 1,000. With two seeds it is 1 and 18 %,
with three 2 and 10 %.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sweeps.verdict.compare import ONE_SEED, Difference, Resampled, RunScores
from sweeps.verdict.margin import Margin
from sweeps.wording import in_brackets, many


@dataclass(frozen=True)
class Standing:
    """How one setting did.

    Attributes:
        setting: the trial that found it.
        wer: dev WER, mean over seeds.
        low, high: its 95 % interval.
        seeds: dev WER by seed.
        trials: the runs, in the order of `seeds`.
        p_best: in what share of the resamples it has the lowest WER; None if any setting has one seed only.
    """

    setting: str
    wer: float
    low: float
    high: float
    seeds: dict[int, float]
    trials: list[str]
    p_best: float | None


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
        on_test: the winner against the baseline on test; None before test is scored, and without a test split.
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
    on_test: Margin | None = None

    def of(self, setting: str) -> Standing:
        """How a setting did. Raises `KeyError` where it has no run."""
        return {standing.setting: standing for standing in self.standings}[setting]

    def sentences(self) -> list[str]:
        """For the end of a sweep: the headline, and what is to be known about it."""
        if self.on_test is None:
            return [self._on_dev(), *self._notes()]
        return [self.on_test.sentence(), self._on_dev(), *self._notes()]

    def with_test(self, on_test: Margin | None) -> Verdict:
        """The verdict with the winner's margin on test."""
        return dataclasses.replace(self, on_test=on_test)

    def to_json(self) -> dict[str, Any]:
        """As plain values, for the ledger and `result.json`."""
        return asdict(self) | {"sentences": self.sentences()}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Verdict:
        """The verdict that `to_json` wrote."""
        values: dict[str, Any] = {name: fields[name] for name in cls.__dataclass_fields__ if name != "on_test"}
        values["on_test"] = Margin.from_json(fields["on_test"]) if fields["on_test"] else None
        values["standings"] = [
            Standing(**{**one, "seeds": {int(seed): wer for seed, wer in one["seeds"].items()}})
            for one in fields["standings"]
        ]
        for name in ("to_baseline", "to_runner_up"):
            values[name] = Difference(**fields[name]) if fields[name] else None
        return cls(**values)

    def _on_dev(self) -> str:
        """The finalists on dev in a line: the headline where test is not scored."""
        best = self.of(self.winner)
        wer, over = f"{best.wer:.3f} {in_brackets(best.low, best.high)}", many(len(best.seeds), "seed")
        if self.on_test is not None:
            text = f"on dev, which chose it: {self.winner} {wer}"
        elif self.winner == self.baseline:
            text = f"winner {self.winner}, the baseline: nothing beat it; dev WER {wer} over {over}"
        else:
            text = f"winner {self.winner}  dev WER {wer} over {over}"
        if self.to_baseline:
            base = self.of(self.to_baseline.other)
            text += f"; baseline {base.wer:.3f} {in_brackets(base.low, base.high)}: {self.to_baseline}"
        if self.to_runner_up:
            if best.p_best is not None:
                text += f"; P(best) {best.p_best:.2f}"
            if self.to_runner_up != self.to_baseline:
                behind = f"{abs(self.to_runner_up.wer):.3f} behind {self.to_runner_up.within}"
                text += f"; runner-up {self.to_runner_up.other} {behind}"
            if self.on_test is None and self.to_runner_up.is_clear is None:
                text += f"; {ONE_SEED}"
        return text

    def _notes(self) -> Iterator[str]:
        over = f"intervals: 95 %, {self.resamples:,} resamples of {many(self.units, self.unit)}"
        if self.on_test is not None:
            over += f" of dev and {many(self.on_test.units, self.on_test.unit)} of test"
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
    models: Sequence[RunScores],
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
    on = Resampled(models, speakers, settings, resamples=resamples, seed=seed)
    seeds = max(seeds, *(len(runs) for runs in on.runs.values()))
    together = np.stack(list(on.means.values()), axis=1)
    lowest = together == together.min(axis=1, keepdims=True)
    shares = (lowest / lowest.sum(axis=1, keepdims=True)).mean(axis=0)
    sure = all(len(on.runs[name]) > 1 for name in on.means)
    standings = []
    for name, share in zip(on.means, shares, strict=True):
        by_seed = {run.seed: run.wer for run in on.runs[name]}
        trials = [run.trial for run in on.runs[name]]
        standings.append(
            Standing(name, on.wer(name), *on.interval(name), by_seed, trials, float(share) if sure else None)
        )
    standings.sort(key=lambda standing: standing.wer)  # stable, so the order of `settings` breaks ties
    first = standings[0]
    base = next((standing for standing in standings if standing.setting == baseline), None)
    return Verdict(
        winner=first.setting,
        standings=standings,
        baseline=baseline,
        to_baseline=on.difference(first.setting, base.setting) if base and base is not first else None,
        relative=(first.wer - base.wer) / base.wer if base and base.wer > 0 else None,
        to_runner_up=on.difference(first.setting, standings[1].setting) if len(standings) > 1 else None,
        unit=on.unit,
        units=on.units,
        resamples=resamples,
        seeds=seeds,
        missing={name: len(runs) for name, runs in on.runs.items() if len(runs) < seeds},
    )
