"""Ray Tune's callbacks: what happened goes to the ledger, to MLflow and to the table of trials.

MLflow is a mirror of the ledger: `Mirror.sync` brings one trial's run to what the ledger says, whatever was written
before, so a call that failed is made good by the next one and a resumed sweep goes on in the same runs.
"""

from __future__ import annotations

import colorsys
import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray import tune

from hausa_asr.config import SweepConfig
from hausa_asr.metrics import wer
from hausa_asr.tracking import Row, Sample, Tracker
from sweeps.ledger import Ledger, TrialRecord
from sweeps.progress import Board

log = logging.getLogger("sweeps")


class Mirror:
    """The sweep's runs in MLflow: one parent, one child per trial.

    Args:
        tracker: an open experiment.
        ledger: the sweep's ledger, which has the parent's run id.
        config: the sweep's settings.
        tags: of every child, such as the base checkpoint.
    """

    def __init__(self, tracker: Tracker, ledger: Ledger, config: SweepConfig, tags: dict[str, str]) -> None:
        self._tracker, self._ledger, self._config, self._tags = tracker, ledger, config, tags
        self._logged: dict[str, int] = {}
        self._closed: set[str] = set()
        self._behind: set[str] = set()

    def sync(self, trial_id: str) -> None:
        """Bring one trial's run up to date. MLflow's trouble is noted in the sweep's log and ends nothing."""
        try:
            self._sync(self._ledger.state.trials[trial_id])
            self._behind.discard(trial_id)
        except Exception as error:
            self._behind.add(trial_id)
            log.warning("MLflow: %s is not up to date: %s", trial_id, error)

    def sync_all(self) -> list[str]:
        """Once more for every trial, at the end: what could not be written before is written now.

        Returns:
            The trials whose runs still lack something.
        """
        for trial_id, trial in self._ledger.state.trials.items():
            if trial.reports or not trial.is_open:
                self.sync(trial_id)
        return sorted(self._behind)

    def interrupted(self) -> None:
        """The sweep stops with trials open: their runs wait for a resume, rather than look as if they were running."""
        try:
            for trial in self._ledger.state.trials.values():
                if trial.is_open and trial.run_id:
                    self._tracker.end_trial(trial.run_id, "paused", "the sweep was interrupted", {})
            if self._ledger.state.run_id:
                self._tracker.end_sweep(self._ledger.state.run_id, "stopped", {}, {})
        except Exception as error:
            log.warning("MLflow: the interrupt is not recorded: %s", error)

    def _sync(self, trial: TrialRecord) -> None:
        parent = self._ledger.state.run_id
        if trial.id in self._closed or parent is None:
            return
        if trial.run_id is None:
            recipe = asdict(self._config.recipe(trial.settings))
            number = list(self._ledger.state.trials).index(trial.id)
            tags = {**self._tags, "source": trial.source, "mlflow.runColor": _colour(number)}
            run_id = self._tracker.start_trial(parent, self._ledger.state.name, trial.id, recipe, tags)
            self._ledger.append("tracked", trial=trial.id, run_id=run_id)
        assert trial.run_id is not None
        if trial.id not in self._logged:
            self._logged[trial.id] = self._tracker.last_step(trial.run_id, "wer")
            if trial.is_open:
                self._tracker.reopen(trial.run_id)
        new = [r for r in trial.reports if r["step"] > self._logged[trial.id]]
        if new:
            rows = [Row(r["step"], int(r["time"] * 1000), {**r["metrics"], **_best(r)}) for r in new]
            self._tracker.log(trial.run_id, rows)
            self._logged[trial.id] = new[-1]["step"]
            if any(r["best"]["step"] == r["step"] for r in new):
                self._tag_checkpoint(trial)
        if trial.is_open:
            return
        summary = {"spent_s": trial.spent_s}
        if checkpoint := self._ledger.best_checkpoint(trial):
            self._tag_checkpoint(trial)
            self._tracker.log_samples(trial.run_id, _samples(checkpoint))
            summary |= _best(trial.reports[-1])
            at_best = next(r["metrics"] for r in trial.reports if r["step"] == trial.reports[-1]["best"]["step"])
            summary |= {f"best_{name}": at_best[name] for name in ("wer_folded", "cer_folded")}
        self._tracker.end_trial(
            trial.run_id,
            trial.state,  # type: ignore[arg-type]
            trial.reason,
            summary,
            step=max(trial.last_step, 0),
            ended_s=trial.ended_s,
        )
        self._closed.add(trial.id)

    def _tag_checkpoint(self, trial: TrialRecord) -> None:
        checkpoint = self._ledger.best_checkpoint(trial)
        if trial.run_id and checkpoint:
            self._tracker.set_tags(trial.run_id, {"checkpoint_uri": checkpoint.as_uri()})


def _colour(number: int) -> str:
    """A trial's colour in the UI, apart from its neighbours' by the golden angle; MLflow's own repeat after a few."""
    channels = colorsys.hls_to_rgb(number * 0.618034 % 1, 0.42, 0.65)
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in channels)


def _best(report: dict[str, Any]) -> dict[str, float]:
    return {f"best_{name}": value for name, value in report["best"].items()}


def _samples(checkpoint: Path) -> list[Sample]:
    """Dev utterances as the trial's best checkpoint hears them."""
    told = json.loads((checkpoint / "progress.json").read_text(encoding="utf-8"))["samples"]
    return [Sample(name, reference, heard, wer([reference], [heard])) for name, reference, heard in told]


class SweepCallback(tune.Callback):
    """Tune's events, as they come. An exception here would end the sweep, so what can fail is caught where it fails.

    Args:
        ledger: the sweep's ledger.
        mirror: MLflow.
        board: the table of trials.
        trial_of: our trial id for a Tune trial's id.
    """

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune writes snapshots of what it is given, but the ledger is what lasts."""
        return {}

    def __init__(self, ledger: Ledger, mirror: Mirror, board: Board, trial_of: Callable[[str], str]) -> None:
        self._ledger, self._mirror, self._board, self._trial_of = ledger, mirror, board, trial_of

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        name = self._trial_of(trial.trial_id)
        self._ledger.append("started", trial=name)
        self._mirror.sync(name)
        self._board.update(name)

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        self._show(trial)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._show(trial)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        log.error("%s: a slot broke: %s", self._trial_of(trial.trial_id), _reason(trial))
        self._show(trial)

    def on_trial_recover(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        log.warning(
            "%s: a slot broke, the trial goes on in a new one: %s", self._trial_of(trial.trial_id), _reason(trial)
        )

    def on_step_end(self, iteration: int, trials: list, **info: Any) -> None:
        self._board.tick()

    def _show(self, trial: Any) -> None:
        name = self._trial_of(trial.trial_id)
        self._mirror.sync(name)
        self._board.update(name)


def _reason(trial: Any) -> str:
    error = trial.get_error() or trial.get_pickled_error()
    return str(error).strip().splitlines()[-1] if error else "no reason given"
