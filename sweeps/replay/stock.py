"""Random search, and the stock pruning rules of other tools, as a replay simulates them."""

from __future__ import annotations

import bisect
import math
import statistics
from collections.abc import Collection, Sequence
from typing import Literal

from sweeps.pruning.rule import Point
from sweeps.replay.policy import Decision, Settings


class Full:
    """Random search: every trial runs to its end."""

    def __init__(self, marks: Sequence[float] = ()) -> None:
        self.marks = marks

    def decide(self, trial: int, points: Sequence[Point], ready_s: float) -> Decision:
        return "go"

    def resume(self, waiting: Sequence[int], running: Collection[int], fresh: int) -> int | None:
        return None

    def pick(self, fresh: Sequence[int], running: Collection[int], settings: Sequence[Settings]) -> int:
        return fresh[0]


class StockAsha(Full):
    """Ray Tune's ASHAScheduler, one bracket: a trial is compared once, with those that reached the rung before it.

    The arithmetic is that of `ray/tune/schedulers/async_hyperband.py` (2.60), `_Bracket`, with rewards negated.

    Args:
        metric: what is ranked.
        marks: the rungs.
        reduction: those below the percentile 100 (1 - 1/reduction) of the rewards are stopped.
    """

    def __init__(self, metric: Literal["loss", "wer"], marks: Sequence[float], reduction: int) -> None:
        super().__init__(marks)
        self._metric, self._reduction = metric, reduction
        self._rungs: list[tuple[float, set[int], list[float]]] = [(mark, set(), []) for mark in reversed(marks)]

    def decide(self, trial: int, points: Sequence[Point], ready_s: float) -> Decision:
        reward = -(points[-1].loss if self._metric == "loss" else points[-1].wer)
        for mark, recorded, rewards in self._rungs:
            if points[-1].seen_s < mark or trial in recorded:
                continue
            passed = not rewards or reward >= percentile(rewards, (1 - 1 / self._reduction) * 100)
            recorded.add(trial)
            bisect.insort(rewards, reward)
            return "go" if passed else "stop"
        return "go"


def percentile(rising: Sequence[float], percent: float) -> float:
    """`numpy.nanpercentile` of sorted finite numbers, to the last bit and fifty times as fast."""
    place = (len(rising) - 1) * (percent / 100)
    below = math.floor(place)
    low, high, share = rising[below], rising[min(below + 1, len(rising) - 1)], place - below
    return high - (high - low) * (1 - share) if share >= 0.5 else low + (high - low) * share


class Median(Full):
    """Ray Tune's MedianStoppingRule on WER: stop a trial whose best is above the median of the others' means so far.

    As in `ray/tune/schedulers/median_stopping_rule.py` (2.60), a trial with too few others of its age is paused for
    those that wait, and goes on when all fresh ones have begun.

    Args:
        grace_s: seconds of audio before which nothing is stopped and no evaluation counts.
        samples: how many others a median needs.
    """

    def __init__(self, grace_s: float, samples: int = 3) -> None:
        self.marks = (grace_s,)
        self._grace_s, self._samples = grace_s, samples
        self._curves: dict[int, Sequence[Point]] = {}
        self._others_wait = False

    def decide(self, trial: int, points: Sequence[Point], ready_s: float) -> Decision:
        self._curves[trial] = points
        now = points[-1].seen_s
        if now < self._grace_s:
            return "go"
        others = [c for other, c in self._curves.items() if other != trial and c[-1].seen_s >= now]
        scoped = [[p.wer for p in curve if self._grace_s <= p.seen_s <= now] for curve in others]
        means = [statistics.fmean(wers) for wers in scoped if wers]
        if len(means) < self._samples:
            return "pause" if self._others_wait else "go"
        return "stop" if min(point.wer for point in points) > statistics.median(means) else "go"

    def resume(self, waiting: Sequence[int], running: Collection[int], fresh: int) -> int | None:
        self._others_wait = fresh + len(waiting) > 1  # one of them is taken now
        return waiting[0] if waiting and not fresh else None


class OneEpoch(Full):
    """Every setting is trained for one epoch; when all have been, the best tenth by WER is trained to the end.

    Args:
        epoch_s: seconds of audio in the train split.
        share: how many go on, rounded up.
    """

    def __init__(self, epoch_s: float, share: float = 0.1) -> None:
        self.marks = (epoch_s,)
        self._share = share
        self._wers: dict[int, float] = {}

    def decide(self, trial: int, points: Sequence[Point], ready_s: float) -> Decision:
        if trial in self._wers or points[-1].seen_s < self.marks[0]:
            return "go"
        self._wers[trial] = points[-1].wer
        return "pause"

    def resume(self, waiting: Sequence[int], running: Collection[int], fresh: int) -> int | None:
        if fresh or any(trial not in self._wers for trial in running):
            return None
        ranking = sorted(self._wers, key=lambda trial: (self._wers[trial], trial))
        best = ranking[: math.ceil(self._share * len(ranking))]
        return next((trial for trial in best if trial in waiting), None)
