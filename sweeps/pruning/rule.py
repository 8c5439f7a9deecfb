"""The pruning rule: arithmetic on numbers, with no Ray, no files and no clock. The scheduler and the replay share it.

In: what a trial scored at a rung. Out: whether it goes on, and which paused trial goes on later. It is asynchronous
successive halving of the promotion kind (Li et al., "A System for Massively Parallel Hyperparameter Tuning", 2020): at
a rung the best `1/reduction` of those seen so far go on, rounded down; the others wait there, and one that a larger
cohort lets pass is promoted then. When no new setting is left to try, there is a second look: the best of those that
wait go on, until `finish_share` of all trials have come to their end.

What is ranked. WER is blind while a CTC model is on its plateau, the first part of a run: ranked by it there, trials
are stopped by the toss of a coin. The unmasked eval loss already differs between them, and on recorded curves it
foretells the final WER better than WER itself does after the plateau too, being less noisy: so it is the default.
`auto` ranks a rung by loss while most of its cohort is before the turning point, and by WER after that (docs/log.md
compares them).
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
    """What a rung knows of a trial: an evaluation, and whether the turning point was behind it."""

    loss: float
    wer: float
    cer: float
    turned: bool

    def key(self, metric: Metric) -> tuple[float, ...]:
        """What is compared, less is better. WER counts up to 1: past that a model that inserts is no worse."""
        if metric == "loss":
            return (self.loss,)
        return (min(self.wer, 1.0), self.cer, self.loss)


@dataclass(frozen=True)
class Ranking:
    """One decision at a rung.

    Attributes:
        metric: what was ranked.
        place: this trial's, from 1.
        cohort: how many the rung knew, this one among them.
        passing: how many of those pass.
        value: this trial's figure.
        cutoff: the largest figure that passes; None where none does yet.
        passed: whether this one does.
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
    """What a rung records of a curve that has just reached it. Raises `ValueError` for a curve without points."""
    if not points:
        raise ValueError("a trial is scored by its evaluations, and this one has none")
    last = points[-1]
    return Score(last.loss, last.wer, last.cer, turned(points))


class Rule:
    """The rungs of a sweep and what each has seen.

    Args:
        marks: the rungs in seconds of audio trained on, rising.
        reduction: one in this many passes.
        rank_by: `loss`, `wer`, or `auto` for the one after the other.
    """

    def __init__(self, marks: Sequence[float], reduction: int, rank_by: RankBy = "loss") -> None:
        self.marks, self._reduction, self._rank_by = list(marks), reduction, rank_by
        self._rungs = [_Rung() for _ in marks]

    def due(self, trial: str, seen_s: float, ready_s: float) -> list[int]:
        """The rungs that a trial has come to and was not ranked at, oldest first.

        Args:
            trial: its id.
            seen_s: seconds of audio that it was trained on.
            ready_s: since when it can be compared; rungs before that it passes unranked.
        """
        return [
            number
            for number, mark in enumerate(self.marks)
            if ready_s <= mark <= seen_s and trial not in self._rungs[number].scores
        ]

    def record(self, rung: int, trial: str, scored: Score) -> None:
        """Take a trial into a rung's cohort, once."""
        self._rungs[rung].add(trial, scored)

    def score_of(self, rung: int, trial: str) -> Score:
        """What a rung knows of a trial. Raises `KeyError` where it was not ranked there."""
        return self._rungs[rung].scores[trial]

    def metric(self, rung: int) -> Metric:
        """What a rung ranks by now."""
        if self._rank_by != "auto":
            return self._rank_by
        here = self._rungs[rung]
        return "wer" if 2 * here.turned > len(here.scores) else "loss"

    def rank(self, rung: int, trial: str) -> Ranking:
        """Where a recorded trial stands in its rung's cohort as that is now."""
        here, metric = self._rungs[rung], self.metric(rung)
        order = here.order[metric]
        passing = len(order) // self._reduction
        own = here.scores[trial].key(metric)
        place = 1 + bisect_left(order, (own,))
        cutoff = order[passing - 1][0][0] if passing else None
        passed = place <= passing
        return Ranking(metric, place, len(order), passing, own[0], cutoff, passed)

    def second_look(self, waiting: Mapping[str, int]) -> str | None:
        """The paused trial that goes on when nothing new is left to try: by its share of its rung's cohort.

        A rung's cohort is the best `1/reduction` of that of the rung before, and counts so.

        Args:
            waiting: the paused trials and the rung at which each waits.
        """

        def share(trial: str) -> tuple[float, str]:
            ranking = self.rank(waiting[trial], trial)
            return ranking.place / ranking.cohort / self._reduction ** waiting[trial], trial

        return min(waiting, key=share, default=None)

    def promotable(self, waiting: Mapping[str, int]) -> str | None:
        """The paused trial that goes on next, or None.

        Args:
            waiting: the paused trials and the rung at which each waits.

        Returns:
            Of those whose rung would let them pass now, one of the highest rung, and the best there.
        """
        for rung in sorted(set(waiting.values()), reverse=True):
            order = self._rungs[rung].order[self.metric(rung)]
            for _, trial in order[: len(order) // self._reduction]:
                if waiting.get(trial) == rung:
                    return trial
        return None


class _Rung:
    """A rung's cohort, in order by each metric, so that a decision costs no more in a large one."""

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
