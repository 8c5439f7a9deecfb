"""Count what a sweep has spent, and say when its budget is exhausted.

In: the ledger's state and the settings. Out: figures, and why the budget is exhausted, in words. Called by the agenda
before it gives out an order and by the scheduler at every report, so a sweep exceeds its budget by at most one
evaluation interval per slot.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from hausa_asr.settings.sweep import ResourceSettings, SweepConfig
from sweeps.planning.finalists import finalist_runs, growth, planned
from sweeps.record.state import State
from sweeps.record.trial import Terms, TrialRecord
from sweeps.wording import duration

_SPARE = 1.05
"""Finalists have this share of their expected cost kept for them: no run takes quite as long as the one it repeats."""
_ENOUGH = 20
"""The pace is the mean of this many trials, the newest: there may be thousands, and a report waits for the answer."""


@dataclass(frozen=True)
class Spent:
    """What a sweep has spent so far.

    Attributes:
        hours: GPU-hours of slots, those that wait for others too, or CPU-hours if trials have no GPU.
        money: the cost of those hours; 0 without a price. An earlier driver's count as they did then.
        wall_s: seconds during which a driver was at work.
        trials: settings tried, finalists not counted.
    """

    hours: float
    money: float
    wall_s: float
    trials: int


@dataclass(frozen=True)
class Reserve:
    """What must be left when the search ends: GPU-hours (or CPU-hours), and seconds of wall clock.

    `baseline_hours` and `baseline_s` are what the baseline needs to come to its end, `hours` and `wall_s` what the
    finalists need. `interval_s` passes from one report to the next.
    """

    hours: float = 0.0
    wall_s: float = 0.0
    baseline_hours: float = 0.0
    baseline_s: float = 0.0
    interval_s: float = 0.0


def devices(resources: ResourceSettings, workers: int | None = None) -> float:
    """How many GPUs, or CPUs if it has no GPU, a trial takes that has `workers`, by default the most."""
    return (workers or resources.most_workers) * (resources.gpus_per_worker or resources.cpus_per_worker)


def hours_word(resources: ResourceSettings) -> str:
    """The unit of hours: GPU-hours, or CPU-hours."""
    return "GPU-hours" if resources.gpus_per_worker else "CPU-hours"


def finalist_length_s(config: SweepConfig) -> float:
    """Seconds of audio of one finalist's run."""
    return config.finalists.length_s or config.recipe().length_s


def spent(state: State, config: SweepConfig, now: float | None = None) -> Spent:
    """Add up what a sweep has spent.

    Args:
        state: the ledger's state.
        config: the sweep's settings.
        now: seconds since the epoch, while a driver is at work: what goes on counts up to then. Without it all
            counts up to the ledger's last event.
    """
    hours, wall_s, trials = 0.0, state.wall_s, sum(not trial.of for trial in state.trials.values())
    going_on = [(one.started, one.workers) for one in state.trials.values() if one.started is not None]
    if now is not None:
        for since, workers in (*going_on, *state.waits.values()):
            hours += max(0.0, now - since) / 3600 * devices(config.resources, workers)
    if now is not None and state.clock is not None:
        wall_s += max(0.0, now - state.clock)
    money = hours * (config.budget.price_per_hour or 0.0)
    for (took, cost), busy_s in state.spent_at.items():
        then = hours_at({(took, cost): busy_s}, config.resources)
        hours += then
        money += then * ((config.budget.price_per_hour or 0.0) if cost is None else cost)
    return Spent(hours, money, wall_s, trials)


def hours_at(spent_at: Mapping[Terms, float], resources: ResourceSettings) -> float:
    """The GPU-hours or CPU-hours of busy seconds, each with what a slot took then; where that is not known, takes now.

    Args:
        spent_at: of a sweep or of a trial.
        resources: what a slot takes now.
    """
    takes = devices(resources)
    return sum(busy_s / 3600 * (takes if took is None else took) for (took, _), busy_s in spent_at.items())


