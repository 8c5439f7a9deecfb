"""One trial as a ledger's events show it, and its evaluations.

In: nothing; `state` fills them, event by event. Out: what all rooms above read of a trial.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from sweeps.pruning.rule import Point
from sweeps.record.crashes import CRASH, NO_ROOM, NOTICE

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
        workers: that trained it; None where all trials have the same number.
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
    workers: int | None = None

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
        cause: why it is paused: `rung`, `budget`, `crash`, `no room` or `notice`; of a failed trial `crash` or "".
        reports: one per evaluation, by rising step.
        came: the step where it is, and since when; None once the workers that brought it there are gone.
        decisions: its `ranked` events.
        waits_at: the rung that it lost at and has not been promoted from.
        recalled: it goes on by the second look or as the baseline, and is ranked no more.
        dropped: its optimizer state is gone, so it cannot go on.
        run_id: its MLflow run.
        spent_s: seconds that a slot was busy with it.
        spent_at: the same by the terms of the time, see `State`.
        started: since when a slot is; None while none is.
        workers: that train it now, where trials may have different numbers; None before the first report since then.
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
    came: tuple[int, float] | None = None
    decisions: list[dict[str, Any]] = field(default_factory=list)
    waits_at: int | None = None
    recalled: bool = False
    dropped: bool = False
    run_id: str | None = None
    spent_s: float = 0.0
    spent_at: dict[Terms, float] = field(default_factory=dict)
    started: float | None = None
    workers: int | None = None
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
    def waits_for_workers(self) -> bool:
        """Whether something broke under it, its node went or no worker came: it goes on when there are some."""
        return self.state in ("paused", "pruned") and self.cause in (CRASH, NO_ROOM, NOTICE) and not self.dropped

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
