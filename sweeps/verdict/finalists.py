"""The finalists: the best settings and the baseline, trained again on fresh seeds; the winner is named by those.

The lowest dev WER of a search is the luckiest of many draws on one seed. So the best `k` settings and the baseline are
trained again at full length on seeds that the search has not seen, and are compared by the mean dev WER over their
seeds, with intervals. Test is scored once, here. Called by the agenda (which runs are due) and by the sweep's end.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from hausa_asr.settings.load import SweepConfig
from sweeps.record.ledger import Ledger, State, TrialRecord
from sweeps.verdict.verdict import FinalistScores, Verdict, verdict

SCORES = "finalists.json"
"""In the sweep's folder: word errors of every finalist's model, utterance by utterance, on dev and test."""


def chosen(state: State, config: SweepConfig) -> list[TrialRecord]:
    """The trials whose settings are run again: the best `k` by dev WER, then the baseline; none where `k` is 0.

    With one trial only there is nothing to compare, so nothing is run again.
    """
    ranking = state.ranking()
    if not config.finalists.k or len(ranking) < 2:
        return []
    baseline = state.baseline()
    best = [trial for trial in ranking if trial is not baseline][: config.finalists.k]
    return best + ([baseline] if baseline is not None and baseline in ranking else [])


def planned(state: State, config: SweepConfig) -> list[tuple[str, str, dict[str, Any]]]:
    """Every run of the finalists as (its id, the trial it repeats, its settings), first seeds first."""
    runs = []
    for number in range(1, config.finalists.seeds + 1):
        for trial in chosen(state, config):
            settings = {**trial.settings, "seed": config.finetune.seed + number}
            if config.finalists.length_s:
                settings["length_s"] = config.finalists.length_s
            runs.append((f"{trial.id}-s{number}", trial.id, settings))
    return runs


def missing(state: State, config: SweepConfig) -> list[tuple[str, str, dict[str, Any]]]:
    """Those of them that were not begun."""
    return [run for run in planned(state, config) if run[0] not in state.trials]


def complete(state: State, config: SweepConfig) -> list[TrialRecord]:
    """The runs of the finalists that have come to their end."""
    runs = [state.trials.get(name) for name, _, _ in planned(state, config)]
    return [trial for trial in runs if trial is not None and trial.state == "finished" and trial.best]


class Scores:
    """Word errors of finalists' models, kept on disk so that no model is scored twice.

    Args:
        folder: the sweep's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / SCORES
        self._of: dict[str, dict[str, Any]] = {}
        if self._path.is_file():
            self._of = json.loads(self._path.read_text(encoding="utf-8"))

    def lacking(self, trials: list[TrialRecord]) -> list[TrialRecord]:
        """Those whose best checkpoint was not scored; a checkpoint is known by its step."""
        return [
            trial for trial in trials if trial.best and self._of.get(trial.id, {}).get("step") != trial.best["step"]
        ]

    def put(self, trial: TrialRecord, scores: dict[str, Any]) -> None:
        """Keep what a model has scored: by split `errors`, `words` and `speakers` by utterance, and the rates."""
        assert trial.best
        self._of[trial.id] = {"step": trial.best["step"], **scores}

    def write(self) -> None:
        aside = self._path.with_suffix(".partial")
        with aside.open("w", encoding="utf-8") as file:
            json.dump(self._of, file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self._path)

    def rates(self, trial_id: str, split: str) -> dict[str, float] | None:
        """`wer`, `cer`, `wer_folded` and `cer_folded` of a model on a split; None where that is not there."""
        found: dict[str, float] | None = self._of.get(trial_id, {}).get(split, {}).get("rates")
        return found

    def compare(self, ledger: Ledger, trials: list[TrialRecord], config: SweepConfig) -> Verdict | None:
        """Who wins, by dev; None where there is nobody to compare."""
        models = []
        speakers: list[str] = []
        for trial in trials:
            dev = self._of[trial.id]["dev"]
            speakers = dev["speakers"]
            models.append(
                FinalistScores(
                    setting=trial.of,
                    trial=trial.id,
                    seed=int(trial.settings["seed"]),
                    errors=np.array(dev["errors"]),
                    words=np.array(dev["words"]),
                )
            )
        baseline = ledger.state.baseline()
        if not models:
            return None
        return verdict(
            models,
            baseline.id if baseline else None,
            speakers=speakers,
            settings=[trial.id for trial in chosen(ledger.state, config)],
            seeds=config.finalists.seeds,
            seed=config.search.seed,
        )