def exhausted(
    state: State, config: SweepConfig, now: float, *, reserve_hours: float = 0.0, reserve_wall_s: float = 0.0
) -> str:
    """Say why no more may be spent; "" while something is left.

    Args:
        state, config: as for `spent`.
        now: seconds since the epoch.
        reserve_hours: hours to keep back, and the money for them.
        reserve_wall_s: seconds of wall clock to keep back.
    """
    budget = config.budget
    if not is_limited(config):
        return ""
    so_far = spent(state, config, now)
    price = budget.price_per_hour or 0.0
    word = hours_word(config.resources)
    reasons = (
        _exhausted(budget.hours, so_far.hours, reserve_hours, lambda hours: f"{hours:,.2f} {word}"),
        _exhausted(budget.money, so_far.money, reserve_hours * price, lambda money: f"{money:,.2f} in money"),
        _exhausted(budget.wall_s, so_far.wall_s, reserve_wall_s, lambda wall_s: f"{duration(wall_s)} of wall clock"),
    )
    return next(filter(None, reasons), "")


def _exhausted(limit: float | None, taken: float, kept: float, in_words: Callable[[float], str]) -> str:
    """Say why nothing is left of one limit; "" while something is, or without a limit."""
    if limit is None or taken + kept < limit:
        return ""
    if taken >= limit:
        return f"the budget of {in_words(limit)} is spent"
    rest = f"{in_words(kept)} are for baseline and finalists"
    return f"{in_words(taken)} are spent, and of the budget of {in_words(limit)} {rest}"


def search_exhausted(state: State, config: SweepConfig, now: float) -> str:
    """Say why the search may spend no more, with the share of baseline and finalists kept back; "" while it may.

    Other slots search on beside the baseline's end, so no wall clock is kept back for it: see `baseline_is_due`.
    """
    if not is_limited(config):  # called at every report, and `reserve` loops over all trials
        return ""
    kept = reserve(state, config)
    return exhausted(state, config, now, reserve_hours=kept.hours + kept.baseline_hours, reserve_wall_s=kept.wall_s)


def baseline_exhausted(state: State, config: SweepConfig, now: float) -> str:
    """Say why the baseline may not go on to its end, with the finalists' share kept back; "" while it may."""
    if not is_limited(config):
        return ""
    kept = reserve(state, config)
    return exhausted(state, config, now, reserve_hours=kept.hours, reserve_wall_s=kept.wall_s)


def baseline_is_due(state: State, config: SweepConfig, now: float) -> bool:
    """Whether the baseline must go on now, to come to its end before the wall clock's budget is spent."""
    limit_s = config.budget.wall_s
    if limit_s is None:
        return False
    kept = reserve(state, config)
    # At once, and not only at the next report.
    return spent(state, config, now).wall_s + kept.wall_s + kept.baseline_s + kept.interval_s >= limit_s


def is_limited(config: SweepConfig) -> bool:
    """Whether the settings limit what a sweep may spend."""
    budget = config.budget
    return budget.hours is not None or budget.money is not None or budget.wall_s is not None


