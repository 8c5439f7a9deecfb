"""Expect how long a trial of the search is, in seconds of audio, given the pruning rule.

In: the settings. Out: the least, the expected and the largest length. Called by the estimate before the sweep and by
the forecast while it runs. A trial ends between its first rung and its full length. The expected length is the mean
under the rule if scores come in random order; trials that pass rungs unranked while warming up go further.
"""

from __future__ import annotations

import json
import math
import random
from bisect import insort
from dataclasses import replace
from functools import lru_cache

from hausa_asr.recipe import FinetuneConfig
from hausa_asr.settings.recipe import Dimension
from hausa_asr.settings.sweep import SweepConfig
from sweeps.pruning.rule import AT_ANY_AGE
from sweeps.pruning.rungs import ready_s, rungs_s
from sweeps.sampling.candidates import Candidates

_COHORTS, _ENOUGH = 25, 300
"""The number of draws, and the cohort above which the share hardly changes."""
_DRAWS = 500
_READY_BY = ("warmup_fraction", "freeze_transformer_fraction", "unfreeze", "batch_s")
"""The settings by which a trial is ready late."""


def ahead_s(config: SweepConfig, seen_s: float, trials: int) -> float:
    """Expect for how many more seconds of audio a trial of the search goes on.

    Args:
        config: the sweep's settings.
        seen_s: seconds of audio that it was trained on; it has passed the rungs up to there.
        trials: of the search.
    """
    length_s, at = config.recipe().length_s, seen_s
    marks = rungs_s(config)
    ahead, share = 0.0, 1.0
    for mark, passing in zip(marks, passing_shares(config, trials), strict=True):
        if mark > seen_s:
            ahead += share * (mark - at)
            at, share = mark, share * passing
    ahead += share * (length_s - at)
    return ahead


def passing_shares(config: SweepConfig, trials: int) -> tuple[float, ...]:
    """Compute which share of the trials at each rung passes it, ranked or unranked.

    Args:
        config: the sweep's settings.
        trials: of the search.
    """
    pruning, marks = config.pruning, rungs_s(config)
    ranked = shares_passing(trials, pruning.reduction, len(marks), pruning.finish_share)
    if pruning.rank_by in AT_ANY_AGE:
        return ranked
    fixed = {name: getattr(config.recipe(), name) for name in ("length_s", *_READY_BY)}
    unranked = _shares_unranked(tuple(marks), json.dumps(fixed), json.dumps(config.model_dump()["space"]))
    return tuple(free + (1 - free) * passing for free, passing in zip(unranked, ranked, strict=True))


@lru_cache(maxsize=64)
def _shares_unranked(marks: tuple[float, ...], fixed: str, space: str) -> tuple[float, ...]:
    """Compute which share of random settings is not ready at each rung. JSON, so that the answer can be kept."""
    recipe = FinetuneConfig(**json.loads(fixed))
    dimensions = {name: [Dimension(**one) for one in ranges] for name, ranges in json.loads(space).items()}
    chance, candidates = random.Random(0), Candidates(dimensions)
    drawn = [{name: at for name, at in candidates.draw(chance).items() if name in _READY_BY} for _ in range(_DRAWS)]
    first_s = next(iter(marks), 0.0)
    ready = [ready_s(replace(recipe, **settings), first_s, recipe) for settings in drawn]
    return tuple(sum(one > mark for one in ready) / _DRAWS for mark in marks)


@lru_cache(maxsize=1024)
def shares_passing(cohort: int, reduction: int, n_rungs: int, finish_share: float) -> tuple[float, ...]:
    """Compute which share of the trials at each rung passes it: at once, by a later promotion or the second look.

    It is the mean of seeded draws, the same at every call. In a draw, scores come in random order, and a trial has the
    same score at every rung.

    Args:
        cohort: trials in the search.
        reduction: one in this many passes.
        n_rungs: how many rungs there are.
        finish_share: the second look goes on until this share of the trials has finished.
    """
    if not n_rungs:
        return ()
    chance = random.Random(0)
    cohort = min(cohort, _ENOUGH)
    came, passed = [0] * n_rungs, [0] * n_rungs

    def come(rung: int, score: float) -> None:
        insort(scores[rung], score)
        came[rung] += 1
        for one in scores[rung][: math.ceil(len(scores[rung]) / reduction)]:
            if one not in went_on[rung]:
                went_on[rung].add(one)
                passed[rung] += 1
                if rung + 1 < n_rungs:
                    come(rung + 1, one)

    for _ in range(_COHORTS):
        scores: list[list[float]] = [[] for _ in range(n_rungs)]
        went_on: list[set[float]] = [set() for _ in range(n_rungs)]
        for _ in range(cohort):
            come(0, chance.random())
        waiting = [
            (place / len(scores[rung]) / reduction**rung, rung)
            for rung in range(n_rungs)
            for place, one in enumerate(scores[rung], start=1)
            if one not in went_on[rung]
        ]
        second = math.ceil(finish_share * cohort) - len(went_on[-1])
        for _, rung in sorted(waiting)[: max(0, second)]:
            passed[rung] += 1
            for later in range(rung + 1, n_rungs):
                came[later] += 1
                passed[later] += 1
    return tuple(one / max(1, of) for one, of in zip(passed, came, strict=True))


def least_s(config: SweepConfig, trials: int) -> float:
    """Seconds of audio of a trial that is stopped as early as possible."""
    return next(iter(rungs_s(config)), config.recipe().length_s)


def mean_s(config: SweepConfig, trials: int) -> float:
    """Seconds of audio that a trial of the search is expected to be trained on."""
    return ahead_s(config, 0.0, trials)


def most_s(config: SweepConfig, trials: int) -> float:
    """Seconds of audio of a trial that nothing stops."""
    return config.recipe().length_s
