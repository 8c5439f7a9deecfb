"""A sweep as an Optuna study: what Optuna reads back is what the ledger has."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from hausa_asr.errors import UserError
from hausa_asr.settings.sweep import SweepConfig
from helpers.events import report
from sweeps.record.ledger import Ledger
from sweeps.sampling.export import export_study, url_of

CONFIG = SweepConfig.model_validate(
    {
        "baseline": {"lr_peak": 1e-3},
        "space": {
            "lr_peak": {"low": 1e-4, "high": 1e-2, "log": True},
            "schedule": {"choices": ["linear", "cosine"]},
        },
    }
)


def a_sweep(folder: Path) -> Ledger:
    folder.mkdir()
    ledger = Ledger(folder)
    ledger.append("sweep", name="mine", prepared="/p", fingerprint="f", rungs=[200.0])
    ledger.append("opened", slots=2)
    ends = [("finished", 0.4), ("finished", 0.3), ("pruned", 0.7), ("failed", 0.9), (None, 0.8)]
    for number, (state, wer) in enumerate(ends):
        settings = {"lr_peak": 1e-3 * (number + 1), "schedule": "cosine"}
        source = "search" if number else "baseline"
        name = f"t00{number}"
        ledger.append("proposed", trial=name, settings=settings if number else {"lr_peak": 1e-3}, source=source)
        ledger.append("started", trial=name)
        ledger.append("reported", trial=name, **report(50, wer=1.0))
        if state:
            ledger.append("reported", trial=name, **report(100, wer=wer))
            ledger.append("ended", trial=name, state=state, reason="diverged" if state == "failed" else "")
    ledger.append("proposed", trial="t001-s1", settings={}, source="finalist", of="t001")
    return ledger


def test_optuna_reads_what_the_ledger_has(tmp_path: Path) -> None:
    state = a_sweep(tmp_path / "mine").state
    file = tmp_path / "new {%20}/what?.db"
    assert export_study(state, CONFIG, file) == 5, "finalists are no trials of the search"
    study = optuna.load_study(study_name="mine", storage=url_of(file))
    assert file.is_file()
    assert [one.state for one in study.trials] == [
        TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING,
    ]  # fmt: skip
    assert study.best_value == 0.3 and study.best_trial.user_attrs["trial"] == "t001"
    assert study.best_trial.params == {"lr_peak": 2e-3, "schedule": "cosine"}
    assert study.best_trial.intermediate_values == {50: 1.0, 100: 0.3}
    assert study.trials[0].params == {"lr_peak": 1e-3}, "the schedule of its recipe is not in the space"
    assert study.trials[3].user_attrs["reason"] == "diverged"
    assert all(one.datetime_start <= one.datetime_complete for one in study.trials[:4])  # type: ignore[operator]
    assert study.metric_names == ["dev WER"]


def test_a_name_that_is_taken_and_a_file_that_is_none_are_refused(tmp_path: Path) -> None:
    state = a_sweep(tmp_path / "mine").state
    export_study(state, CONFIG, tmp_path / "study.db")
    with pytest.raises(UserError, match="has a study mine already"):
        export_study(state, CONFIG, tmp_path / "study.db")
    (tmp_path / "no.db").write_text("this is no database, and it is longer than a header of one hundred bytes. " * 3)
    with pytest.raises(UserError, match="can't be written"):
        export_study(state, CONFIG, tmp_path / "no.db")
