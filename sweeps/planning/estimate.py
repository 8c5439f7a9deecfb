"""What a sweep will take, before it starts: time, hours, money and disk.

In: the settings, the plan and the storage. Out: a `Prediction`, which the admission judges and describes. Neither Ray
nor torch is imported, and nothing is asked for over a network.
"""

from __future__ import annotations

import math
import shutil
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hausa_asr.settings.sweep import SweepConfig
from sweeps.planning.budget import devices, finalist_length_s, finalist_runs, hours_word
from sweeps.planning.slots import SlotPlan
from sweeps.planning.speed import Speed, base_of, speed_of, trained_weights
from sweeps.pruning.expected_length import least_s, mean_s, most_s, shares_passing
from sweeps.pruning.rungs import rungs_s
from sweeps.wording import amount, duration, size

_START_S = 40.0
"""Loading, Ray, the first worker group, and the test scores and export at the end, on two cores."""
_BEST, _NEWEST = 4, 12
"""Bytes per weight that learns: a best checkpoint has the weight, the newest also Adam's two moments, all float32."""
_WRITING, _PAUSED, _ENDED = _BEST + 2 * _NEWEST, _BEST + _NEWEST, _BEST
"""What a trial's folder takes at most. The newest checkpoint stays until its successor is complete."""


@dataclass(frozen=True)
class Figures:
    """What a sweep takes, its finalists included.

    Attributes:
        audio_s: seconds of audio trained on.
        hours: GPU-hours, or CPU-hours where trials have no GPU.
        money: what those cost, None without a price.
        wall_s: seconds from start to end.
    """

    audio_s: float
    hours: float
    money: float | None
    wall_s: float


@dataclass(frozen=True)
class Prediction:
    """What a sweep will take.

    Attributes:
        slots: trials side by side.
        speed: of one trial, None where nothing is known; then there are no figures.
        low: every trial but the baseline ends at the first rung.
        expected: the pruning rule does what it does to settings in random order.
        high: no trial is pruned.
        disk_least: bytes of checkpoints that there must be room for at some time; None where the base is not known.
        disk_expected: bytes of checkpoints at their peak, if there is the room.
        disk_free: bytes free where the storage is.
        warnings: what the user should know before starting.
    """

    slots: int
    speed: Speed | None
    low: Figures | None
    expected: Figures | None
    high: Figures | None
    disk_least: float | None
    disk_expected: float | None
    disk_free: float
    warnings: tuple[str, ...]


def predict(config: SweepConfig, plan: SlotPlan, storage: Path, dev_s: float | None = None) -> Prediction:
    """What a sweep will take.

    Args:
        config: its settings.
        plan: how many trials run side by side.
        storage: where its checkpoints go and earlier sweeps are; it need not be there yet.
        dev_s: seconds of dev audio, where known.
    """
    speed = speed_of(config, storage, dev_s)
    low = expected = high = None
    trials = config.search.trials
    if speed is not None:
        low, expected, high = (
            figures(config, plan.slots, speed, trials, a_trial) for a_trial in (least_s, mean_s, most_s)
        )
    least, peak = _disk(config, plan.slots)
    free = float(shutil.disk_usage(next(at for at in (storage, *storage.absolute().parents) if at.is_dir())).free)
    warnings = []
    if speed is None:
        warnings.append(
            f"nothing is known of the speed of {config.model.base}, so time and cost are not predicted; "
            "set resources.audio_s_per_s"
        )
    if peak is None:
        warnings.append(f"how large checkpoints of {config.model.base} are is not known")
    elif peak > (room := min(free, (config.max_checkpoint_gb or math.inf) * 1e9)):
        warnings.append(
            f"checkpoints would take {size(peak)} and there is room for {size(room)}: the least promising paused "
            "trials lose their optimizer states, so they cannot be promoted later"
        )
    if speed is not None and low is not None and expected is not None:
        warnings += _budget_warnings(config, plan.slots, speed, low, expected)
    return Prediction(plan.slots, speed, low, expected, high, least, peak, free, tuple(warnings))


