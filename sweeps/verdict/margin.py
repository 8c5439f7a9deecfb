"""How far the winner is ahead of the baseline on test, which took no part in the search: the headline of a sweep.

In: the word errors of the winner's and the baseline's runs on test. Out: a `Margin`, and its sentence. The margin on
dev flatters the winner, since dev chose it. Called at the end of a sweep; the verdict, the report, the model card and
MLflow repeat the sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sweeps.verdict.compare import ONE_SEED, Difference, Resampled, RunScores
from sweeps.wording import in_brackets, many


@dataclass(frozen=True)
class Tested:
    """A setting's WER on test, the mean over `seeds` runs, with its 95 % interval."""

    setting: str
    wer: float
    low: float
    high: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.wer:.3f} {in_brackets(self.low, self.high)}"


@dataclass(frozen=True)
class Margin:
    """The winner and the baseline on test.

    Attributes:
        winner: the winner.
        baseline: the baseline; None if it has no run, or is the winner.
        baseline_won: whether it is.
        difference: the winner against the baseline; None without one.
        relative: the change of WER against the baseline as a share of that: -0.4 is 40 % fewer errors.
        unit: `speaker` or `utterance`: what was resampled.
        units: how many of them test has.
    """

    winner: Tested
    baseline: Tested | None
    baseline_won: bool
    difference: Difference | None
    relative: float | None
    unit: str
    units: int

    def sentence(self, lead: str = "winner") -> str:
        """The headline; `lead` says what the winner is."""
        over = f"test WER {self.winner} over {many(self.winner.seeds, 'seed')}"
        if self.baseline_won:
            return f"{lead} {self.winner.setting}, the baseline: nothing beat it; {over}"
        text = f"{lead} {self.winner.setting}  {over}"
        if self.baseline is None or self.difference is None:
            return text
        text += f"; baseline {self.baseline}: {self.difference}"
        return text + (f"; {ONE_SEED}" if self.difference.is_clear is None else "")

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Margin:
        """The margin that `to_json` wrote."""
        values: dict[str, Any] = {name: fields[name] for name in cls.__dataclass_fields__}
        for name, kind in (("winner", Tested), ("baseline", Tested), ("difference", Difference)):
            values[name] = kind(**fields[name]) if fields[name] else None
        return cls(**values)


def margin(
    models: Sequence[RunScores],
    winner: str,
    baseline: str | None,
    *,
    speakers: Sequence[str],
    resamples: int = 10_000,
    seed: int = 0,
) -> Margin:
    """Compare the winner with the baseline on test.

    Args:
        models: runs of both, and perhaps of others, all scored on the same utterances of test.
        winner, baseline: their settings. A baseline without a run is left out.
        speakers: the speaker of each utterance, "" where unknown.
        resamples, seed: of the bootstrap.

    Raises:
        ValueError: the winner has no run, or the runs were not scored on the same utterances.
    """
    models = [model for model in models if model.setting in (winner, baseline)]
    if not any(model.setting == winner for model in models):
        raise ValueError(f"the winner, {winner}, has no run on test")
    on = Resampled(models, speakers, resamples=resamples, seed=seed)

    def tested(setting: str) -> Tested:
        return Tested(setting, on.wer(setting), *on.interval(setting), len(on.runs[setting]))

    base = tested(baseline) if baseline is not None and baseline != winner and baseline in on.means else None
    difference = on.difference(winner, base.setting) if base else None
    relative = difference.wer / base.wer if difference and base and base.wer > 0 else None
    return Margin(tested(winner), base, winner == baseline, difference, relative, on.unit, on.units)
