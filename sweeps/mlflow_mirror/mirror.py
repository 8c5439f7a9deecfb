"""MLflow as the ledger's mirror, written by a thread of its own, so that trouble there never ends or slows a sweep.

In: the ledger, and a mark on each trial that something happened to. Out: one parent run, one child run per trial.
Called by the sweep's driver, which waits for nothing but `flush` and `interrupted`, and for those as long as it says.

The ledger is what is still to be written, on disk and in order. Each round brings one trial's run up to date with the
ledger, with all that is new in one call, so whoever has fallen behind catches up in few calls. While MLflow is down,
writes wait in the ledger and are sent later. What was sent once is not sent again: after a restart MLflow is asked
what it has. A fault of one run (somebody deleted it, say) stops no other.
"""

from __future__ import annotations

import copy
import json
import logging
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hausa_asr.errors import first_line
from hausa_asr.settings.sweep import SweepConfig
from hausa_asr.storage.address import is_remote, portable
from hausa_asr.tracking.store import is_outage
from hausa_asr.tracking.tracker import STATUS, Tracker, TrialRun
from sweeps.mlflow_mirror.origin import origin_tags, profile
from sweeps.mlflow_mirror.retry_queue import Job, Kind, RetryQueue
from sweeps.mlflow_mirror.run_contents import (
    RunContents,
    best_step,
    colour,
    contents,
    lacks_samples,
    row_at_end,
    rows,
    run_name,
    samples,
)
from sweeps.mlflow_mirror.views import sweeps_view, trials_view
from sweeps.record.ledger import Ledger, read_events
from sweeps.record.names import SETTINGS_FILE
from sweeps.record.trial import FINALIST, TrialRecord

TAG_EVERY_S = 60.0
"""Until a running trial's best checkpoint is tagged again: a tag beside the metrics doubles what a report costs."""
INTERRUPTED = "the sweep was interrupted"
CHECKPOINT = "checkpoint_uri"
PARENT = ""

log = logging.getLogger("sweeps")


