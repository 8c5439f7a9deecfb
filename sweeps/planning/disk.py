"""Predict the disk that a sweep takes: checkpoints and cached features, and the bytes that are written.

In: the settings, the lengths of the splits, and the features that are on the disk already. Called by `estimate`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from hausa_asr.model.feature_files import Kept, kept_in
from hausa_asr.recipe import part_s
from hausa_asr.settings.sweep import SweepConfig
from sweeps.planning.budget import finalist_length_s
from sweeps.planning.epochs import evaluation_interval_s
from sweeps.planning.expected_length import mean_s, passing_shares
from sweeps.planning.finalists import finalist_runs
from sweeps.planning.speed import FRAMES_PER_S, Base, Speed, largest_base, trained_weights, values
from sweeps.pruning.rungs import rungs_s

_BEST = 4
"""Bytes per weight that learns, float32, of a best checkpoint, and of the folder of a trial that has ended. The newest
one, to resume from, has more (`state_bytes`); it and the best stay until its successor is complete."""
_DISK_BYTES_PER_S, _WRITING_SHARE = 1e9, 0.002
"""Optimizer states are written by the clock, or sooner where that takes 0.2 % of the time (training/states.py), which
depends on the disk."""


class CheckpointSpace(NamedTuple):
    """Bytes of a sweep's checkpoints at their peak: of those that cannot be dropped, and of all; None if not known."""

    least: float | None
    peak: float | None


def checkpoint_space(config: SweepConfig, slots: int) -> CheckpointSpace:
    """Predict how much disk the checkpoints take, from the number of weights that are trained."""
    base = largest_base(config)
    if base is None:
        return CheckpointSpace(None, None)
    weight, newest = trained_weights(config, base), state_bytes(config)
    trials, runs = config.search.trials, finalist_runs(config)
    settings = runs // config.finalists.seeds or 1
    final = min(slots, runs)
    # One of the running trials is writing, and the baseline waits. All write at once likely once in a long sweep.
    least = max(
        newest * (slots + 1 + bool(rungs_s(config))) + _BEST * min(settings, trials - slots),
        newest * (final + bool(final)) + _BEST * (settings + runs - final),
    )
    passing = math.prod(passing_shares(config, trials))
    waiting = min((trials - 1) * (1 - passing), trials - slots)
    writing, paused = 2 * (_BEST + newest), _BEST + newest
    search_peak = writing * slots + paused * waiting + _BEST * (trials - slots - waiting)
    finals_peak = writing * final + _BEST * (runs - final) + _BEST * trials
    return CheckpointSpace(weight * least, weight * max(search_peak, finals_peak))


def folder_at_rest(config: SweepConfig) -> float | None:
    """Predict the bytes of a trial's folder while nothing is being written to it; None if not known."""
    base = largest_base(config)
    return None if base is None else float((_BEST + state_bytes(config)) * trained_weights(config, base))


def state_bytes(config: SweepConfig) -> int:
    """Bytes, at most, of a checkpoint to resume from, for each weight that learns."""
    averages = {name: max(values(config, name)) for name in ("ema_fraction", "average")}
    return replace(config.recipe(), **averages).state_bytes


def bytes_written(config: SweepConfig, speed: Speed) -> float | None:
    """Predict the bytes that are written for checkpoints, if the best model is another one each time.

    A checkpoint to resume from is written where a trial may be paused and by the clock, and with it the best model
    (training/states.py). At a trial's end come its last model and its best.
    """
    base = largest_base(config)
    if base is None:
        return None
    weight, newest, recipe = trained_weights(config, base), state_bytes(config), config.recipe()
    trials, marks = config.search.trials, rungs_s(config)
    wait_s = min(recipe.checkpoint_every_s, weight * newest / _DISK_BYTES_PER_S / _WRITING_SHARE)
    evaluation_s = evaluation_interval_s(config)

    def of_one(length_s: float, stops: Sequence[float], ends: float = 1.0) -> float:
        passed = sum(mark < length_s for mark in stops)
        evaluations = max(1.0, length_s / evaluation_s) + passed
        by_clock = length_s / speed.audio_s_per_s / wait_s if wait_s else math.inf
        states = min(evaluations, passed + by_clock)
        return weight * (newest * states + _BEST * (states + 2 * ends))

    through = math.prod(passing_shares(config, trials))
    searched = of_one(recipe.length_s, marks) + (trials - 1) * of_one(mean_s(config, trials), marks, through)
    return searched + finalist_runs(config) * of_one(finalist_length_s(config), ())


def cached_features(config: SweepConfig, seconds: Mapping[str, float]) -> float | None:
    """Predict the bytes of the feature cache that a sweep fills: 50 frames a second in bfloat16; 0 where none is used.

    Args:
        config: the sweep's settings.
        seconds: of each split.

    Returns:
        None if the length of the data or the base checkpoint is not known.
    """
    base = largest_base(config)
    if base is None or "train" not in seconds:
        return None
    given = [config.recipe(settings) for settings in (config.baseline, *config.starting_points.values())]
    frozen = any(values(config, "freeze_feature_encoder"))
    unaltered = min(values(config, "speed_perturb")) == 0 and min(values(config, "noise_prob")) == 0
    is_on = config.recipe().feature_cache != "off"
    if not any(one.can_cache_features for one in given) and not (is_on and frozen and unaltered):
        return 0.0
    return sum(_cached_s(config, seconds).values()) * _bytes_per_s(base) * len(config.bases)


def features_there(config: SweepConfig, folder: Path, fingerprint: str, seconds: Mapping[str, float]) -> float:
    """Count the bytes of the features that a sweep would cache and that are there already, as of a resumed one.

    Args:
        config: the sweep's settings.
        folder: that of all caches.
        fingerprint: the dataset's; "" if it is not known, and then nothing is counted.
        seconds: of each split.
    """
    base = largest_base(config)
    if not fingerprint or base is None:
        return 0.0
    there = list(kept_in(folder))
    wanted = [
        Kept(name, fingerprint, split, split_s)
        for name in config.bases
        for split, split_s in _cached_s(config, seconds).items()
    ]
    return sum(one.seconds for one in wanted if any(kept.has(one) for kept in there)) * _bytes_per_s(base)


def _cached_s(config: SweepConfig, seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds of each split whose features are cached, of dev those that trials are scored on."""
    return {"train": seconds["train"], "dev": part_s(seconds.get("dev", 0.0), config.recipe().dev_part_s)}


def _bytes_per_s(base: Base) -> float:
    return FRAMES_PER_S * base.features * 2
