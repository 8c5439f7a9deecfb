"""Decide at a rung which trials go on: the pruning rule, shared by the scheduler and the replay.

In: the score of a trial at a rung. Out: whether it goes on, and which paused trial goes on later. It is asynchronous
successive halving with promotion (Li et al., "A System for Massively Parallel Hyperparameter Tuning", 2020). At a rung
the best `1/reduction` of the cohort so far go on, rounded up. The others wait there, and are promoted when a larger
cohort lets them pass. When no new setting is left to try, the second look begins: the best of the waiting trials go on,
until `finish_share` of all trials have finished.

What is ranked. On a CTC model's plateau, the first part of a run, WER does not differ between trials, while the
unmasked eval loss does. Later the loss may rise by overfitting while WER still falls. No single figure is right in
both, so `blend` adds a trial's ranks by loss, CER and WER. `predicted`, the default, ranks by where each trial is
expected to end, given those ranks and the trials with like settings (the room `prediction`). docs/log.md compares them.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from hausa_asr.ctc import PLATEAU_WER

Metric = Literal["loss", "wer", "blend", "predicted"]
RankBy = Literal["auto", "loss", "wer", "blend", "predicted"]

AT_ANY_AGE: tuple[RankBy, ...] = ("blend", "predicted")
"""By these a trial is ranked even while it warms up; by a single figure it passes unranked until then."""
TURNED_WER = PLATEAU_WER
"""The turning point is the first evaluation from which WER stays under this for two evaluations."""


@dataclass(frozen=True)
class Point:
    """One evaluation: seconds of audio trained on, unmasked eval loss in nats per label, WER and CER."""

    seen_s: float
    loss: float
    wer: float
    cer: float


@dataclass(frozen=True)
class Score:
    """A trial at a rung: its evaluation there, and whether it had passed the turning point."""

    loss: float
    wer: float
    cer: float
    turned: bool

    def key(self, metric: Literal["loss", "wer"]) -> tuple[float, ...]:
        """The values to compare, less is better. WER counts up to 1: a model is no worse for its insertions."""
        if metric == "loss":
            return (self.loss,)
        return (min(self.wer, 1.0), self.cer, self.loss)


@dataclass(frozen=True)
class Ranking:
    """One decision at a rung.

    Attributes:
        metric: the metric ranked by.
        place: of this trial, from 1.
        cohort: how many trials were ranked, this one included.
        passing: how many of them pass.
        value: this trial's figure: a loss, a WER, a sum of ranks, or an expected standing (0 is average, -1 good).
        cutoff: the largest figure that passes.
        passed: whether this trial passes.
    """

    metric: Metric
    place: int
    cohort: int
    passing: int
    value: float
    cutoff: float
    passed: bool


def who_goes_on(passing: int, cutoff: float | None) -> str:
    """Say in words who passes a rung. Sweeps of older versions have no cutoff while nobody passes."""
    return "too few to let one go on yet" if cutoff is None else f"the best {passing} go on, up to {cutoff:.4f}"


FIGURES: dict[str, str] = {
    "loss": "eval loss",
    "wer": "WER",
    "blend": "the sum of its ranks by loss, CER and WER",
    "predicted": "where it is expected to end (0 is average, -1 good)",
}
"""What a rung ranks by, in words."""


def turned(points: Sequence[Point]) -> bool:
    """Whether a curve has passed its turning point: WER under `TURNED_WER` twice running."""
    last = [point.wer < TURNED_WER for point in points[-2:]]
    return len(last) == 2 and all(last)


def score(points: Sequence[Point]) -> Score:
    """Score a curve that has just reached a rung. Raises `ValueError` for a curve without points."""
    if not points:
        raise ValueError("a trial is scored by its evaluations, and this one has none")
    last = points[-1]
    return Score(last.loss, last.wer, last.cer, turned(points))


def rank_sums(scores: Sequence[Score]) -> list[float]:
    """The sum of each trial's ranks by loss, CER and WER; less is better. Insertions beyond 1.0 do not count."""
    by_figure = (
        ranks([one.loss for one in scores]),
        ranks([min(one.cer, 1.0) for one in scores]),
        ranks([min(one.wer, 1.0) for one in scores]),
    )
    return [sum(three) for three in zip(*by_figure, strict=True)]


def ranks(values: Sequence[float]) -> list[float]:
    """The rank of each value, from 0; equal values share the mean of theirs."""
    rising = sorted(values)
    return [(bisect_left(rising, value) + bisect_right(rising, value) - 1) / 2 for value in values]


Predict = Callable[[Collection[str]], Mapping[str, float]]
"""Where trials will end: their expected standings, less is better."""
_Order = list[tuple[tuple[float, ...], str]]


