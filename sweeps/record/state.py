"""What a sweep's events add up to: every trial, every rung's scores, and what was spent.

In: one event after another, as the ledger has them. Out: a `State` that all rooms above read and none changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sweeps.pruning.rule import Score
from sweeps.record.crashes import CRASH, NO_ROOM, Crashes
from sweeps.record.trial import Report, Terms, TrialRecord

PAUSED_ITSELF, INTERRUPTED, FAULT = "paused itself", "interrupted", "fault"
"""How a driver leaves a sweep that has not ended: too much broke in a row, somebody stopped it, or it can't go on."""


class Left(NamedTuple):
    """How and when a driver left a sweep before its end, and why, in words."""

    how: str
    why: str
    time: float


@dataclass
class State:
    """A sweep: all its events so far, added up.

    Attributes:
        name: the sweep's name.
        prepared, fingerprint: the path and the name of its prepared dataset.
        marks: its rungs, in seconds of audio; fixed when it began.
        trials: by id, in the order of their proposal; finalists among them.
        ended: the ids of the ended ones, in the order of their ends.
        rungs: the scores recorded at each rung, by trial.
        run_id: the sweep's MLflow run.
        slots: how many trials the last driver runs side by side; 0 where that is not known.
        gpus: the kinds of GPU of every driver's cluster; "" among them where one did not know or write its own.
        verdict: what the finalists showed, None before that.
        soup: the last average of runs that was tried (`verdict.soup`), None before that.
        spent_s: seconds that slots were busy with trials, up to each one's last report.
        spent_at: the same by the terms of the time, and seconds that slots waited with their workers.
        terms: those of the last driver.
        most_workers: of the slot that the terms are for, where slots may have fewer; None where all have the same.
        wall_s: seconds that a driver was at work.
        crashes: what broke since the last success.
        clock: when the last event was written, in seconds since the epoch; None before the first.
        waits: since when each slot that waits now does, and with how many workers, by its name.
        left: how the last driver left before the sweep's end, None while one is at work; see `Left`.
    """

    name: str = ""
    prepared: str = ""
    fingerprint: str = ""
    marks: list[float] = field(default_factory=list)
    trials: dict[str, TrialRecord] = field(default_factory=dict)
    ended: dict[str, None] = field(default_factory=dict)
    rungs: dict[int, dict[str, Score]] = field(default_factory=dict)
    run_id: str | None = None
    slots: int = 0
    gpus: frozenset[str] = frozenset()
    verdict: dict[str, Any] | None = None
    soup: dict[str, Any] | None = None
    spent_s: float = 0.0
    spent_at: dict[Terms, float] = field(default_factory=dict)
    terms: Terms = (None, None)
    most_workers: int | None = None
    wall_s: float = 0.0
    crashes: Crashes = field(default_factory=Crashes)
    clock: float | None = None
    waits: dict[str, tuple[float, int | None]] = field(default_factory=dict)
    left: Left | None = None

    def apply(self, event: dict[str, Any]) -> None:
        """Take in one event. A report that is known already, as after a resume, changes nothing.

        Raises:
            KeyError, TypeError: the event is of a kind or a form that this version does not know.
        """
        kind = event["event"]
        if kind == "opened":
            self._end_waits()
        elif self.clock is not None:  # time with no driver running is not counted
            self.wall_s += event["time"] - self.clock
        self.clock = event["time"]
        self.crashes.take(event)
        if kind == "sweep":
            self.name = event["name"]
            self.prepared, self.fingerprint = event.get("prepared", ""), event.get("fingerprint", "")
            self.marks = list(event.get("rungs", []))
        elif kind == "opened":
            self.run_id = event.get("run_id", self.run_id)
            self.slots = event.get("slots", self.slots)
            self.gpus |= frozenset(event.get("gpus") or [""])
            self.prepared = event.get("prepared", self.prepared)
            self.terms, self.most_workers = (event.get("devices"), event.get("price_per_hour")), event.get("workers")
            self.verdict = self.left = None  # there is more to come
            for trial in self.trials.values():
                trial.started = trial.workers = trial.came = None
        elif kind == "slots":
            self.slots = event["slots"]
        elif kind == "waits":
            self.waits[event["slot"]] = event["time"], event.get("workers")
        elif kind == "waited":
            self.waits.pop(event.get("slot", ""), None)
            self.spent_at = _plus(self.spent_at, self._terms_of(event.get("workers")), event["seconds"])
        elif kind == "left":
            self._end_waits()
            self.left = Left(event["how"], event["why"], event["time"])
        elif kind == "mirrored":
            self.run_id = event["run_id"]
        elif kind == "proposed":
            trial = TrialRecord(event["trial"], event["settings"], event["source"], event.get("of", ""))
            self.trials[trial.id] = trial
        elif kind == "decided":
            self.verdict = {key: event[key] for key in event if key not in ("event", "time")}
        elif kind == "souped":
            self.soup = {key: event[key] for key in event if key not in ("event", "time")}
        else:
            self._apply_to(self.trials[event["trial"]], kind, event)

    def _apply_to(self, trial: TrialRecord, kind: str, event: dict[str, Any]) -> None:
        if kind == "started":
            trial.state, trial.started, trial.reason, trial.cause = "running", event["time"], "", ""
            trial.recalled = trial.recalled or bool(event.get("recall"))
            trial.waits_at = trial.workers = None
            trial.ended_s = trial.on_disk = None
            self.ended.pop(trial.id, None)
        elif kind == "tracked":
            trial.run_id = event["run_id"]
        elif kind == "reported":
            if event["step"] > trial.last_step:
                trial.reports.append(Report.of(event))
            self._came(trial, event)
        elif kind == "repeated":
            self._came(trial, event)
        elif kind == "ranked":
            trial.decisions.append({key: event[key] for key in event if key not in ("event", "trial")})
            scored = event["scored"]
            self.rungs.setdefault(event["rung"], {})[trial.id] = Score(**scored)
            if not event["passed"]:
                trial.state, trial.cause = "paused", "rung"  # also where a crash comes before the event that says so
                trial.waits_at = event["rung"]
        elif kind in ("paused", "ended"):
            trial.state, trial.reason = event.get("state", "paused"), event["reason"]
            trial.detail = event.get("detail", "")
            trial.cause = event.get("cause", "")
            if trial.cause != NO_ROOM:
                self._spend(trial, event["time"])
            trial.started = trial.workers = None
            if trial.cause == CRASH:
                trial.came = None
            elif "step" in event:
                trial.came = event["step"], event["time"]
            if kind == "ended":
                trial.ended_s, trial.on_disk = event["time"], event.get("best")
                self.ended[trial.id] = None
        elif kind == "dropped":
            trial.dropped = True
        elif kind == "retried":
            trial.state, trial.reason, trial.detail, trial.cause = "proposed", "", "", ""
        else:
            raise KeyError(kind)

    def _came(self, trial: TrialRecord, event: dict[str, Any]) -> None:
        # Older versions did not write the step of what was repeated.
        trial.came, trial.workers = (event.get("step", trial.last_step), event["time"]), event.get("workers")
        self._spend(trial, event["time"])

    def _end_waits(self) -> None:
        """A driver is gone: what waited under it did so up to its last event."""
        for since, workers in self.waits.values():
            self.spent_at = _plus(self.spent_at, self._terms_of(workers), max(0.0, (self.clock or since) - since))
        self.waits = {}

    def _spend(self, trial: TrialRecord, now: float) -> None:
        if trial.started is not None:
            took_s = now - trial.started
            trial.spent_s += took_s
            self.spent_s += took_s
            for one in (self, trial):
                one.spent_at = _plus(one.spent_at, self._terms_of(trial.workers), took_s)
            trial.started = now

    def _terms_of(self, workers: int | None) -> Terms:
        """What a slot with this number of workers takes and costs; with the most, where the number is not known."""
        takes, price = self.terms
        if takes is None or not workers or not self.most_workers:
            return self.terms
        return takes * workers / self.most_workers, price

    @property
    def searched(self) -> list[TrialRecord]:
        """The trials of the search, finalists left out."""
        return [trial for trial in self.trials.values() if not trial.of]

    @property
    def finalists(self) -> list[TrialRecord]:
        """The runs on fresh seeds."""
        return [trial for trial in self.trials.values() if trial.of]

    @property
    def stopped(self) -> list[TrialRecord]:
        """The trials of the search that a rung has stopped, and that have not gone on."""
        return [trial for trial in self.searched if trial.cause == "rung" and trial.state in ("paused", "pruned")]

    def baseline(self) -> TrialRecord | None:
        """The trial of the published recipe, once it was proposed."""
        return next((trial for trial in self.trials.values() if trial.is_baseline), None)

    def ranking(self) -> list[TrialRecord]:
        """The trials of the search by dev WER, the lowest first; CER, then loss break ties."""
        scored = [t for t in self.searched if t.best and math.isfinite(t.best["loss"])]
        return sorted(scored, key=lambda t: (t.best["wer"], t.best["cer"], t.best["loss"]))  # type: ignore[index]

    def best(self) -> TrialRecord | None:
        """The trial of the search with the lowest dev WER."""
        return next(iter(self.ranking()), None)


def _plus(spent_at: dict[Terms, float], terms: Terms, seconds: float) -> dict[Terms, float]:
    """A new dictionary, since others hold copies of the old one."""
    return {**spent_at, terms: spent_at.get(terms, 0.0) + seconds}
