"""Slots that train nothing: they report the figures of a test, on a real ledger."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from hausa_asr.settings.load import load
from helpers.events import report
from sweeps.driver.agenda import Agenda, Order
from sweeps.driver.sweep import predictor_of, rule_of
from sweeps.pruning.rule import Score
from sweeps.pruning.rungs import rungs_s
from sweeps.record.ledger import Ledger
from sweeps.record.trial import TrialRecord
from sweeps.sampling.study import Study

SETTINGS = ["finetune.length_s=1000", "pruning.first_rung=0.3", "pruning.reduction=2", "pruning.finish_share=0",
            "search.trials=4", "finalists.k=0", "space.lr_peak={low: 1e-5, high: 1e-3, log: true}"]  # fmt: skip


class Slots:
    """A driver without Ray: takes orders, and lets trials report and end."""

    def __init__(self, folder: Path, *changes: str) -> None:
        self.folder, self.changes = folder, changes
        self.open()

    def open(self, *changes: str) -> None:
        """A new driver on the same ledger, perhaps with other settings."""
        self.config = load(None, [*SETTINGS, *self.changes, *changes])
        self.ledger = Ledger(self.folder)
        if not self.ledger.state.name:
            self.ledger.append("sweep", name="s", rungs=rungs_s(self.config))
        self.ledger.append("opened")
        self.rule = rule_of(self.config, self.ledger.state)
        study = Study(self.config, predictor=predictor_of(self.config, self.rule))
        self.agenda = Agenda(self.config, self.ledger, self.rule, study)

    def order(self) -> Order:
        order = self.agenda.next()
        if order.trial is not None:
            self.ledger.append("started", trial=order.trial.id, **({order.why: True} if order.why else {}))
        return order

    def take(self) -> TrialRecord:
        order = self.order()
        assert order.trial is not None, order
        return order.trial

    def pause(self, trial: TrialRecord, loss: float) -> None:
        """It lost at the first rung."""
        self.ledger.append("reported", trial=trial.id, **report(30, loss=loss))
        scored = Score(loss, 1.0, 1.0, False)
        self.rule.record(0, trial.id, scored)
        ranking = {**asdict(self.rule.rank(0, trial.id)), "passed": False}
        self.ledger.append("ranked", trial=trial.id, rung=0, rung_s=300.0, seen_s=300.0, scored=asdict(scored),
                           **ranking)  # fmt: skip
        self.ledger.append("paused", trial=trial.id, cause="rung", reason="it lost")
        self.agenda.back(trial)

    def finish(self, trial: TrialRecord, wer: float) -> None:
        self.ledger.append("reported", trial=trial.id, **report(100, wer, wer))
        self.ledger.append("ended", trial=trial.id, state="finished", reason="")
        self.agenda.back(trial)
