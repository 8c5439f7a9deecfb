"""What a sweep's events add up to: every trial, every rung's scores, and what was spent.

In: one event after another, as the ledger has them. Out: a `State` that all rooms above read and none changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from sweeps.pruning.rule import Point, Score

OPEN_STATES = ("proposed", "running")
BASELINE, FINALIST = "baseline", "finalist"
"""Sources of trials: the published recipe, and a setting that is run again on a fresh seed."""
DIVERGED = "diverged"
"""The reason of every failed trial that diverged; `detail` says how."""

Terms = tuple[float | None, float | None]
"""What a slot takes and costs: its GPUs or CPUs, and the price of one for an hour. None for what is not known, in
ledgers of older versions or without a price."""


@dataclass(frozen=True)
class Report:
    """One evaluation of a trial.

    Attributes:
        step, updates: optimizer updates done, and of the whole trial.
        seen_s: seconds of audio trained on.
        metrics: its figures by name: `wer`, `cer`, `loss`, `audio_s_per_s` and more.
        best: `step`, `wer`, `cer` and `loss` of the best checkpoint so far.
        last, diverged: the trial ends here, well or badly.
        time: when it was written, in seconds since the epoch.
        slot: the slot that trained it; "" in ledgers of older versions.
    """

    step: int
    updates: int
    seen_s: float
    metrics: dict[str, float]
    best: dict[str, float]
    last: bool = False
    diverged: bool = False
    time: float = 0.0
    slot: str = ""

    @classmethod
    def of(cls, event: dict[str, Any]) -> Report:
        """The evaluation of a `reported` event."""
        return cls(**{key: event[key] for key in cls.__dataclass_fields__ if key in event})

    @property
    def point(self) -> Point:
        """What the pruning rule sees of it."""
        return Point(self.seen_s, self.metrics["loss"], self.metrics["wer"], self.metrics["cer"])


@dataclass
class TrialRecord:
    """One trial, as the events show it.

    Attributes:
        id: ours, `t000` for the baseline, `t007-s1` for its run on the first fresh seed.
        settings: what the search chose; the rest of the recipe is the sweep's.
        source: `baseline`, `starting point NAME`, `search` or `finalist`.
        of: the trial whose settings a finalist runs again; "" for all others.
        state: `proposed`, `running`, `paused`, `finished`, `pruned` or `failed`.
        reason: why it is so, in words; `diverged` for all kinds of divergence, with the kind in `detail`.
        cause: why it is paused: `rung`, `budget` or `crash`.
        reports: one per evaluation, by rising step.
        decisions: its `ranked` events.
        waits_at: the rung that it lost at and has not been promoted from.
        recalled: it goes on by the second look or as the baseline, and is ranked no more.
        dropped: its optimizer state is gone, so it cannot go on.
        run_id: its MLflow run.
        spent_s: seconds that a slot was busy with it.
        spent_at: the same by the terms of the time, see `State`.
        started: since when a slot is; None while none is.
        ended_s: when it ended, in seconds since the epoch.
        on_disk: as `best`, of what was on disk at its end, if that had to be looked up; empty if nothing was.
    """

    id: str
    settings: dict[str, Any]
    source: str
    of: str = ""
    state: str = "proposed"
    reason: str = ""
    detail: str = ""
    cause: str = ""
    reports: list[Report] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    waits_at: int | None = None
    recalled: bool = False
    dropped: bool = False
    run_id: str | None = None
    spent_s: float = 0.0
    spent_at: dict[Terms, float] = field(default_factory=dict)
    started: float | None = None
    ended_s: float | None = None
    on_disk: dict[str, float] | None = None

    @property
    def is_baseline(self) -> bool:
        """Whether it is the published recipe, which comes to its end wherever it stands."""
        return self.source == BASELINE

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
        """The optimizer step of its last report; -1 before the first."""
        return self.reports[-1].step if self.reports else -1

    @property
    def seen_s(self) -> float:
        """Seconds of audio that it was trained on, by its last report."""
        return self.reports[-1].seen_s if self.reports else 0.0

    @property
    def points(self) -> list[Point]:
        """Its learning curve."""
        return [report.point for report in self.reports]

    @property
    def best(self) -> dict[str, float] | None:
        """`step`, `wer`, `cer` and `loss` of its best checkpoint, None before the first report."""
        if self.on_disk is not None:
            return self.on_disk or None
        return self.reports[-1].best if self.reports else None

    @property
    def at_best(self) -> Report:
        """The report of its best checkpoint, as far as it is known. Raises `StopIteration` before the first report.

        With the machine of a driver, reports of its last seconds may have been lost that a checkpoint in an object
        store came after.
        """
        best = self.best
        found = (report for report in self.reports if best is not None and report.step == best["step"])
        after = (report for report in self.reports if best is not None and report.step > best["step"])
        lost = (replace(one, step=int(best["step"]), metrics={**one.metrics, **best}) for one in after if best)
        return next(chain(found, lost))


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
        verdict: what the finalists showed, None before that.
        soup: the last average of runs that was tried (`verdict.soup`), None before that.
        spent_s: seconds that slots were busy with trials, up to each one's last report.
        spent_at: the same by the terms of the time.
        terms: those of the last driver.
        wall_s: seconds that a driver was at work.
        clock: when the last event was written, in seconds since the epoch; None before the first.
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
    verdict: dict[str, Any] | None = None
    soup: dict[str, Any] | None = None
    spent_s: float = 0.0
    spent_at: dict[Terms, float] = field(default_factory=dict)
    terms: Terms = (None, None)
    wall_s: float = 0.0
    clock: float | None = None

    def apply(self, event: dict[str, Any]) -> None:
        """Take in one event. A report that is known already, as after a resume, changes nothing.

        Raises:
            KeyError, TypeError: the event is of a kind or a form that this version does not know.
        """
        kind = event["event"]
        if kind != "opened" and self.clock is not None:  # time with no driver running is not counted
            self.wall_s += event["time"] - self.clock
        self.clock = event["time"]
        if kind == "sweep":
            self.name = event["name"]
            self.prepared, self.fingerprint = event.get("prepared", ""), event.get("fingerprint", "")
            self.marks = list(event.get("rungs", []))
        elif kind == "opened":
            self.run_id = event.get("run_id", self.run_id)
            self.slots = event.get("slots", self.slots)
            self.prepared = event.get("prepared", self.prepared)
            self.terms = event.get("devices"), event.get("price_per_hour")
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
        elif kind == "souped":
            self.soup = {key: event[key] for key in event if key not in ("event", "time")}
        else:
            self._apply_to(self.trials[event["trial"]], kind, event)

    def _apply_to(self, trial: TrialRecord, kind: str, event: dict[str, Any]) -> None:
        if kind == "started":
            trial.state, trial.started, trial.reason, trial.cause = "running", event["time"], "", ""
            trial.recalled = trial.recalled or bool(event.get("recall"))
            trial.waits_at = None
            trial.ended_s = trial.on_disk = None
            self.ended.pop(trial.id, None)
        elif kind == "tracked":
            trial.run_id = event["run_id"]
        elif kind == "reported":
            if event["step"] > trial.last_step:
                trial.reports.append(Report.of(event))
            self._spend(trial, event["time"])
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
            self._spend(trial, event["time"])
            trial.started = None
            if kind == "ended":
                trial.ended_s, trial.on_disk = event["time"], event.get("best")
                self.ended[trial.id] = None
        elif kind == "dropped":
            trial.dropped = True
        else:
            raise KeyError(kind)

    def _spend(self, trial: TrialRecord, now: float) -> None:
        if trial.started is not None:
            took_s = now - trial.started
            trial.spent_s += took_s
            self.spent_s += took_s
            for one in (self, trial):  # a new dictionary each time, since others hold copies of both
                one.spent_at = {**one.spent_at, self.terms: one.spent_at.get(self.terms, 0.0) + took_s}
            trial.started = now

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
