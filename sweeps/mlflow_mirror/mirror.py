"""MLflow as the ledger's mirror, written by a thread of its own, so that trouble there never ends or slows a sweep.

In: the ledger, and a mark on each trial that something happened to. Out: one parent run, one child run per trial.
Called by the sweep's driver, which waits for nothing but `flush` and `interrupted`, and for those as long as it says.

The ledger is what is still to be written, on disk and in order. Each round brings one trial's run to what the ledger
says of the trial now, with all that is new in one call, so whoever has fallen behind catches up in few calls. While
MLflow is away the thread asks again every few seconds. What it has been told once is not told again: after a restart
it is asked what it has. A fault of one run (somebody deleted it, say) stops no other.
"""

from __future__ import annotations

import copy
import logging
import math
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hausa_asr.settings.load import SweepConfig
from hausa_asr.tracking.store import is_outage
from hausa_asr.tracking.tracker import STATUS, Row, Tracker, TrialRun
from sweeps.mlflow_mirror.run_contents import Held, best_step, colour, held, lacks_samples, rows, samples
from sweeps.record.ledger import FINALIST, Ledger, TrialRecord, read_events

FIRST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 15.0
"""Between two tries while MLflow is away."""
FILES_PAUSE_S = 60.0
"""Until an artifact is tried again: its store may be another than that of the figures, and broken."""
TAG_EVERY_S = 60.0
"""Until a running trial's best checkpoint is told again: a tag beside the metrics doubles what a report costs."""
INTERRUPTED = "the sweep was interrupted"
CHECKPOINT = "checkpoint_uri"
PARENT = ""
FIGURES, FILES = "figures", "files"
Job = tuple[str, str]
"""FIGURES or FILES, and a trial's id or PARENT."""

log = logging.getLogger("sweeps")