def figures(
    config: SweepConfig, slots: int, speed: Speed, trials: int, a_trial: Callable[[SweepConfig, int], float]
) -> Figures:
    """What a sweep of this many trials takes.

    Args:
        config, slots, speed: as in `predict`.
        trials: settings tried, the baseline among them.
        a_trial: seconds of audio that a trial other than the baseline is trained on.
    """
    length_s, final_s = config.recipe().length_s, finalist_length_s(config)
    searched_s, runs = length_s + (trials - 1) * a_trial(config, trials), finalist_runs(config, trials)
    audio_s = searched_s + runs * final_s
    hours = audio_s / speed.audio_s_per_s / 3600 * devices(config.resources)
    price = config.budget.price_per_hour
    in_turn_s = max(searched_s / slots, length_s) + math.ceil(runs / slots) * final_s
    wall_s = _START_S + in_turn_s / speed.audio_s_per_s
    return Figures(audio_s, hours, None if price is None else hours * price, wall_s)


def _disk(config: SweepConfig, slots: int) -> tuple[float | None, float | None]:
    """Bytes of checkpoints: the least that there must be room for, and the peak without a bound."""
    base = base_of(config.model.base)
    if base is None:
        return None, None
    weight = trained_weights(config, base)
    trials, runs = config.search.trials, finalist_runs(config)
    settings = runs // config.finalists.seeds or 1
    final = min(slots, runs)
    # One of those that run is writing; that all do at once is likely only by the end of a long sweep.
    least = max(
        _NEWEST * (slots + 1) + _BEST * min(settings, trials - slots),
        _NEWEST * (final + bool(final)) + _BEST * (settings + runs - final),
    )
    passing = math.prod(
        shares_passing(trials, config.pruning.reduction, len(rungs_s(config)), config.pruning.finish_share)
    )
    waiting = min((trials - 1) * (1 - passing), trials - slots)
    search_peak = _WRITING * slots + _PAUSED * waiting + _ENDED * (trials - slots - waiting)
    finals_peak = _WRITING * final + _ENDED * (runs - final) + _ENDED * trials
    return weight * least, weight * max(search_peak, finals_peak)


@dataclass(frozen=True)
class Limit:
    """One limit of the budget: its setting, what it allows, and what a sweep takes of it.

    `unit` says what is counted: CPU-hours or GPU-hours, money, or seconds of wall clock.
    """

    setting: str
    limit: float
    taken: float
    unit: str

    def say(self, figure: float) -> str:
        """A figure of this limit in words."""
        return f"{duration(figure)} of wall clock" if self.unit == "s" else f"{amount(figure)} {self.unit}"


def limits(config: SweepConfig, of: Figures) -> list[Limit]:
    """The budget's limits that are set, with what `of` takes of each."""
    budget = config.budget
    every = (
        ("budget.hours", budget.hours, of.hours, hours_word(config.resources)),
        ("budget.money", budget.money, of.money, "in money"),
        ("budget.wall_s", budget.wall_s, of.wall_s, "s"),
    )
    return [
        Limit(setting, limit, taken, unit)
        for setting, limit, taken, unit in every
        if limit is not None and taken is not None
    ]


def fitting(
    config: SweepConfig, slots: int, speed: Speed, within: Limit, a_trial: Callable[[SweepConfig, int], float]
) -> int:
    """How many trials a limit of the budget is enough for, finalists included."""

    def taken(trials: int) -> float:
        of = figures(config, min(slots, trials), speed, trials, a_trial)
        return next(one.taken for one in limits(config, of) if one.setting == within.setting)

    return bisect_right(range(1, config.search.trials + 1), within.limit, key=taken)


def _budget_warnings(config: SweepConfig, slots: int, speed: Speed, low: Figures, expected: Figures) -> list[str]:
    """Which limits of the budget are expected to end the search, and when."""
    warnings = []
    trials = config.search.trials
    for mean, least in zip(limits(config, expected), limits(config, low), strict=True):
        if mean.taken <= mean.limit:
            continue
        enough = fitting(config, slots, speed, mean, mean_s)
        at = f"at about trial {enough} of {trials}" if enough else "before its baseline and finalists are through"
        whole = f"all of it takes {mean.say(mean.taken)}, and {mean.say(least.taken)} at the least"
        guess = ", if the guessed speed is right" if speed.guessed else ""
        warnings.append(f"{mean.setting} ({mean.say(mean.limit)}) is expected to end the search {at}; {whole}{guess}")
    return warnings
