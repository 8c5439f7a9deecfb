"""Predict before a sweep what it takes: time, hours, money and disk.

In: the settings, the slot plan and the storage with earlier sweeps. Out: a `Prediction`, which `admission` judges and
writes as text. It uses no network.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hausa_asr.model.feature_files import features_folder, free_at, kept_free, share_a_disk
from hausa_asr.recipe import CACHE, CACHE_VARIABLE, FEATURES
from hausa_asr.settings.sweep import SweepConfig
from sweeps.planning.budget import devices, finalist_length_s, hours_word
from sweeps.planning.disk import bytes_written, cached_features, checkpoint_space, features_there
from sweeps.planning.epochs import epochs
from sweeps.planning.epochs import warning as epochs_warning
from sweeps.planning.expected_length import least_s, mean_s, most_s
from sweeps.planning.finalists import finalist_runs, last_models
from sweeps.planning.slots import SlotPlan
from sweeps.planning.speed import Speed, speed_of
from sweeps.wording import amount, duration, size

_START_S = 40.0
"""Loading, Ray, the first worker group, and the export at the end, on two cores."""


@dataclass(frozen=True)
class Figures:
    """What a sweep takes, its finalists included.

    Attributes:
        audio_s: seconds of audio trained on.
        hours: GPU-hours, or CPU-hours if trials have no GPU.
        money: the cost of those hours; None without a price.
        wall_s: seconds from start to end, with the scoring of the last models, which no budget of hours counts.
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
        speed: of one trial; None if nothing is known, and then `low`, `expected` and `high` are None too.
        low: if every trial but the baseline ends at the first rung.
        expected: if scores come in random order.
        high: if no trial is pruned.
        disk_least: bytes of the checkpoints that cannot be dropped, at their peak; None if the base is not known.
        disk_expected: bytes of all checkpoints at their peak.
        written: bytes that are written for checkpoints, all in all, in the expected case; None if that is not known.
        disk_free: bytes free on the disk of the storage.
        features: bytes of the features that are cached; None if the length of the data or the base is not known.
        epochs: how often a trial of full length sees the train split; None if that is not known.
        warnings: what the user should know before starting.
    """

    slots: int
    speed: Speed | None
    low: Figures | None
    expected: Figures | None
    high: Figures | None
    disk_least: float | None
    disk_expected: float | None
    written: float | None
    disk_free: float
    features: float | None
    epochs: float | None
    warnings: tuple[str, ...]


def predict(
    config: SweepConfig,
    plan: SlotPlan,
    storage: Path,
    seconds: Mapping[str, float] | None = None,
    speed: Speed | None = None,
    fingerprint: str = "",
) -> Prediction:
    """Predict what a sweep takes.

    Args:
        config: the sweep's settings.
        plan: how many trials run side by side.
        storage: the folder for its checkpoints, with earlier sweeps; it need not exist yet.
        seconds: of speech in each split, as far as they are known.
        speed: of a trial, where it was measured; by default what earlier sweeps or a guess say.
        fingerprint: of the prepared dataset, if that is known: its features may be on the disk already.
    """
    seconds = seconds or {}
    workers = next(iter(plan.workers), None)
    speed = speed or speed_of(config, storage, seconds, plan.gpus, workers)
    low = expected = high = None
    trials = config.search.trials
    if speed is not None:
        low, expected, high = (
            figures(config, plan.slots, speed, trials, a_trial) for a_trial in (least_s, mean_s, most_s)
        )
    checkpoints = checkpoint_space(config, plan.slots)
    free = free_at(storage)
    warnings, bases = [], " or ".join(config.bases)
    if speed is None:
        warnings.append(
            f"nothing is known of the speed of {bases}, so time and cost are not predicted; set resources.audio_s_per_s"
        )
    if checkpoints.peak is None:
        warnings.append(f"how large checkpoints of {bases} are is not known")
    features, cache = cached_features(config, seconds), features_folder(storage / CACHE / FEATURES)
    to_write = max(0.0, features - features_there(config, cache, fingerprint, seconds)) if features else 0.0
    without_cache = to_write + kept_free(cache, storage, checkpoints.least or 0.0) > free_at(cache)
    beside = 0.0 if without_cache or not share_a_disk(cache, storage) else to_write  # and written first
    room = min(free - beside, (config.max_checkpoint_gb or math.inf) * 1e9)
    if checkpoints.peak is not None and checkpoints.peak > room:
        kept = f" beside {size(beside)} of cached features" if beside else ""
        warnings.append(
            f"checkpoints would take {size(checkpoints.peak)} and there is room for {size(room)}{kept}: the least "
            "promising paused trials lose their optimizer states, so they cannot be promoted later"
        )
    if to_write and without_cache:
        where = " beside the checkpoints" if share_a_disk(cache, storage) else f" in {cache}"
        warnings.append(
            f"there is no room for {size(to_write)} of cached features{where}, so every trial computes its own; "
            f"{CACHE_VARIABLE} may name a folder on another disk"
        )
    if rarely_or_often := epochs_warning(config, seconds):
        warnings.append(rarely_or_often)
    if speed is not None and low is not None and expected is not None:
        warnings += _budget_warnings(config, plan.slots, speed, low, expected)
    times = epochs(config, seconds)
    written = None if speed is None else bytes_written(config, speed)
    return Prediction(
        plan.slots, speed, low, expected, high, *checkpoints, written, free, features, times, tuple(warnings)
    )


def figures(
    config: SweepConfig, slots: int, speed: Speed, trials: int, a_trial: Callable[[SweepConfig, int], float]
) -> Figures:
    """Compute what a sweep of `trials` trials takes.

    Args:
        config, slots, speed: as in `predict`.
        trials: settings tried, the baseline among them.
        a_trial: gives the seconds of audio that a trial other than the baseline is trained on.
    """
    length_s, final_s = config.recipe().length_s, finalist_length_s(config)
    searched_s, runs = length_s + (trials - 1) * a_trial(config, trials), finalist_runs(config, trials)
    audio_s = searched_s + runs * final_s
    hours = audio_s / speed.audio_s_per_s / 3600 * devices(config.resources, speed.workers)
    price = config.budget.price_per_hour
    # The baseline comes to its end when no new setting is left, beside the second look.
    first_s = least_s(config, trials)
    last_s = (first_s + (trials - 1) * min(first_s, a_trial(config, trials))) / slots + length_s - first_s
    in_turn_s = max(searched_s / slots, length_s, last_s) + math.ceil(runs / slots) * final_s
    wall_s = (
        _START_S + in_turn_s / speed.audio_s_per_s + math.ceil(last_models(config, trials) / slots) * speed.scoring_s
    )
    return Figures(audio_s, hours, None if price is None else hours * price, wall_s)


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


def limits(config: SweepConfig, sweep: Figures) -> list[Limit]:
    """List the limits that the budget sets, with what the sweep takes of each."""
    budget = config.budget
    every = (
        ("budget.hours", budget.hours, sweep.hours, hours_word(config.resources)),
        ("budget.money", budget.money, sweep.money, "in money"),
        ("budget.wall_s", budget.wall_s, sweep.wall_s, "s"),
    )
    return [
        Limit(setting, limit, taken, unit)
        for setting, limit, taken, unit in every
        if limit is not None and taken is not None
    ]


def fitting(
    config: SweepConfig, slots: int, speed: Speed, within: Limit, a_trial: Callable[[SweepConfig, int], float]
) -> int:
    """Count the trials that fit into a limit of the budget, finalists included."""

    def taken(trials: int) -> float:
        sweep = figures(config, min(slots, trials), speed, trials, a_trial)
        return next(one.taken for one in limits(config, sweep) if one.setting == within.setting)

    return bisect_right(range(1, config.search.trials + 1), within.limit, key=taken)


def _budget_warnings(config: SweepConfig, slots: int, speed: Speed, low: Figures, expected: Figures) -> list[str]:
    """Say which limits of the budget are expected to end the search, and when."""
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