class Mirror:
    """The sweep's runs in MLflow: one parent, one child per trial.

    Args:
        tracker: an open experiment.
        ledger: the sweep's ledger; the run ids are kept there.
        config: the sweep's settings.
        tags: of every child, such as the base checkpoint and the fingerprint of the prepared dataset.

    Attributes:
        write_s: seconds that the thread was busy so far, waiting between tries left out.
    """

    def __init__(self, tracker: Tracker, ledger: Ledger, config: SweepConfig, tags: dict[str, str]) -> None:
        self._tracker, self._ledger, self._config, self._tags = tracker, ledger, config, tags
        self.write_s = 0.0
        # Only the thread touches these.
        self._runs: dict[str, Held] = {}
        self._tried = set(ledger.state.trials)  # an earlier driver may have made runs for them
        self._opened = False
        self._told: set[Job] = set()
        # These under the lock of `_changed`.
        self._changed = threading.Condition()
        self._jobs: dict[Job, float] = {(FIGURES, PARENT): 0.0}  # with the earliest time for each
        self._at_work: Job | None = None
        self._pause_s = self._not_before = 0.0
        self._interrupted = self._closed = False
        self._thread = threading.Thread(target=self._work, name="mlflow-mirror", daemon=True)

    # What the driver calls.

    def start(self) -> None:
        """Begin; the sweep's own run is the first thing that is written."""
        self._thread.start()

    def mark(self, trial_id: str) -> None:
        """Something happened to a trial: its run is brought up to date soon. Returns at once."""
        with self._changed:
            self._jobs[FIGURES, trial_id] = 0.0
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> list[str]:
        """Wait until all is written that can be, `timeout_s` at the most; what was put aside is tried once more.

        Returns:
            The trials whose runs still lack something, and the sweep's name where its own run does.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            self._jobs = dict.fromkeys(self._jobs, 0.0)
            self._not_before = 0.0
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._at_work is None and all(at > deadline for at in self._jobs.values()), timeout_s
            )
            lacking = {name for _, name in [*self._jobs, *([self._at_work] if self._at_work else [])]}
        return sorted(name or self._ledger.state.name for name in lacking)

    def interrupted(self, timeout_s: float) -> list[str]:
        """The sweep stops with trials open: their runs wait for a resume, rather than look as if they were running.

        Args and returns as `flush`.
        """
        with self._ledger.lock:
            waiting = [t.id for t in self._ledger.state.trials.values() if t.is_open or t.state == "paused"]
        with self._changed:
            self._interrupted = True
            self._jobs |= {(FIGURES, name): 0.0 for name in (PARENT, *waiting)}
        return self.flush(timeout_s)

    def close(self) -> None:
        """Write no more. A call to MLflow that is under way is waited for a second at the most."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout=1)

    # The thread.

    def _work(self) -> None:
        while (job := self._next()) is not None:
            began = time.perf_counter()
            fault, asked = None, False
            try:
                asked = self._do(*job)
            except Exception as error:
                fault = error
            self.write_s += time.perf_counter() - began
            self._settle(job, fault, asked)

    def _next(self) -> Job | None:
        """Wait for the next job; None when the mirror is closed."""
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                jobs = self._jobs if self._opened else {(FIGURES, PARENT): 0.0}
                wait_s = self._not_before - now
                if wait_s <= 0:
                    # Figures first: they are small, and an artifact's store may be slow.
                    for kind in (FIGURES, FILES):
                        for job, at in jobs.items():
                            if job[0] == kind and at <= now:
                                self._jobs.pop(job, None)
                                self._at_work = job
                                return job
                    wait_s = min(jobs.values(), default=math.inf) - now
                self._changed.wait(wait_s if wait_s < threading.TIMEOUT_MAX else None)
            return None

    def _do(self, kind: str, name: str) -> bool:
        """One job; whether MLflow had to be asked for it."""
        if kind == FIGURES and name != PARENT:
            return self._trial(name)
        if kind == FIGURES:
            self._parent()
        elif name == PARENT:
            self._parent_files()
        else:
            self._trial_files(name)
        return True

    def _settle(self, job: Job, fault: Exception | None, asked: bool) -> None:
        """Note how a job went: over, to be tried again in a while, or put aside."""
        with self._changed:
            self._at_work = None
            now = time.monotonic()
            if fault is None:
                if asked and self._pause_s:
                    log.info("MLflow answers again")
                    self._pause_s = 0.0
                self._told.discard(job)
            elif job[0] == FILES:
                self._jobs.setdefault(job, now + FILES_PAUSE_S)
            elif is_outage(fault) or not self._opened:
                # To the end of the line: where it is this run alone that gets no answer, the others go on.
                self._jobs.setdefault(job, 0.0)
                if not self._pause_s:
                    log.warning("MLflow is away, what is new waits in the ledger: %s", self._words(fault))
                self._pause_s = min(max(2 * self._pause_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)
                self._not_before = now + self._pause_s
                self._told.add(job)
            else:
                self._jobs.setdefault(job, math.inf)  # until something happens to it again, or the end
            if fault is not None and job not in self._told:
                self._told.add(job)
                log.warning("MLflow: the %s of %s are not up to date: %s", *self._named(job), self._words(fault))
            self._changed.notify_all()

    def _named(self, job: Job) -> tuple[str, str]:
        return job[0], job[1] or "the sweep's own run"

    def _words(self, fault: Exception) -> str:
        text = str(fault).replace(self._tracker.uri.rstrip("/"), self._tracker.shown_uri).strip()
        return (text or type(fault).__name__).splitlines()[0][:300]

    # The sweep's own run.

    def _parent(self) -> None:
        if not self._opened:
            self._open()
        if self._interrupted and self._ledger.state.run_id:
            self._tracker.end_sweep(self._ledger.state.run_id, "stopped", {}, {})

    def _open(self) -> None:
        """The run that the sweep has, or a new one; then find out which trials' runs are behind."""
        with self._ledger.lock:
            run_id, name = self._ledger.state.run_id, self._ledger.state.name
        found: dict[str, TrialRun] = {}
        if run_id is None:
            began = next(read_events(self._ledger.path))["time"]
            tags = {"base": self._config.model.base, "folder": str(self._ledger.folder)}
            run_id = self._tracker.start_sweep(name, self._params(), tags, key=f"{name} {began!r}", settings_file=False)
            self._ledger.append("mirrored", run_id=run_id)
        else:
            try:
                self._tracker.reopen(run_id)
                found = {run.trial: run for run in self._tracker.trials(run_id)}
            except Exception as fault:
                if is_outage(fault):
                    raise
                log.warning("MLflow: the sweep's own run can't be opened again: %s", self._words(fault))
        with self._ledger.lock:
            trials = [copy.copy(trial) for trial in self._ledger.state.trials.values()]
        due: list[Job] = [(FILES, PARENT)]
        for trial in trials:
            mine = held(trial, found.get(trial.id))
            if mine is None:
                due.append((FIGURES, trial.id))
            else:
                self._runs[trial.id] = mine
                due += [(FILES, trial.id)] if lacks_samples(trial, mine) else []
        with self._changed:
            self._opened = True
            for job in due:
                self._jobs.setdefault(job, 0.0)

    def _params(self) -> dict[str, Any]:
        return self._config.model_dump(mode="json", exclude={"space", "storage", "mlflow"}, exclude_none=True)

    def _parent_files(self) -> None:
        """The sweep's settings, whole and as they are given to a new sweep, and the report on its data."""
        with self._ledger.lock:
            run_id, prepared = self._ledger.state.run_id, Path(self._ledger.state.prepared)
        assert run_id is not None
        self._tracker.log_settings(run_id, self._params())
        with tempfile.TemporaryDirectory() as aside:
            (Path(aside) / "sweep.yaml").write_text(self._config.to_yaml(), encoding="utf-8")
            self._tracker.log_folder(run_id, Path(aside), "settings")
        report = prepared / "report.json"
        if report.is_file():
            with tempfile.TemporaryDirectory() as aside:
                (Path(aside) / report.name).write_bytes(report.read_bytes())
                self._tracker.log_folder(run_id, Path(aside), "data")

    # A trial's run.

    def _trial(self, trial_id: str) -> bool:
        """Bring a trial's run to what the ledger says: with one call, and one more where its status changes.

        Returns:
            Whether there was anything to write.
        """
        trial, number, parent = self._read(trial_id)
        if trial.run_id is None and trial.state == "proposed":
            return False  # it is made when a slot takes the trial, so that its start is the trial's
        mine = self._runs.setdefault(trial_id, Held())
        run_id = trial.run_id
        if run_id is None:
            run_id = self._start(trial, number, parent, mine)
        if mine.step is None:
            mine.step = self._tracker.last_step(run_id, "wer")
        waits = self._interrupted and (trial.is_open or trial.state == "paused")
        state = "paused" if waits else "running" if trial.is_open else trial.state
        tags = self._new_tags(trial, mine, state, INTERRUPTED if waits else trial.reason)
        new = rows(trial, mine.step)
        # The ledger's times and never now: the same call made again must change nothing.
        at = trial.ended_s or (trial.reports[-1]["time"] if trial.reports else None)
        if at and not trial.is_open and trial.spent_s != mine.spent_s:
            new.append(Row(max(trial.last_step, 0), int(at * 1000), {"spent_s": trial.spent_s}))
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
            with self._changed:
                self._jobs.setdefault((FILES, trial_id), 0.0)
        return bool(new or tags or changed)

    def _new_tags(self, trial: TrialRecord, mine: Held, state: str, reason: str) -> dict[str, str]:
        """Those that the run has not, or has otherwise."""
        tags = {"state": state, "reason": reason, **({"audited": "true"} if trial.audited else {})}
        tags = {key: value for key, value in tags.items() if mine.tags.get(key) != value}
        checkpoint = self._ledger.best_checkpoint(trial)
        if checkpoint and (tags or not trial.is_open or time.monotonic() >= mine.tag_again):
            uri = checkpoint.as_uri()
            if mine.tags.get(CHECKPOINT) != uri and checkpoint.is_dir():
                tags[CHECKPOINT] = uri
        return tags

    def _read(self, trial_id: str) -> tuple[TrialRecord, int, str]:
        """A copy of what the ledger says of a trial, its number, and the run id of the sweep."""
        with self._ledger.lock:
            state = self._ledger.state
            trial = copy.copy(state.trials[trial_id])
            trial.reports = list(trial.reports)
            assert state.run_id is not None
            return trial, 0 if trial.run_id else list(state.trials).index(trial_id), state.run_id

    def _start(self, trial: TrialRecord, number: int, parent: str, mine: Held) -> str:
        tags = {**self._tags, "source": trial.source, "mlflow.runColor": colour(number)}
        if trial.of:
            tags |= {"source": FINALIST, "finalist_of": trial.of}
        fresh = trial.id not in self._tried
        self._tried.add(trial.id)
        recipe = asdict(self._config.recipe(trial.settings))
        run_id = self._tracker.start_trial(
            parent, self._ledger.state.name, trial.id, recipe, tags, fresh=fresh, settings_file=False
        )
        self._ledger.append("tracked", trial=trial.id, run_id=run_id)
        if fresh:
            mine.step, mine.status, mine.tags = -1, STATUS["running"], {"state": "running", "reason": ""}
        return run_id

    def _trial_files(self, trial_id: str) -> None:
        """A trial's settings in full, and at its end the transcripts of its best checkpoint."""
        trial, _, _ = self._read(trial_id)
        mine = self._runs[trial_id]
        assert trial.run_id is not None
        if not mine.settings:
            self._tracker.log_settings(trial.run_id, asdict(self._config.recipe(trial.settings)))
            mine.settings = True
        checkpoint = self._ledger.best_checkpoint(trial)
        if checkpoint and lacks_samples(trial, mine):
            told = samples(checkpoint)
            if told is None:
                log.info("%s: its transcripts are not in MLflow, for %s is gone", trial_id, checkpoint)
            else:
                self._tracker.log_samples(trial.run_id, told)
            mine.samples_step = best_step(trial)
