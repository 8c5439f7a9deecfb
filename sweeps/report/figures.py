"""The figures of a sweep's report: what each trial took, who is on a Pareto front, who stopped at which rung.

In: the ledger's state and what a trial's workers take. Out: rows of numbers that `page` writes and `charts` draws.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hausa_asr.settings.sweep import ResourceSettings
from sweeps.planning.budget import hours_at
from sweeps.record.state import State
from sweeps.record.trial import TrialRecord


@dataclass(frozen=True)
class TrialRow:
    """A trial and the figures that are computed from its reports.

    Attributes:
        trial: the trial.
        hours: GPU-hours; CPU-hours where trials have no GPU.
        real_time_factor: seconds to score a second of dev audio at its best checkpoint; None before that.
        on_hours, on_speed: no other trial of the search has a lower WER for as little of the one, or of the other. A
            trial with a WER of 1 or more, which has learned nothing yet, is on neither front.
    """

    trial: TrialRecord
    hours: float
    real_time_factor: float | None
    on_hours: bool
    on_speed: bool


@dataclass(frozen=True)
class RungRow:
    """How many trials a rung ranked and stopped.

    Attributes:
        at_s: where it is, in seconds of audio trained on.
        ranked: how many trials were.
        stopped: how many of those stopped there for good, by the metric of their last ranking.
    """

    at_s: float
    ranked: int
    stopped: Mapping[str, int]


def front(points: Sequence[tuple[float, float]]) -> set[int]:
    """The Pareto front of points of which less is better in both: the numbers of those that none dominates.

    A point dominates another that is nowhere better and somewhere worse, so equal points are on it together. Points
    that are not finite are not.
    """
    order = sorted((point, number) for number, point in enumerate(points) if all(map(math.isfinite, point)))
    on_front = set()
    lowest, last = math.inf, None
    for point, number in order:
        if point[1] < lowest or point == last:
            on_front.add(number)
            lowest, last = point[1], point
    return on_front


def trial_rows(state: State, resources: ResourceSettings, dev_s: float | None) -> list[TrialRow]:
    """Make a row for each trial: the search's by dev WER, those without a score last, then the finalists' runs.

    Args:
        state: the sweep.
        resources: what a trial takes.
        dev_s: seconds of audio in dev; None if unknown, and then no row has a real-time factor.
    """
    ranking = state.ranking()
    scored = {trial.id for trial in ranking}
    searched = ranking + [trial for trial in state.searched if trial.id not in scored]
    hours = {trial.id: hours_at(trial.spent_at, resources) for trial in state.trials.values()}
    speeds = {trial.id: _real_time_factor(trial, dev_s) for trial in state.trials.values()}
    wers = [trial.best["wer"] if trial.best and trial.best["wer"] < 1 else math.nan for trial in searched]
    on_hours = front([(hours[trial.id], wer) for trial, wer in zip(searched, wers, strict=True)])
    on_speed = front([(speeds[trial.id] or math.nan, wer) for trial, wer in zip(searched, wers, strict=True)])
    return [
        TrialRow(trial, hours[trial.id], speeds[trial.id], number in on_hours, number in on_speed)
        for number, trial in enumerate(searched + state.finalists)
    ]


def _real_time_factor(trial: TrialRecord, dev_s: float | None) -> float | None:
    if not trial.best or not dev_s:
        return None
    runtime_s = trial.at_best.metrics.get("eval_runtime_s")
    return float(runtime_s) / dev_s if runtime_s is not None else None


def rung_rows(state: State) -> list[RungRow]:
    """Make a row for each rung, the earliest first."""
    stopped = [trial for trial in state.searched if trial.waits_at is not None]
    return [
        RungRow(
            at_s,
            len(state.rungs.get(number, {})),
            Counter(_metric(trial) for trial in stopped if trial.waits_at == number),
        )
        for number, at_s in enumerate(state.marks)
    ]


def _metric(trial: TrialRecord) -> str:
    """What it was last ranked by at the rung that it waits at."""
    return next(str(one["metric"]) for one in reversed(trial.decisions) if one["rung"] == trial.waits_at)