class Mirror:
    """Keep the sweep's runs in MLflow up to date: one parent, one child per trial.

    Args:
        tracker: an open experiment.
        ledger: the sweep's ledger; the run ids are kept there.
        config: the sweep's settings.
        tags: of every child, such as the base checkpoint and the fingerprint of the prepared dataset.

    Attributes:
        write_s: seconds that the thread was busy so far, waiting between tries left out.
        waiting: counts the writes that are not done yet.
    """

    def __init__(self, tracker: Tracker, ledger: Ledger, config: SweepConfig, tags: dict[str, str]) -> None:
        self._tracker, self._ledger, self._config, self._tags = tracker, ledger, config, tags
        self.write_s = 0.0
        self._queue = RetryQueue(
            lambda fault: log.warning("MLflow is away, what is new waits in the ledger: %s", self._words(fault)),
            lambda: log.info("MLflow answers again"),
            lambda job, fault: log.warning("MLflow: %s are not up to date: %s", job, self._words(fault)),
        )
        self.waiting = self._queue.waiting
        # Only the thread touches these.
        self._runs: dict[str, RunContents] = {}
        self._tried = set(ledger.state.trials)  # an earlier driver may have made runs for them
        self._opened = False
        self._interrupted = False
        self._thread = threading.Thread(target=self._work, name="mlflow-mirror", daemon=True)

    # Called by the driver.

    def start(self) -> None:
        """Begin; the sweep's own run is written first."""
        self._thread.start()

    def mark(self, trial_id: str) -> None:
        """Something happened to a trial: bring its run up to date soon. Returns at once."""
        self._queue.add(Job(Kind.FIGURES, trial_id))

    def flush(self, timeout_s: float) -> list[str]:
        """Wait until all is written that can be, `timeout_s` at most; what was put aside is tried once more.

        Returns:
            The trials whose runs still lack something, and the sweep's name if its own run does.
        """
        lacking = {job.trial for job in self._queue.flush(timeout_s)}
        return sorted(name or self._ledger.state.name for name in lacking)

    def interrupted(self, timeout_s: float) -> list[str]:
        """The sweep stops with trials open: show their runs as waiting for a resume, and not as running.

        Args and returns as `flush`.
        """
        with self._ledger.lock:
            waiting = [t.id for t in self._ledger.state.trials.values() if t.is_open or t.state == "paused"]
        self._interrupted = True
        self._queue.add(*(Job(Kind.FIGURES, name) for name in (PARENT, *waiting)))
        return self.flush(timeout_s)

    def close(self) -> None:
        """Write no more. A call to MLflow that is under way is waited for a second at most."""
        self._queue.close()
        if self._thread.is_alive():
            self._thread.join(timeout=1)

    # The thread.

    def _work(self) -> None:
        while (job := self._queue.take()) is not None:
            began_s = time.perf_counter()
            try:
                asked = self._do(job)
            except Exception as fault:
                self.write_s += time.perf_counter() - began_s
                self._queue.failed(job, fault, is_outage(fault))
            else:
                self.write_s += time.perf_counter() - began_s
                self._queue.done(job, asked)

    def _do(self, job: Job) -> bool:
        """Do one job, and say whether MLflow had to be asked for it."""
        if job.kind is Kind.FIGURES:
            if job.trial != PARENT:
                return self._trial(job.trial)
            self._parent()
        elif job.trial == PARENT:
            self._parent_files()
        else:
            self._trial_files(job.trial)
        return True

    def _words(self, fault: Exception) -> str:
        return first_line(fault).replace(self._tracker.uri.rstrip("/"), self._tracker.shown_uri)

    # The sweep's own run.

    def _parent(self) -> None:
        if not self._opened:
            self._open()
        if self._interrupted and self._ledger.state.run_id:
            self._tracker.end_sweep(self._ledger.state.run_id, "stopped", {}, {})

    def _open(self) -> None:
        """Open the run that the sweep has, or a new one; then find out which trials' runs are behind."""
        with self._ledger.lock:
            run_id, name = self._ledger.state.run_id, self._ledger.state.name
        runs: dict[str, TrialRun] = {}
        if run_id is None:
            began = next(read_events(self._ledger.path))["time"]
            tags = {"base": ", ".join(self._config.bases), "folder": portable(self._ledger.folder), **origin_tags()}
            run_id = self._tracker.start_sweep(name, self._params(), tags, key=f"{name} {began!r}", settings_file=False)
            self._ledger.append("mirrored", run_id=run_id)
        else:
            try:
                self._tracker.reopen(run_id)
                runs = {run.trial: run for run in self._tracker.trials(run_id)}
            except Exception as fault:
                if is_outage(fault):
                    raise
                log.warning("MLflow: the sweep's own run can't be opened again: %s", self._words(fault))
        with self._ledger.lock:
            trials = [copy.copy(trial) for trial in self._ledger.state.trials.values()]
        due = [Job(Kind.FILES, PARENT)]
        for trial in trials:
            mine = contents(trial, runs.get(trial.id))
            if mine is None:
                due.append(Job(Kind.FIGURES, trial.id))
            else:
                self._runs[trial.id] = mine
                due += [Job(Kind.FILES, trial.id)] if lacks_samples(trial, mine) else []
        self._opened = True
        self._queue.opened()
        self._queue.add_new(*due)

    def _params(self) -> dict[str, Any]:
        return self._config.model_dump(mode="json", exclude={"space", "storage", "mlflow"}, exclude_none=True)

    def _parent_files(self) -> None:
        """Write the sweep's settings, whole and as a file for a new sweep, and the report on its data."""
        with self._ledger.lock:
            run_id, prepared = self._ledger.state.run_id, Path(self._ledger.state.prepared)
        assert run_id is not None
        self._tracker.log_settings(run_id, self._params())
        with tempfile.TemporaryDirectory() as aside:
            (Path(aside) / SETTINGS_FILE).write_text(self._config.to_yaml(), encoding="utf-8")
            self._tracker.log_folder(run_id, Path(aside), "settings")
        report = prepared / "report.json"
        if report.is_file():
            with tempfile.TemporaryDirectory() as aside:
                (Path(aside) / report.name).write_bytes(report.read_bytes())
                self._tracker.log_folder(run_id, Path(aside), "data")
            about = profile(json.loads(report.read_text(encoding="utf-8")))
            self._tracker.log_dataset(run_id, prepared.name, self._ledger.state.fingerprint, str(prepared), about)
        for view in (trials_view(self._ledger.state.name, run_id, list(self._config.space)), sweeps_view()):
            self._tracker.save_view(*view)

    # A trial's run.

    def _trial(self, trial_id: str) -> bool:
        """Bring a trial's run up to date with the ledger: one call, and one more if its status changes.

        Returns:
            Whether there was anything to write.
        """
        trial, number, parent = self._read(trial_id)
        if trial.run_id is None and trial.state == "proposed":
            return False  # it is made when a slot takes the trial, so that its start is the trial's
        mine = self._runs.setdefault(trial_id, RunContents())
        run_id = trial.run_id
        if run_id is None:
            run_id = self._start(trial, number, parent, mine)
        if mine.step is None:
            mine.step = self._tracker.last_step(run_id, "wer")
        waits = self._interrupted and (trial.is_open or trial.state == "paused")
        state = "paused" if waits else "running" if trial.is_open else trial.state
        tags = self._new_tags(trial, mine, state, INTERRUPTED if waits else trial.reason)
        new = [*rows(trial, mine.step), *row_at_end(trial, mine.spent_s)]
        if new or tags:
            self._tracker.log(run_id, new, tags)
        mine.step, mine.tags = max(mine.step, trial.last_step), {**mine.tags, **tags}
        mine.spent_s = mine.spent_s if trial.is_open else trial.spent_s
        if CHECKPOINT in tags:
            mine.tag_again = time.monotonic() + TAG_EVERY_S
        changed = (mine.status, mine.ended_s) != (STATUS[state], trial.ended_s)
        if changed:
            # Last, so that a status that is right says that all else is.
            self._tracker.set_status(run_id, state, trial.ended_s)  # type: ignore[arg-type]
            mine.status, mine.ended_s = STATUS[state], trial.ended_s
        if not mine.settings or lacks_samples(trial, mine):
            self._queue.add_new(Job(Kind.FILES, trial_id))
        return bool(new or tags or changed)

    def _new_tags(self, trial: TrialRecord, mine: RunContents, state: str, reason: str) -> dict[str, str]:
        """The tags that the run lacks or has otherwise."""
        tags = {"state": state, "reason": reason}
        tags = {key: value for key, value in tags.items() if mine.tags.get(key) != value}
        checkpoint = self._ledger.best_checkpoint(trial)
        if checkpoint and (tags or not trial.is_open or time.monotonic() >= mine.tag_again):
            uri = place if is_remote(place := portable(checkpoint)) else checkpoint.as_uri()
            if mine.tags.get(CHECKPOINT) != uri and self._ledger.has_best(trial):
                tags[CHECKPOINT] = uri
        return tags

    def _read(self, trial_id: str) -> tuple[TrialRecord, int, str]:
        """A copy of what the ledger has of a trial, its number, and the run id of the sweep."""
        with self._ledger.lock:
            state = self._ledger.state
            trial = copy.copy(state.trials[trial_id])
            trial.reports = list(trial.reports)
            assert state.run_id is not None
            return trial, 0 if trial.run_id else list(state.trials).index(trial_id), state.run_id

    def _start(self, trial: TrialRecord, number: int, parent: str, mine: RunContents) -> str:
        recipe = asdict(self._config.recipe(trial.settings))
        tags = {**self._tags, "base": recipe["base"], "source": trial.source, "mlflow.runColor": colour(number)}
        if trial.of:
            tags |= {"source": FINALIST, "finalist_of": trial.of}
        fresh = trial.id not in self._tried
        self._tried.add(trial.id)
        run_id = self._tracker.start_trial(
            parent, self._ledger.state.name, trial.id, recipe, tags,
            name=run_name(trial, list(self._config.space)), fresh=fresh, settings_file=False,
        )  # fmt: skip
        self._ledger.append("tracked", trial=trial.id, run_id=run_id)
        if fresh:
            mine.step, mine.status, mine.tags = -1, STATUS["running"], {"state": "running", "reason": ""}
        return run_id

    def _trial_files(self, trial_id: str) -> None:
        """Write a trial's settings in full, and at its end the transcripts of its best checkpoint."""
        trial, _, _ = self._read(trial_id)
        mine = self._runs[trial_id]
        assert trial.run_id is not None
        if not mine.settings:
            self._tracker.log_settings(trial.run_id, asdict(self._config.recipe(trial.settings)))
            mine.settings = True
        checkpoint = self._ledger.best_checkpoint(trial)
        if checkpoint and lacks_samples(trial, mine):
            transcripts = samples(self._ledger.checkpoints.read(trial.id, best_step(trial) or 0, "progress.json"))
            if transcripts is None:
                log.info("%s: its transcripts are not in MLflow, for %s is gone", trial_id, checkpoint)
            else:
                self._tracker.log_samples(trial.run_id, transcripts)
            mine.samples_step = best_step(trial)
