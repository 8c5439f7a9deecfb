"""The content of `result.json`: what a sweep found, as plain values. Called by `result`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from hausa_asr.settings.sweep import SweepConfig
from hausa_asr.storage.address import portable
from sweeps.record.ledger import Ledger
from sweeps.record.trial import TrialRecord
from sweeps.verdict.outcome import Outcome
from sweeps.verdict.scores import WordErrors
from sweeps.verdict.verdict import Verdict


def to_json(
    config: SweepConfig,
    ledger: Ledger,
    errors: WordErrors,
    best: Outcome | None,
    baseline: Outcome | None,
    verdict: Verdict | None,
    export: Path | None,
) -> dict[str, Any]:
    """The content of `result.json`."""
    state = ledger.state
    return {
        "sweep": state.name,
        "wall_s": round(state.wall_s, 1),
        "spent_s": round(state.spent_s, 1),
        "trials": [_trial(trial, errors) for trial in state.searched],
        "finalists": [_trial(trial, errors) for trial in state.finalists],
        "verdict": verdict.to_json() if verdict else None,
        "baseline": _outcome(baseline),
        "best": _outcome(best),
        "export": portable(export) if export else None,
        "mlflow": {"uri": config.mlflow.uri, "experiment": config.mlflow.experiment, "run_id": state.run_id},
    }


def _trial(trial: TrialRecord, errors: WordErrors) -> dict[str, Any]:
    """A trial's own figures; those of a setting, means over its seeds, are in `best` and `baseline`."""
    best, test = trial.best or {}, errors.rates(trial.id, "test")
    return {
        "id": trial.id,
        "source": trial.source,
        **({"of": trial.of} if trial.of else {}),
        "settings": trial.settings,
        "state": trial.state,
        "reason": trial.reason,
        "steps": max(trial.last_step, 0),
        **{name: _finite(best.get(name)) for name in ("wer", "cer", "loss")},
        **({"test_wer": test["wer"], "test_cer": test["cer"]} if test else {}),
        "spent_s": round(trial.spent_s, 1),
        "mlflow_run_id": trial.run_id,
    }


def _outcome(outcome: Outcome | None) -> dict[str, Any] | None:
    if outcome is None:
        return None
    test = outcome.test or {}
    return {
        "id": outcome.trial.id,
        "run": outcome.run.id,
        "wer": _finite(outcome.dev["wer"]),
        "cer": _finite(outcome.dev["cer"]),
        "wer_interval": list(outcome.interval) if outcome.interval else None,
        "seeds": outcome.seeds,
        "test_wer": test.get("wer"),
        "test_cer": test.get("cer"),
    }


def _finite(value: float | None) -> float | None:
    """JSON has no NaN."""
    return value if value is not None and math.isfinite(value) else None
