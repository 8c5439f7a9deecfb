"""When the finalists run: the best settings and the baseline on fresh seeds, then the best one on parts of train.

In: the ledger's state and the budget. Out: one run at a time, written to the ledger before it is given out. Called by
the agenda, once no slot searches any more.
"""

from __future__ import annotations

import time
from collections.abc import Collection

from hausa_asr.settings.sweep import SweepConfig
from sweeps.planning.budget import exhausted
from sweeps.planning.finalists import FinalistRun, missing, planned
from sweeps.record.ledger import Ledger
from sweeps.record.trial import FINALIST, TrialRecord


class FinalistsTurn:
    """Say which run on a fresh seed is next.

    Args:
        config: the sweep's settings.
        ledger: its ledger.
        held: the trials that slots have, as the agenda keeps them.
    """

    def __init__(self, config: SweepConfig, ledger: Ledger, held: Collection[str]) -> None:
        self._config, self._ledger, self._held = config, ledger, held

    def wait(self) -> bool:
        """Whether a run is left to start or to resume, and the budget allows it. Starts nothing."""
        due = self._paused() is not None or bool(self._runs())
        return due and not exhausted(self._ledger.state, self._config, time.time())

    def next(self) -> TrialRecord:
        """Resume or propose the next run. Only to be called if `wait` is true."""
        paused = self._paused()
        if paused is not None:
            return paused
        state = self._ledger.state
        run = self._runs()[0]
        self._ledger.append("proposed", trial=run.id, settings=run.settings, source=FINALIST, of=run.of)
        return state.trials[run.id]

    def growth_is_to_come(self) -> bool:
        """Whether runs on parts of train follow once the slots' finalists have ended."""
        wanted = self._config.finalists.data_growth and self._open()
        return wanted and not exhausted(self._ledger.state, self._config, time.time())

    def _runs(self) -> list[FinalistRun]:
        """The runs to propose. Those on parts of train repeat the best finalist, which is known when all have ended."""
        runs = missing(self._ledger.state, self._config)
        others = self._open() or self._paused() is not None
        return [run for run in runs if not (run.on_part and others)]

    def _open(self) -> bool:
        """Whether a slot has a run on all of train."""
        whole = {run.id for run in planned(self._ledger.state, self._config)}
        return not whole.isdisjoint(self._held)

    def _paused(self) -> TrialRecord | None:
        """A run that the budget had ended."""
        waiting = (trial for trial in self._ledger.state.finalists if trial.cause == "budget" and trial.can_go_on)
        return next((trial for trial in waiting if trial.id not in self._held), None)
