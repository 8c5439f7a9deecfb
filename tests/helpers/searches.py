"""Sweeps without training: trials that the study proposes, and whose results follow from their settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hausa_asr.settings.sweep import SweepConfig
from helpers.events import report
from sweeps.record.ledger import Ledger
from sweeps.record.trial import TrialRecord
from sweeps.sampling.study import Study


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def proposed(ledger: Ledger, study: Study, settings: dict[str, Any], source: str = "search") -> TrialRecord:
    """Begin a trial."""
    name = f"t{len(ledger.state.trials):03d}"
    ledger.append("proposed", trial=name, settings=settings, source=source)
    ledger.append("started", trial=name)
    study.update(ledger.state.trials[name])
    return ledger.state.trials[name]


def ended(ledger: Ledger, study: Study, trial: TrialRecord, wer: float, state: str = "finished") -> None:
    """End a trial with this WER."""
    ledger.append("reported", trial=trial.id, **report(100, wer, wer))
    ledger.append("ended", trial=trial.id, state=state, reason="")
    study.update(trial)


def searched(
    config: SweepConfig, folder: Path, count: int, wer: Callable[[Mapping[str, Any]], float], running: int = 2
) -> list[float]:
    """The WERs of a whole search, in the order of proposal; `running` trials run side by side."""
    ledger, study = Ledger(made(folder)), Study(config)
    trials: list[TrialRecord] = []
    for number in range(count):
        settings = study.propose(number)
        assert settings is not None
        trials.append(proposed(ledger, study, settings))
        if number >= running - 1:
            first = trials[number - running + 1]
            ended(ledger, study, first, wer(first.settings))
    return [wer(trial.settings) for trial in trials]
