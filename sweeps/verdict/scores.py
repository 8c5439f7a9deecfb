"""Word errors of the models that were scored at the end of a sweep, kept in its folder.

In: what each model made of dev and test. Out: `finalists.json`, error rates, and the finalists' verdict. Called by
`result`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from hausa_asr.files import write_whole
from hausa_asr.settings.sweep import SweepConfig
from sweeps.planning.finalists import chosen
from sweeps.record.ledger import Ledger
from sweeps.record.trial import TrialRecord
from sweeps.verdict.compare import RunScores
from sweeps.verdict.margin import Margin, margin
from sweeps.verdict.verdict import Verdict, verdict

SCORES = "finalists.json"
"""In the sweep's folder: word errors of every finalist's model, utterance by utterance, on dev and test."""


class WordErrors:
    """Keep the word errors of scored models on disk, so that no model is scored twice.

    Args:
        folder: the sweep's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / SCORES
        self._of: dict[str, dict[str, Any]] = {}
        if self._path.is_file():
            self._of = json.loads(self._path.read_text(encoding="utf-8"))

    def lacking(self, trials: list[TrialRecord]) -> list[TrialRecord]:
        """The trials whose best checkpoint was not scored yet; a checkpoint is known by its step."""
        return [
            trial for trial in trials if trial.best and self._of.get(trial.id, {}).get("step") != trial.best["step"]
        ]

    def put(self, trial: TrialRecord, scores: dict[str, Any]) -> None:
        """Take in a model's scores: by split `errors`, `words` and `speakers` by utterance, and the `rates`."""
        assert trial.best
        self._of[trial.id] = {"step": trial.best["step"], **scores}

    def write(self) -> None:
        """Write all of it to disk."""
        write_whole(self._path, json.dumps(self._of), durable=True)

    def rates(self, trial_id: str, split: str) -> dict[str, float] | None:
        """A model's `wer`, `cer`, `wer_folded` and `cer_folded` on a split; None if it was not scored."""
        rates: dict[str, float] | None = self._of.get(trial_id, {}).get(split, {}).get("rates")
        return rates

    def scored(self, trial: TrialRecord, split: str) -> dict[str, Any] | None:
        """All that is known of a model on a split; None if it was not scored."""
        scores: dict[str, Any] | None = self._of.get(trial.id, {}).get(split)
        return scores

    def runs(self, trials: list[TrialRecord], split: str) -> list[RunScores]:
        """The word errors of those trials that were scored on a split; a trial of the search is its own setting."""
        return [
            RunScores(
                setting=trial.of or trial.id,
                trial=trial.id,
                seed=int(trial.settings.get("seed", 0)),
                errors=np.array(scored["errors"]),
                words=np.array(scored["words"]),
            )
            for trial in trials
            if (scored := self._of.get(trial.id, {}).get(split))
        ]

    def speakers(self, trials: list[TrialRecord], split: str) -> list[str]:
        """The speaker of each utterance of a split, "" where unknown; all models were scored on the same."""
        return next((scored["speakers"] for trial in trials if (scored := self._of.get(trial.id, {}).get(split))), [])

    def compare(self, ledger: Ledger, trials: list[TrialRecord], config: SweepConfig) -> Verdict | None:
        """Name the winner by dev WER, and give its margin on test; None if no run has ended well."""
        if not trials:
            return None
        baseline = ledger.state.baseline()
        found = verdict(
            self.runs(trials, "dev"),
            baseline.id if baseline else None,
            speakers=self.speakers(trials, "dev"),
            settings=[trial.id for trial in chosen(ledger.state, config)],
            seeds=config.finalists.seeds,
            seed=config.search.seed,
        )
        return found.with_test(self.on_test(trials, found.winner, found.baseline, config))

    def on_test(
        self, trials: list[TrialRecord], winner: str, baseline: str | None, config: SweepConfig
    ) -> Margin | None:
        """Compare the winner with the baseline on test; None without a test split."""
        runs = self.runs(trials, "test")
        if not any(run.setting == winner for run in runs):
            return None
        return margin(runs, winner, baseline, speakers=self.speakers(trials, "test"), seed=config.search.seed)
