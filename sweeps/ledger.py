"""The sweep's one durable truth: an append-only file of events, and the state that they add up to.

Every event is one JSON object on one line, fsynced before anything acts on it. All else is rebuilt from it: the
Optuna study, the rungs, the MLflow run ids. A torn last line, from a crash in mid-write, is ignored.

Events: `sweep` (the settings), `opened` (a driver began or took over; the sweep's MLflow run), `proposed`, `started`,
`tracked` (a trial's MLflow run), `reported`, `ranked` (at a rung), `ended`.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hausa_asr.errors import UserError
from hausa_asr.recipe import step_folder

FILE = "ledger.jsonl"
OPEN_STATES = ("proposed", "running")


@dataclass
class TrialRecord:
    """What is known of one trial.

    Attributes:
        id: ours, `t000` for the baseline.
        settings: what the search chose; the rest of the recipe is the sweep's.
        source: `baseline`, `starting point NAME` or `search`.
        state: `proposed`, `running`, `finished`, `pruned` or `failed`.
        reason: why it ended so, in words.
        reports: one per evaluation, by rising step: `step`, `updates`, `seen_s`, `metrics`, `best`, `last`,
            `diverged`, `time` (seconds since the epoch).
        run_id: its MLflow run.
        spent_s: seconds that a slot was busy with it.
        started: since when a slot is; None while none is.
        ended_s: when it ended, in seconds since the epoch.
    """

    id: str
    settings: dict[str, Any]
    source: str
    state: str = "proposed"
    reason: str = ""
    reports: list[dict[str, Any]] = field(default_factory=list)
    run_id: str | None = None
    spent_s: float = 0.0
    started: float | None = None
    ended_s: float | None = None

    @property
    def is_open(self) -> bool:
        return self.state in OPEN_STATES

    @property
    def last_step(self) -> int:
        return self.reports[-1]["step"] if self.reports else -1

    @property
    def best(self) -> dict[str, float] | None:
        """`step`, `wer`, `cer` and `loss` of its best checkpoint, None before the first report."""
        return self.reports[-1]["best"] if self.reports else None


@dataclass
class State:
    """All events so far, added up.

    Attributes:
        name: of the sweep.
        prepared, fingerprint: its prepared dataset.
        trials: by id, in the order of their proposal.
        ended: the ids of the ended ones, in the order of their ends.
        rungs: the eval losses recorded at each rung, by trial.
        run_id: the sweep's MLflow run.
        wall_s: seconds that a driver was at work.
    """

    name: str = ""
    prepared: str = ""
    fingerprint: str = ""
    trials: dict[str, TrialRecord] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    rungs: dict[int, dict[str, float]] = field(default_factory=dict)
    run_id: str | None = None
    wall_s: float = 0.0
    clock: float | None = None

    def apply(self, event: dict[str, Any]) -> None:
        """Take in one event. A report that is known already, as after a resume, changes nothing."""
        kind = event["event"]
        if kind != "opened" and self.clock is not None:  # the time between two drivers is nobody's
            self.wall_s += event["time"] - self.clock
        self.clock = event["time"]
        if kind == "sweep":
            self.name = event["name"]
            self.prepared, self.fingerprint = event.get("prepared", ""), event.get("fingerprint", "")
        elif kind == "opened":
            self.run_id = event.get("run_id", self.run_id)
            for trial in self.trials.values():
                trial.started = None
        elif kind == "proposed":
            self.trials[event["trial"]] = TrialRecord(event["trial"], event["settings"], event["source"])
        elif kind == "ranked":
            self.rungs.setdefault(event["rung"], {})[event["trial"]] = event["value"]
        else:
            self._apply_to(self.trials[event["trial"]], kind, event)

    def _apply_to(self, trial: TrialRecord, kind: str, event: dict[str, Any]) -> None:
        if kind == "started":
            trial.state, trial.started = "running", event["time"]
        elif kind == "tracked":
            trial.run_id = event["run_id"]
        elif kind == "reported":
            if event["step"] > trial.last_step:
                trial.reports.append({key: event[key] for key in event if key not in ("event", "trial")})
            self._spend(trial, event["time"])
        elif kind == "ended":
            trial.state, trial.reason = event["state"], event["reason"]
            self._spend(trial, event["time"])
            trial.started, trial.ended_s = None, event["time"]
            self.ended.append(trial.id)

    @staticmethod
    def _spend(trial: TrialRecord, now: float) -> None:
        if trial.started is not None:
            trial.spent_s += now - trial.started
            trial.started = now

    def baseline(self) -> TrialRecord | None:
        return next((trial for trial in self.trials.values() if trial.source == "baseline"), None)

    def best(self) -> TrialRecord | None:
        """The trial with the lowest dev WER; CER, then loss break ties."""
        scored = [t for t in self.trials.values() if t.best and math.isfinite(t.best["loss"])]
        return min(scored, key=lambda t: (t.best["wer"], t.best["cer"], t.best["loss"]), default=None)  # type: ignore[index]


class Ledger:
    """The ledger of one sweep, open for writing.

    Args:
        folder: the sweep's folder.

    Attributes:
        state: what the events so far add up to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / FILE
        self.state = State()
        self._drop_torn_line()
        for event in read_events(self.path):
            self.state.apply(event)

    def append(self, event: str, **fields: Any) -> None:
        """Write one event durably, then take it into the state."""
        record = {"event": event, "time": time.time(), **fields}
        line = json.dumps(record, ensure_ascii=False) + "\n"
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self.state.apply(record)

    def trial_folder(self, trial_id: str) -> Path:
        """Where a trial's checkpoints and log are."""
        return self.folder / "trials" / trial_id

    def best_checkpoint(self, trial: TrialRecord) -> Path | None:
        """A trial's best checkpoint, where the sweep's folder is now; None before its first report."""
        return step_folder(self.trial_folder(trial.id), int(trial.best["step"])) if trial.best else None

    def _drop_torn_line(self) -> None:
        """A line without its end would swallow the next event."""
        if not self.path.is_file():
            return
        content = self.path.read_bytes()
        if content and not content.endswith(b"\n"):
            with self.path.open("r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)


def read_state(folder: Path) -> State:
    """What a sweep's ledger adds up to, read only; another driver may be writing it."""
    state = State()
    for event in read_events(folder / FILE):
        state.apply(event)
    return state


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a ledger file, oldest first; none when there is no file.

    Raises:
        UserError: a line other than the last is not readable, so the file has been tampered with or damaged.
    """
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            if number == len(lines):  # torn: what it would have told is told again
                return
            raise UserError(
                "The sweep's ledger has a line that is not an event.",
                where=f"{path}, line {number}",
                fix="Restore the file from a backup, or start a sweep under another name.",
            ) from None
        yield event
