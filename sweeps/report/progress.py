"""How a sweep came to its lowest WER, and where its hours went.

In: the ledger's state and what a trial's workers take. Out: rows of numbers that `charts` draws.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass

from hausa_asr.settings.sweep import ResourceSettings
from sweeps.planning.budget import hours_at
from sweeps.pruning.rule import Point
from sweeps.record.state import State
from sweeps.record.trial import Report, TrialRecord
from sweeps.replay.simulate import Timeline, simulate
from sweeps.replay.stock import StockAsha

_ASHA_RUNGS = (0.2, 0.4, 0.8)
"""Shares of the length at which ASHA with a reduction of 2 ranks, from a fifth of it on."""


@dataclass(frozen=True)
class Best:
    """The lowest dev WER from some moment on.

    Attributes:
        hours: of all trials' work until then: GPU-hours, or CPU-hours where trials have no GPU.
        wer: the lowest dev WER.
        trial: whose.
    """

    hours: float
    wer: float
    trial: str


@dataclass(frozen=True)
class Share:
    """Where hours went: to which trials, how many hours of training, and how many of scoring dev."""

    name: str
    training: float
    scoring: float


def best_so_far(state: State, resources: ResourceSettings) -> list[Best]:
    """Each time that the search found a lower dev WER, by the work reported until then; the last row is all of it."""
    reports = [
        (report.time, hours, trial.id, report.metrics["wer"])
        for trial in state.searched
        for report, hours in _work(trial, resources)
    ]
    return _lowest(reports)


def none_stopped(state: State, resources: ResourceSettings) -> list[Best]:
    """The same for these very trials in the same order, had each been trained to its end.

    What a stopped trial would have come to is not known, so it counts with the lowest WER that it had.
    """
    begun = sorted((trial for trial in state.searched if trial.reports), key=lambda trial: trial.reports[0].time)
    free_at = [0.0] * max(1, state.slots)
    reports = []
    for trial in begun:
        at = heapq.heappop(free_at)
        for report, hours in _work(trial, resources):
            at += hours
            reports.append((at, hours, trial.id, report.metrics["wer"]))
        last = trial.reports[-1]
        if trial.state != "failed" and 0 < last.step < last.updates:
            rest = (last.updates / last.step - 1) * sum(hours for _, hours in _work(trial, resources))
            at += rest
            reports.append((at, rest, trial.id, math.inf))
        heapq.heappush(free_at, at)
    return _lowest(reports)


def stock_asha(state: State, resources: ResourceSettings) -> list[Best]:
    """The same for these trials, had Ray Tune's ASHA on WER stopped them: half at 0.2, 0.4 and 0.8 of the length.

    A trial that goes on there and was stopped here counts as in `none_stopped`.
    """
    begun = [trial for trial in state.searched if trial.reports]
    begun = sorted(begun, key=lambda trial: trial.reports[0].time)
    lengths = [trial.seen_s * trial.reports[-1].updates / max(trial.reports[-1].step, 1) for trial in begun]
    if not begun:
        return []
    marks = [share * max(lengths) for share in _ASHA_RUNGS]
    timelines = [_timeline(trial, length, marks, resources) for trial, length in zip(begun, lengths, strict=True)]
    slots = max(1, state.slots)
    done = simulate(StockAsha("wer", marks, 2), timelines, slots)
    by_wer: dict[float, str] = {}
    for trial, one in zip(begun, timelines, strict=True):
        for point in one.points:
            by_wer.setdefault(point.wer, trial.id)  # of two with one WER most likely the earlier
    # The virtual clock has a slot's hours; all slots' work is as many times as much until some have nothing to do.
    rows = [Best(min(at * slots, done.work_s), wer, by_wer[wer]) for at, wer in done.incumbents]
    return [*rows, Best(done.work_s, rows[-1].wer, rows[-1].trial)] if rows else []


def _timeline(trial: TrialRecord, length_s: float, marks: list[float], resources: ResourceSettings) -> Timeline:
    """A trial's evaluations by the hours of its work; of a stopped one the rest of its length too, with what it had."""
    points, at, now = [], [], 0.0
    for report, hours in _work(trial, resources):
        now += hours
        metrics = report.metrics
        points.append(Point(report.seen_s, metrics["loss"], metrics["wer"], metrics["cer"]))
        at.append(now)
    last = points[-1]
    if trial.state != "failed":
        lowest = min(point.wer for point in points)
        for mark in [*(mark for mark in marks if last.seen_s < mark < length_s), length_s]:
            if mark > last.seen_s:
                points.append(Point(mark, last.loss, lowest, last.cer))
                at.append(now * mark / max(last.seen_s, 1e-9))
    return Timeline(tuple(points), tuple(at), ready_s=0.0)


def _work(trial: TrialRecord, resources: ResourceSettings) -> Iterator[tuple[Report, float]]:
    """Each report of a trial, and the hours that went into it since the one before."""
    whole, before = hours_at(trial.spent_at, resources), 0.0
    for report in trial.reports:
        yield report, whole * (report.seen_s - before) / max(trial.seen_s, 1e-9)
        before = report.seen_s


def _lowest(reports: list[tuple[float, float, str, float]]) -> list[Best]:
    """The lowest WERs among reports, given as when, hours of work, trial and WER."""
    rows: list[Best] = []
    done, lowest = 0.0, math.inf
    for _, hours, trial, wer in sorted(reports):
        done += hours
        if wer < lowest:
            lowest = wer
            rows.append(Best(done, wer, trial))
    return [*rows, Best(done, lowest, rows[-1].trial)] if rows else []


def where_hours_went(state: State, resources: ResourceSettings) -> list[Share]:
    """Hours of the search by how its trials ended, and of the finalists; those without any are left out."""
    kinds: dict[str, list[TrialRecord]] = {}
    for trial in state.searched:
        kinds.setdefault(_kind(trial), []).append(trial)
    order = ["trained to their end", *(f"stopped at rung {n}" for n in range(1, len(state.marks) + 1))]
    named = [(name, kinds.pop(name)) for name in order if name in kinds]
    rows = [*named, *sorted(kinds.items()), ("finalists", state.finalists)]
    shares = [_share(name, trials, resources) for name, trials in rows]
    return [share for share in shares if share.training + share.scoring > 0]


def _share(name: str, trials: list[TrialRecord], resources: ResourceSettings) -> Share:
    hours = sum(hours_at(trial.spent_at, resources) for trial in trials)
    spent = sum(trial.spent_s for trial in trials)
    scoring = sum(report.metrics.get("eval_runtime_s", 0.0) for trial in trials for report in trial.reports)
    scoring = min(scoring / spent, 1.0) * hours if spent else 0.0
    return Share(name, hours - scoring, scoring)


def _kind(trial: TrialRecord) -> str:
    if trial.state == "finished":
        return "trained to their end"
    if trial.waits_at is not None:
        return f"stopped at rung {trial.waits_at + 1}"
    return "diverged or failed" if trial.state == "failed" else "not at their end"
