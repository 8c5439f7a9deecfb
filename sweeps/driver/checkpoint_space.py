"""The disk that a sweep's checkpoints take: kept within its bound, with the best model never at risk.

In: the ledger and the trials' folders. Out: fewer files, and `dropped` events for trials that can no longer go on.
Called by the Tune callback whenever a trial leaves its slot. What goes first: what no one can need again (optimizer
states of ended trials, half-written checkpoints of killed ones), then what the rungs think least of.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Collection

from hausa_asr.settings.sweep import SweepConfig
from hausa_asr.storage.address import is_remote, portable
from sweeps.planning.disk import folder_at_rest
from sweeps.planning.finalists import chosen
from sweeps.pruning.rule import Rule
from sweeps.record.checkpoints import WRITING_S
from sweeps.record.crashes import CRASH
from sweeps.record.ledger import Ledger
from sweeps.record.trial import TrialRecord

log = logging.getLogger("sweeps")

_KEEP_FREE_SHARE, _KEEP_FREE_BYTES = 0.1, 10 * 2**30
"""Without a bound of its own a sweep leaves so much of the disk free: the smaller of the two, or what the trials that
slots have may still write, if that is more."""
_LOOKING_SHARE = 0.05
"""Looking through the folders of trials may take this share of the driver's time: on a network they may be slow."""


class CheckpointSpace:
    """Keeps a sweep's checkpoints within their bound.

    Args:
        ledger: the sweep's ledger.
        rule: its rungs, which say who is worth least.
        config: the sweep's settings.
        held: the trials that slots have or are about to have, as the agenda keeps them.
    """

    def __init__(self, ledger: Ledger, rule: Rule, config: SweepConfig, held: Collection[str]) -> None:
        self._ledger, self._rule, self._config, self._held = ledger, rule, config, held
        self._there = ledger.checkpoints
        self._bytes: dict[str, int] = {}
        self._just_left: dict[str, float] = {}
        self._at_rest = folder_at_rest(config) or 0.0
        # A bucket has no end; what it costs is for max_checkpoint_gb to say.
        self._has_bound = config.max_checkpoint_gb is not None or not is_remote(portable(ledger.folder))
        self._next_look_s = -math.inf
        self._is_tight = False  # that is said once

    def begin(self) -> None:
        """Before any slot works: remove what killed trials have left half-written."""
        self._there.drop_half_written()
        for trial in self._ledger.state.trials.values():
            self._measure(trial)

    def tidy(self, trial: TrialRecord) -> None:
        """A trial has left its slot: drop what it does not need, then make room if that is due.

        Its workers hear of it later, and may still write a checkpoint to resume from. So it is looked at again when
        other trials leave in the next minutes, and what is half-written stays, unless they are gone.
        """
        if time.monotonic() >= self._next_look_s:
            self._look_again()
        self._just_left[trial.id] = time.monotonic()
        if trial.cause == CRASH or trial.state == "finished":
            self._there.drop_half_written(trial.id)
        if trial.state in ("finished", "failed"):
            self._drop_state(trial)
        self._measure(trial)
        self._make_room()

    def _look_again(self) -> None:
        """Look through the folders of trials that workers may have written to since."""
        began_s = time.monotonic()
        for name, left_s in [*self._just_left.items()]:
            before = self._ledger.state.trials[name]
            if before.state in ("finished", "failed") or before.dropped:
                self._drop_state(before)
            self._measure(before)
            if began_s - left_s > WRITING_S:
                del self._just_left[name]
        for trial in self._ledger.state.trials.values():
            if trial.state == "running":
                self._measure(trial)
        ended_s = time.monotonic()
        self._next_look_s = ended_s + (ended_s - began_s) / _LOOKING_SHARE

    def _limit(self) -> float:
        """Bytes that the checkpoints may take now."""
        if self._config.max_checkpoint_gb is not None:
            return self._config.max_checkpoint_gb * 1e9
        disk = shutil.disk_usage(self._ledger.folder)
        at_work = {trial.id for trial in self._ledger.state.trials.values() if trial.is_open} | set(self._held)
        # Each may come to its size at rest, and one is replaced meanwhile.
        to_come = self._at_rest + sum(max(0.0, self._at_rest - self._bytes.get(name, 0)) for name in at_work)
        keep = max(to_come, min(_KEEP_FREE_SHARE * disk.total, _KEEP_FREE_BYTES))
        return sum(self._bytes.values()) + disk.free - keep

    def _make_room(self) -> None:
        if not self._has_bound or sum(self._bytes.values()) <= (limit := self._limit()):
            return
        for trial in self._least_first():
            if trial.can_go_on:
                self._ledger.append("dropped", trial=trial.id)  # first: a crash in between costs only room
                log.warning("%s can no longer go on: its optimizer state made room on the disk", trial.id)
                self._drop_state(trial)
                if sum(self._bytes.values()) <= limit:
                    return
        for trial in self._least_first():
            if trial.id in self._just_left:
                continue
            self._there.drop(trial.id)
            self._measure(trial)
            log.warning("%s: its checkpoints made room on the disk", trial.id)
            if sum(self._bytes.values()) <= limit:
                return
        if not self._is_tight:
            taken = sum(self._bytes.values()) / 1e9
            log.warning("checkpoints take %.1f GB, more may be needed, and nothing more can be dropped", taken)
        self._is_tight = True

    def _least_first(self) -> list[TrialRecord]:
        """Trials that no slot has or is to have, and no one is to export, the least promising first.

        By rung, then by place there.
        """
        state = self._ledger.state
        safe = {trial.id for trial in chosen(state, self._config)} | {trial.id for trial in state.finalists}
        safe |= {trial.id for trial in (state.best(), state.baseline()) if trial is not None}

        def worth(trial: TrialRecord) -> tuple[float, ...]:
            if trial.state == "failed" or not trial.best:
                return (-2.0,)
            if trial.state == "finished" or trial.waits_at is None:
                return (float(len(self._rule.marks)), -trial.best["wer"])
            return (float(trial.waits_at), -float(self._rule.rank(trial.waits_at, trial.id).place))

        safe |= set(self._held)  # one that was handed out is not open yet: its slot may take a while to start
        left = [t for t in state.trials.values() if not t.is_open and t.id not in safe and self._bytes.get(t.id)]
        return sorted(left, key=worth)

    def _drop_state(self, trial: TrialRecord) -> None:
        """Keep only the best checkpoint, without what training would need."""
        best = trial.best
        if best is not None and not self._ledger.has_best(trial):  # its workers are still to write it, or never will
            best = self._ledger.best_there(trial)
        self._there.keep_only(trial.id, int(best["step"]) if best else None)
        self._measure(trial)

    def _measure(self, trial: TrialRecord) -> None:
        if self._has_bound:
            self._bytes[trial.id] = self._there.size(trial.id)