class Rule:
    """The rungs of a sweep, with the cohort of each.

    Args:
        marks: the rungs in seconds of audio trained on, rising.
        reduction: one in this many passes, rounded up: a trial that is alone at its rung goes on.
        rank_by: `loss`; `wer`; `auto` for loss before the turning point and WER after it; `blend` for the sum of the
            ranks by loss, CER and WER; or `predicted`.
        predict: for `predicted`; without it the rule ranks by `blend`.
    """

    def __init__(
        self, marks: Sequence[float], reduction: int, rank_by: RankBy = "blend", predict: Predict | None = None
    ) -> None:
        self.marks, self._reduction, self._rank_by = list(marks), reduction, rank_by
        self.predict = predict
        self._rungs = [_Rung() for _ in marks]

    def due(self, trial: str, seen_s: float, ready_s: float) -> list[int]:
        """List the rungs that a trial has reached and was not ranked at, the lowest first.

        Args:
            trial: its id.
            seen_s: seconds of audio that it was trained on.
            ready_s: after this many seconds of audio it is warmed up, wholly free and not too young. Ranked by one
                figure it passes earlier rungs unranked; by `blend` or `predicted` it does not (docs/log.md has what
                that gains).
        """
        if self._rank_by in AT_ANY_AGE:
            ready_s = 0.0
        return [
            number
            for number, mark in enumerate(self.marks)
            if ready_s <= mark <= seen_s and trial not in self._rungs[number].scores
        ]

    def record(self, rung: int, trial: str, scored: Score) -> None:
        """Add a trial to a rung's cohort, once."""
        self._rungs[rung].add(trial, scored)

    def score_of(self, rung: int, trial: str) -> Score:
        """A trial's score at a rung. Raises `KeyError` if it was not ranked there."""
        return self._rungs[rung].scores[trial]

    def shares(self, length_s: float) -> list[tuple[float, Mapping[str, Score]]]:
        """Each rung as a share of the length, with the scores there by trial: those of now and those to come."""
        return [(mark / length_s, rung.scores) for mark, rung in zip(self.marks, self._rungs, strict=True)]

    def metric(self, rung: int) -> Metric:
        """The metric that a rung ranks by now."""
        if self._rank_by == "predicted":
            return "predicted" if self.predict is not None else "blend"
        if self._rank_by != "auto":
            return self._rank_by
        here = self._rungs[rung]
        return "wer" if 2 * here.turned > len(here.scores) else "loss"

    def rank(self, rung: int, trial: str) -> Ranking:
        """Rank a recorded trial in its rung's cohort as it is now."""
        metric, order = self._order(rung)
        passing = math.ceil(len(order) / self._reduction)
        own = next(key for key, name in order if name == trial)
        place = 1 + bisect_left(order, (own,))
        return Ranking(metric, place, len(order), passing, own[0], order[passing - 1][0][0], place <= passing)

    def is_young(self, rung: int) -> bool:
        """Whether so few trials were ranked at a rung that the best of them passes by being there first.

        The baseline waits for more: it comes to its end in any case, and would else go there first, since it begins
        first.
        """
        return len(self._rungs[rung].scores) < self._reduction

    def second_look(self, waiting: Mapping[str, int]) -> str | None:
        """Choose the paused trial that goes on when no new setting is left to try: the best by rank in its cohort.

        A rung's cohort counts as the best `1/reduction` of the cohort of the rung before.

        Args:
            waiting: the paused trials and the rung at which each waits.
        """
        shares: dict[str, float] = {}
        for rung in set(waiting.values()):
            _, order = self._order(rung)
            keys = [key for key, _ in order]
            for key, trial in order:
                if waiting.get(trial) == rung:
                    shares[trial] = (1 + bisect_left(keys, key)) / len(order) / self._reduction**rung
        return min(shares, key=lambda trial: (shares[trial], trial), default=None)

    def promotable(self, waiting: Mapping[str, int]) -> str | None:
        """Choose the paused trial that is promoted next, or None.

        Args:
            waiting: the paused trials and the rung at which each waits.

        Returns:
            Of the trials that pass their rung now, the best at the highest rung.
        """
        for rung in sorted(set(waiting.values()), reverse=True):
            _, order = self._order(rung)
            for _, trial in order[: math.ceil(len(order) / self._reduction)]:
                if waiting.get(trial) == rung:
                    return trial
        return None

    def _order(self, rung: int) -> tuple[Metric, _Order]:
        """The metric of a rung, and its cohort with the values that are compared, the best first."""
        here, metric = self._rungs[rung], self.metric(rung)
        if metric == "loss" or metric == "wer":
            return metric, here.order[metric]
        trials = list(here.scores)
        if metric == "predicted":
            assert self.predict is not None
            expected = self.predict(trials)
            values = [expected[trial] for trial in trials]
        else:
            values = rank_sums(list(here.scores.values()))
        return metric, sorted(((value,), trial) for value, trial in zip(values, trials, strict=True))


class _Rung:
    """A rung's cohort, kept sorted by loss and WER, so that a decision in a large one stays cheap."""

    def __init__(self) -> None:
        self.scores: dict[str, Score] = {}
        self.order: dict[Literal["loss", "wer"], _Order] = {"loss": [], "wer": []}
        self.turned = 0

    def add(self, trial: str, scored: Score) -> None:
        if trial in self.scores:
            return
        self.scores[trial] = scored
        self.turned += scored.turned
        for metric, order in self.order.items():
            insort(order, (scored.key(metric), trial))
