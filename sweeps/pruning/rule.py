"""Decide at a rung which trials go on: the pruning rule, shared by the scheduler and the replay.

In: the score of a trial at a rung. Out: whether it goes on, and which paused trial goes on later. It is asynchronous
successive halving with promotion (Li et al., "A System for Massively Parallel Hyperparameter Tuning", 2020). At a rung
the best `1/reduction` of the cohort so far go on, rounded down. The others wait there, and are promoted when a larger
cohort lets them pass. When no new setting is left to try, the second look begins: the best of the waiting trials go on,
until `finish_share` of all trials have finished.

What is ranked. On a CTC model's plateau, the first part of a run, WER does not differ between trials, so ranking by WER
there is chance. The unmasked eval loss already differs. On recorded curves it also predicts the final WER better than
WER does after the plateau, since it is less noisy: so it is the default. `auto` ranks a rung by loss while most of its
cohort is before the turning point, and by WER after that (docs/log.md compares them).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Metric = Literal["loss", "wer"]
RankBy = Literal["auto", "loss", "wer"]

TURNED_WER = 0.97
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

    def key(self, metric: Metric) -> tuple[float, ...]:
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
        value: this trial's figure.
        cutoff: the largest figure that passes; None while none passes.
        passed: whether this trial passes.
    """

    metric: Metric
    place: int
    cohort: int
    passing: int
    value: float
    cutoff: float | None
    passed: bool


def who_goes_on(passing: int, cutoff: float | None) -> str:
    """Say in words who passes a rung."""
    return "too few to let one go on yet" if cutoff is None else f"the best {passing} go on, up to {cutoff:.4f}"


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


class Rule:
    """The rungs of a sweep, with the cohort of each.

    Args:
        marks: the rungs in seconds of audio trained on, rising.
        reduction: one in this many passes.
        rank_by: `loss`, `wer`, or `auto` for loss before the turning point and WER after it.
    """

    def __init__(self, marks: Sequence[float], reduction: int, rank_by: RankBy = "loss") -> None:
        self.marks, self._reduction, self._rank_by = list(marks), reduction, rank_by
        self._rungs = [_Rung() for _ in marks]

    def due(self, trial: str, seen_s: float, ready_s: float) -> list[int]:
        """List the rungs that a trial has reached and was not ranked at, the lowest first.

        Args:
            trial: its id.
            seen_s: seconds of audio that it was trained on.
            ready_s: after this many seconds of audio it can be compared; it passes earlier rungs unranked.
        """
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

    def metric(self, rung: int) -> Metric:
        """The metric that a rung ranks by now."""
        if self._rank_by != "auto":
            return self._rank_by
        here = self._rungs[rung]
        return "wer" if 2 * here.turned > len(here.scores) else "loss"

    def rank(self, rung: int, trial: str) -> Ranking:
        """Rank a recorded trial in its rung's cohort as it is now."""
        here, metric = self._rungs[rung], self.metric(rung)
        order = here.order[metric]
        passing = len(order) // self._reduction
        own = here.scores[trial].key(metric)
        place = 1 + bisect_left(order, (own,))
        cutoff = order[passing - 1][0][0] if passing else None
        passed = place <= passing
        return Ranking(metric, place, len(order), passing, own[0], cutoff, passed)

    def second_look(self, waiting: Mapping[str, int]) -> str | None:
        """Choose the paused trial that goes on when no new setting is left to try: the best by rank in its cohort.

        A rung's cohort counts as the best `1/reduction` of the cohort of the rung before.

        Args:
            waiting: the paused trials and the rung at which each waits.
        """

        def share(trial: str) -> tuple[float, str]:
            ranking = self.rank(waiting[trial], trial)
            return ranking.place / ranking.cohort / self._reduction ** waiting[trial], trial

        return min(waiting, key=share, default=None)

    def promotable(self, waiting: Mapping[str, int]) -> str | None:
        """Choose the paused trial that is promoted next, or None.

        Args:
            waiting: the paused trials and the rung at which each waits.

        Returns:
            Of the trials that pass their rung now, the best at the highest rung.
        """
        for rung in sorted(set(waiting.values()), reverse=True):
            order = self._rungs[rung].order[self.metric(rung)]
            for _, trial in order[: len(order) // self._reduction]:
                if waiting.get(trial) == rung:
                    return trial
        return None


class _Rung:
    """A rung's cohort, kept sorted by each metric, so that a decision in a large one stays cheap."""

    def __init__(self) -> None:
        self.scores: dict[str, Score] = {}
        self.order: dict[Metric, list[tuple[tuple[float, ...], str]]] = {"loss": [], "wer": []}
        self.turned = 0

    def add(self, trial: str, scored: Score) -> None:
        if trial in self.scores:
            return
        self.scores[trial] = scored
        self.turned += scored.turned
        for metric, order in self.order.items():
            insort(order, (scored.key(metric), trial))
