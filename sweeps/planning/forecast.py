"""Forecast the time left of a running sweep.

In: the ledger's state. Out: the seconds and hours left, and when the budget ends the search before that. Called by the
board once a second, so it is one pass over the trials. Measurements replace the prediction step by step: open trials
count by their own pace, trials to come by the mean length of those that ended.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hausa_asr.settings.sweep import SweepConfig
from sweeps.planning.budget import Spent, devices, finalist_length_s, hours_word, spent
from sweeps.planning.estimate import Prediction
from sweeps.planning.expected_length import ahead_s
from sweeps.planning.finalists import finalist_runs, last_models
from sweeps.record.state import State
from sweeps.record.trial import TrialRecord
from sweeps.wording import amount, duration

_WEIGHT = 4
"""The expected length counts as much as this many ended trials, since the first trials to end are short."""


@dataclass(frozen=True)
class Forecast:
    """The time and hours left of a sweep, and when the budget ends its search.

    Attributes:
        left_s: seconds until its end, finalists included, and the scoring of models if it was predicted; None while
            nothing is known.
        hours: GPU-hours or CPU-hours left.
        hours_word: `GPU-hours` or `CPU-hours`.
        cut_s: seconds until the budget ends the search; None if it does not.
    """

    left_s: float | None
    hours: float
    hours_word: str
    cut_s: float | None = None

    def __str__(self) -> str:
        if self.left_s is None:
            return "time left not known yet"
        text = f"about {duration(self.left_s)} left, {amount(self.hours)} {self.hours_word}"
        if self.cut_s is None:
            return text
        when = f"in about {duration(self.cut_s)}" if self.cut_s > 0 else "now"
        return f"{text}; the budget ends the search {when}"


def forecast(
    state: State, config: SweepConfig, slots: int, now: float, prediction: Prediction | None = None
) -> Forecast:
    """Forecast what is left of a sweep.

    Args:
        state: the ledger's state.
        config: the sweep's settings.
        slots: trials side by side.
        now: seconds since the epoch.
        prediction: made before the sweep; used until the first report of a trial, and for the scoring at the end.
    """
    word, per_hour = hours_word(config.resources), _devices_of_late(state, config) / 3600
    if state.verdict is not None:
        return Forecast(0.0, 0.0, word)
    so_far = spent(state, config, now)
    seen_s = busy_s = 0.0
    for trial in state.trials.values():
        if trial.reports:
            audio_s, took_s = last_interval(trial)
            seen_s, busy_s = seen_s + audio_s, busy_s + took_s
    if not seen_s or not busy_s:
        expected = prediction.expected if prediction else None
        if expected is None:
            return Forecast(None, 0.0, word)
        return Forecast(max(0.0, expected.wall_s - so_far.wall_s), max(0.0, expected.hours - so_far.hours), word)
    pace = seen_s / busy_s

    search, finals = _open_trials(state, config, pace, now)
    search_s = search.total_s + (_to_come(state, config) / pace if not state.finalists else 0.0)
    runs = max(0, finalist_runs(config) - len(state.finalists))
    a_run_s = finalist_length_s(config) / pace
    final_s = finals.total_s + runs * a_run_s
    search_wall_s = max(search_s / slots, search.longest_s)
    final_wall_s = max(finals.longest_s, final_s / slots, a_run_s if runs else 0.0)

    cut_s = None
    allowed_s = _allowed_s(config, so_far, slots, final_s, final_wall_s, per_hour)
    if search_wall_s > 0 and allowed_s < search_wall_s:
        cut_s = max(0.0, allowed_s)
        search_s, search_wall_s = min(search_s, cut_s * slots), cut_s
    speed = prediction.speed if prediction else None
    # As much faster than predicted as the training is.
    scoring_s = speed.scoring_s * speed.audio_s_per_s / pace if speed else 0.0
    scoring_s *= math.ceil(last_models(config) / slots)
    return Forecast(search_wall_s + final_wall_s + scoring_s, (search_s + final_s) * per_hour, word, cut_s)


def _devices_of_late(state: State, config: SweepConfig) -> float:
    """How many GPUs or CPUs a slot takes: the mean of those at work, or of their trials' last reports."""
    resources = config.resources
    at_work = [one for one in state.trials.values() if one.started is not None] if resources.has_range else []
    known = [workers for one in at_work if (workers := one.workers or (one.reports and one.reports[-1].workers))]
    return sum(known) / len(known) * devices(resources, 1) if known else devices(resources)


