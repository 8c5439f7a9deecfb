"""The sweep's one durable truth: an append-only file of events, and the state that they add up to.

Every event is one JSON object on one line, fsynced before anything acts on it. All else is rebuilt from it: the
Optuna study, the rungs, the decisions, the MLflow run ids and what was spent. A torn last line, from a crash in
mid-write, is ignored.

Events, in the order of a trial's life:

    sweep      name, prepared dataset, rungs
    opened     a driver began or took over; the sweep's MLflow run, how many slots
    mirrored   the sweep's MLflow run
    proposed   trial, settings, source; for a finalist what it is a run `of`
    started    a slot took it; `recall` where that is the second look, `audit` where it runs on only to see what
               pruning has cost
    tracked    its MLflow run
    reported   one evaluation
    ranked     one decision at a rung, with all that it was made of
    paused     it left its slot and can go on: `cause` is rung, budget or crash
    ended      finished, pruned or failed
    dropped    its optimizer state made room on the disk, so it cannot go on
    decided    the finalists' verdict, with the test scores
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hausa_asr.errors import UserError
from hausa_asr.recipe import step_folder
from sweeps.pruning.rule import Point, Score

FILE = "ledger.jsonl"
OPEN_STATES = ("proposed", "running")
FINALIST = "finalist"
"""The source of a trial that runs a setting again on a fresh seed."""


@dataclass
class TrialRecord:
    """What is known of one trial.

    Attributes:
        id: ours, `t000` for the baseline, `t007-s1` for its run on the first fresh seed.
        settings: what the search chose; the rest of the recipe is the sweep's.
        source: `baseline`, `starting point NAME`, `search` or `finalist`.
        of: the trial whose settings a finalist runs again; "" for all others.
        state: `proposed`, `running`, `paused`, `finished`, `pruned` or `failed`.
        reason: why it is so, in words; `diverged` for all kinds of divergence, with the kind in `detail`.
        cause: why it is paused: `rung`, `budget` or `crash`.
        reports: one per evaluation, by rising step: `step`, `updates`, `seen_s`, `metrics`, `best`, `last`,
            `diverged`, `time` (seconds since the epoch).
        decisions: its `ranked` events.
        waits_at: the rung that it lost at and has not been promoted from.
        lost_s: seconds of audio at which it first lost at a rung.
        audited: it was drawn to run on after that loss, so that what pruning costs is known.
        auditing: it does so now; the search sees it as pruned.
        recalled: it goes on by the second look, and is ranked no more.
        dropped: its optimizer state is gone, so it cannot go on.
        run_id: its MLflow run.
        spent_s: seconds that a slot was busy with it.
        started: since when a slot is; None while none is.
        ended_s: when it ended, in seconds since the epoch.
    """

    id: str
    settings: dict[str, Any]
    source: str
    of: str = ""
    state: str = "proposed"
    reason: str = ""
    detail: str = ""
    cause: str = ""
    reports: list[dict[str, Any]] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    waits_at: int | None = None
    lost_s: float | None = None
    audited: bool = False
    auditing: bool = False
    recalled: bool = False
    dropped: bool = False
    run_id: str | None = None
    spent_s: float = 0.0
    started: float | None = None
    ended_s: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether a slot has it or is to have it."""
        return self.state in OPEN_STATES

    @property
    def can_go_on(self) -> bool:
        """Whether it left its slot before its end and its checkpoint is there to go on from."""
        return self.state in ("paused", "pruned") and bool(self.reports) and not self.dropped

    @property
    def last_step(self) -> int:
        return self.reports[-1]["step"] if self.reports else -1

    @property
    def seen_s(self) -> float:
        return float(self.reports[-1]["seen_s"]) if self.reports else 0.0

    @property
    def points(self) -> list[Point]:
        """Its learning curve."""
        return [Point(r["seen_s"], *(r["metrics"][name] for name in ("loss", "wer", "cer"))) for r in self.reports]

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
        marks: its rungs, in seconds of audio; fixed when it began.
        trials: by id, in the order of their proposal; finalists among them.
        ended: the ids of the ended ones, in the order of their ends.
        rungs: the scores recorded at each rung, by trial.
        run_id: the sweep's MLflow run.
        verdict: what the finalists showed, None before that.
        spent_s: seconds that slots were busy with trials, up to each one's last report.
        wall_s: seconds that a driver was at work.
    """

    name: str = ""
    prepared: str = ""
    fingerprint: str = ""
    marks: list[float] = field(default_factory=list)
    trials: dict[str, TrialRecord] = field(default_factory=dict)
    ended: dict[str, None] = field(default_factory=dict)
    rungs: dict[int, dict[str, Score]] = field(default_factory=dict)
    run_id: str | None = None
    verdict: dict[str, Any] | None = None
    spent_s: float = 0.0
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
            self.marks = list(event.get("rungs", []))
        elif kind == "opened":
            self.run_id = event.get("run_id", self.run_id)
            self.verdict = None  # there is more to come
            for trial in self.trials.values():
                trial.started = None
        elif kind == "mirrored":
            self.run_id = event["run_id"]
        elif kind == "proposed":
            trial = TrialRecord(event["trial"], event["settings"], event["source"], event.get("of", ""))
            self.trials[trial.id] = trial
        elif kind == "decided":
            self.verdict = {key: event[key] for key in event if key not in ("event", "time")}
        else:
            self._apply_to(self.trials[event["trial"]], kind, event)

    def _apply_to(self, trial: TrialRecord, kind: str, event: dict[str, Any]) -> None:
        if kind == "started":
            trial.state, trial.started, trial.reason, trial.cause = "running", event["time"], "", ""
            trial.auditing = bool(event.get("audit"))
            trial.recalled = trial.recalled or bool(event.get("recall"))
            if not trial.auditing:
                trial.waits_at = None
            trial.ended_s = None
            self.ended.pop(trial.id, None)
        elif kind == "tracked":
            trial.run_id = event["run_id"]
        elif kind == "reported":
            if event["step"] > trial.last_step:
                trial.reports.append({key: event[key] for key in event if key not in ("event", "trial")})
            self._spend(trial, event["time"])
        elif kind == "ranked":
            trial.decisions.append({key: event[key] for key in event if key not in ("event", "trial")})
            scored = event["scored"]
            self.rungs.setdefault(event["rung"], {})[trial.id] = Score(**scored)
            if not event["passed"]:
                trial.state, trial.cause = "paused", "rung"  # also where a crash comes before the event that says so
                trial.waits_at = event["rung"]
                if trial.lost_s is None:
                    trial.lost_s, trial.audited = event["seen_s"], bool(event.get("audited"))
        elif kind in ("paused", "ended"):
            trial.state, trial.reason = event.get("state", "paused"), event["reason"]
            trial.detail = event.get("detail", "")
            trial.cause = event.get("cause", "")
            self._spend(trial, event["time"])
            trial.started = None
            if kind == "ended":
                trial.ended_s = event["time"]
                self.ended[trial.id] = None
        elif kind == "dropped":
            trial.dropped = True
        else:
            raise KeyError(kind)

    def _spend(self, trial: TrialRecord, now: float) -> None:
        if trial.started is not None:
            trial.spent_s += now - trial.started
            self.spent_s += now - trial.started
            trial.started = now

    @property
    def searched(self) -> list[TrialRecord]:
        """The trials of the search, finalists left out."""
        return [trial for trial in self.trials.values() if not trial.of]

    @property
    def finalists(self) -> list[TrialRecord]:
        """The runs on fresh seeds."""
        return [trial for trial in self.trials.values() if trial.of]

    def baseline(self) -> TrialRecord | None:
        return next((trial for trial in self.trials.values() if trial.source == "baseline"), None)

    def ranking(self) -> list[TrialRecord]:
        """The trials of the search by dev WER, the lowest first; CER, then loss break ties."""
        scored = [t for t in self.searched if t.best and math.isfinite(t.best["loss"])]
        return sorted(scored, key=lambda t: (t.best["wer"], t.best["cer"], t.best["loss"]))  # type: ignore[index]

    def best(self) -> TrialRecord | None:
        """The trial of the search with the lowest dev WER."""
        return next(iter(self.ranking()), None)


class Ledger:
    """The ledger of one sweep, open for writing.

    Args:
        folder: the sweep's folder.

    Attributes:
        state: what the events so far add up to.
        lock: held while an event is written and taken in; whoever reads the state in another thread holds it too.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / FILE
        self.state = State()
        self.lock = threading.RLock()
        self._drop_torn_line()
        _add_up(self.state, self.path)

    def append(self, event: str, **fields: Any) -> None:
        """Write one event durably, then take it into the state."""
        with self.lock:
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
    _add_up(state, folder / FILE)
    return state


def _add_up(state: State, path: Path) -> None:
    """Take in all events of a file.

    Raises:
        UserError: an event is of a kind or a form that this version does not know.
    """
    for event in read_events(path):
        try:
            state.apply(event)
        except (KeyError, TypeError) as fault:
            raise UserError(
                f"The sweep's ledger is of another version: {event.get('event')!r} is unknown or lacks {fault}.",
                where=path,
                fix="Go on with the version that wrote it, or start a sweep under another name.",
            ) from fault


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