def reserve(state: State, config: SweepConfig, slots: int | None = None) -> Reserve:
    """Compute what to keep back for baseline and finalists until all are done; nothing before a trial's first report.

    What a run was expected to take is kept back until the run has spent it, so the search gets nothing of it by the
    finalists' beginning, nor by one that is faster than expected. While trials of the search run, it is more by an
    evaluation interval for each: they are stopped at their next reports, not at once.

    Args:
        state, config: as for `spent`.
        slots: trials side by side; by default as many as the driver has.
    """
    count, pace = finalist_runs(config), _pace(state, config.resources)
    if pace is None:
        return Reserve()
    running = sum(trial.started is not None and not trial.of for trial in state.trials.values())
    interval_s = running * pace.interval_s
    per_hour = pace.workers * devices(config.resources, workers=1) / 3600
    baseline_s = _baseline_s(state.baseline(), config, pace)
    if not count:
        return Reserve(0.0, 0.0, (baseline_s + bool(baseline_s) * interval_s) * per_hour, baseline_s, pace.interval_s)
    length_s, mean_s = finalist_length_s(config), finalist_length_s(config) * pace.per_audio_s * _SPARE
    whole, left, taken_s = [], [], 0.0
    for run in (*planned(state, config), *growth(state, config)):
        per_audio_s = pace.of(state.trials[run.of]) * _SPARE
        one_s = length_s * per_audio_s
        begun = state.trials.get(run.id)
        still_s = one_s
        if begun is not None:
            still_s = max(0.0, one_s - begun.spent_s)
            if begun.is_open or begun.can_go_on:
                still_s = max(still_s, (length_s - begun.seen_s) * per_audio_s)
            taken_s += begun.spent_s
        whole.append(one_s)
        left.append(still_s)
    unknown = [mean_s] * (count - len(whole))
    whole, left = whole + unknown, left + unknown
    if slots is None:
        slots = state.slots or (max(1, round(state.spent_s / state.wall_s)) if state.wall_s else 1)
    wall_s = max(_side_by_side(left, slots), _side_by_side(whole, slots) - taken_s / slots)
    return Reserve(
        (sum(left) + interval_s) * per_hour,
        wall_s + bool(running) * pace.interval_s,
        baseline_s * per_hour,
        baseline_s,
        pace.interval_s,
    )


def _baseline_s(baseline: TrialRecord | None, config: SweepConfig, pace: _Pace) -> float:
    """Seconds of a slot until the baseline's end; 0 if it has come to it, or cannot."""
    if baseline is None or not (baseline.is_open or baseline.can_go_on):
        return 0.0
    left_s = max(0.0, config.recipe(baseline.settings).length_s - baseline.seen_s)
    return left_s * pace.of(baseline) * _SPARE


def _side_by_side(runs_s: list[float], slots: int) -> float:
    """Seconds of wall clock that runs take, one after another on whichever slot is free first."""
    busy_until = [0.0] * slots
    for run_s in runs_s:
        heapq.heapreplace(busy_until, busy_until[0] + run_s)
    return max(busy_until)


@dataclass(frozen=True)
class _Pace:
    """Seconds that a warm slot takes for a second of audio, evaluations included, and from one evaluation to the next.

    By the trials' own clocks: a slot's start is paid once and not by each run. The first report of a sweep comes half a
    minute after a start or more, and would otherwise make finalists seem ten times as dear as they are. `workers` is
    the mean number that such a slot had.
    """

    per_audio_s: float
    interval_s: float
    workers: float

    def of(self, trial: TrialRecord) -> float:
        """A trial's own `per_audio_s`; the mean of all if one that has not finished is faster, as frozen ones are."""
        own = _worked_s(trial) / trial.seen_s if trial.seen_s else 0.0
        return own if trial.state == "finished" else max(own, self.per_audio_s)


def _pace(state: State, resources: ResourceSettings) -> _Pace | None:
    """The pace of the search's finished trials; before the first of them, of all; None before the first report."""
    reported = [trial for trial in state.searched if trial.reports]
    trials = ([trial for trial in reported if trial.state == "finished"] or reported)[-_ENOUGH:]
    seen_s, worked_s = sum(trial.seen_s for trial in trials), sum(map(_worked_s, trials))
    if not seen_s:
        return None
    workers: float = resources.most_workers
    if resources.has_range and worked_s:
        workers = sum(s * (n or resources.most_workers) for one in trials for s, n in _intervals(one)) / worked_s
    return _Pace(worked_s / seen_s, worked_s / sum(len(trial.reports) for trial in trials), workers)


def _worked_s(trial: TrialRecord) -> float:
    """Seconds of training and evaluation up to a trial's last report."""
    return sum(worked_s for worked_s, _ in _intervals(trial))


def _intervals(trial: TrialRecord) -> Iterator[tuple[float, int | None]]:
    """The seconds of training and evaluation before each report of a trial, and its workers, if the report says."""
    seen_s = 0.0
    for report in trial.reports:
        figures = report.metrics
        trained_s = (report.seen_s - seen_s) / max(figures["audio_s_per_s"], 1e-9)
        yield trained_s + figures.get("eval_runtime_s", 0.0), report.workers
        seen_s = report.seen_s