@dataclass(frozen=True)
class _Left:
    """Slot-seconds left of some trials, of all together and of the longest."""

    total_s: float = 0.0
    longest_s: float = 0.0

    def plus(self, trial_s: float) -> _Left:
        return _Left(self.total_s + trial_s, max(self.longest_s, trial_s))


def _open_trials(state: State, config: SweepConfig, pace: float, now: float) -> tuple[_Left, _Left]:
    """Add up what is left of the trials that have begun: of the search's, and of the finalists."""
    search, finals = _Left(), _Left()
    for trial in state.trials.values():
        waits = trial.is_open or trial.waits_for_workers or trial.is_baseline
        if not waits or not (trial.is_open or trial.can_go_on):
            continue
        own = pace
        if trial.reports:
            audio_s, took_s = last_interval(trial)
            own = audio_s / took_s if audio_s and took_s else pace
        left_s = _audio_left_s(trial, config) / own
        if trial.started is not None:
            left_s = max(0.0, left_s - max(0.0, now - trial.started))
        if trial.of:
            finals = finals.plus(left_s)
        else:
            search = search.plus(left_s)
    return search, finals


def last_interval(trial: TrialRecord) -> tuple[float, float]:
    """Seconds of audio before a trial's last report, and the seconds that training on them and the evaluation took.

    By the trial's own clock, so that neither a slow start nor a pause counts.
    """
    last = trial.reports[-1]
    audio_s = last.seen_s - (trial.reports[-2].seen_s if len(trial.reports) > 1 else 0.0)
    figures = last.metrics
    return audio_s, audio_s / max(figures["audio_s_per_s"], 1e-9) + figures.get("eval_runtime_s", 0.0)


def _audio_left_s(trial: TrialRecord, config: SweepConfig) -> float:
    if trial.of:
        return max(0.0, finalist_length_s(config) - trial.seen_s)
    if trial.is_baseline:
        return max(0.0, config.recipe().length_s - trial.seen_s)
    return max(0.0, ahead_s(config, trial.seen_s, config.search.trials))


def _to_come(state: State, config: SweepConfig) -> float:
    """Seconds of audio of the trials that are not proposed yet."""
    searched = count = 0
    seen_s = 0.0
    for trial in state.trials.values():
        if trial.of:
            continue
        searched += 1
        if not trial.is_baseline and not trial.is_open and trial.reports:
            count, seen_s = count + 1, seen_s + trial.seen_s
    expected_s = ahead_s(config, 0.0, config.search.trials)
    mean_s = (seen_s + _WEIGHT * expected_s) / (count + _WEIGHT)
    return max(0, config.search.trials - searched) * mean_s


def _allowed_s(
    config: SweepConfig, so_far: Spent, slots: int, final_s: float, final_wall_s: float, per_s: float
) -> float:
    """Seconds until the budget ends the search, if every slot is busy and the finalists' share is kept back."""
    budget, allowed_s = config.budget, math.inf
    if budget.hours is not None:
        allowed_s = ((budget.hours - so_far.hours) / per_s - final_s) / slots
    if budget.money is not None and budget.price_per_hour:
        hours = (budget.money - so_far.money) / budget.price_per_hour
        allowed_s = min(allowed_s, (hours / per_s - final_s) / slots)
    if budget.wall_s is not None:
        allowed_s = min(allowed_s, budget.wall_s - so_far.wall_s - final_wall_s)
    return allowed_s
