"""The pruning rules that a replay compares: ours, and the stock rules of other tools.

In: one evaluation of a trial after another. Out: whether it goes on, and what a free worker does next. `simulate`
calls them on a virtual clock. A rule is one small class and one line of `RULES`. It is deterministic, and it sees only
the evaluations made so far, never the rest of a curve.
"""

from __future__ import annotations

import bisect
import math
import statistics
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from hausa_asr.errors import UserError
from hausa_asr.settings.sweep import PruningSettings
from sweeps.pruning.divergence import PEERS_AT_MOST, divergence
from sweeps.pruning.rule import Metric, Point, Rule, score
from sweeps.pruning.rungs import rungs

Decision = Literal["go", "pause", "stop"]


class PruningRule(Protocol):
    """A rule in a simulated search. Trials are known by their place in the order of proposal, from 0."""

    @property
    def marks(self) -> Sequence[float]:
        """Seconds of audio at which it needs an evaluation, rising; the first is where it can stop a trial soonest."""
        ...

    def decide(self, trial: int, points: Sequence[Point], ready_s: float) -> Decision:
        """Decide on a trial after a new evaluation, the last of `points`. At a trial's end the decision is ignored."""
        ...

    def resume(self, waiting: Sequence[int], running: Collection[int], fresh: int) -> int | None:
        """Choose what a free worker does.

        Args:
            waiting: the paused trials, in the order of their pauses.
            running: the trials of the other workers.
            fresh: how many settings have not been tried.

        Returns:
            The paused trial that goes on; None for a fresh setting, or to wait if no fresh one is left.
        """
        ...


@dataclass(frozen=True)
class Options:
    """The options that a rule is made from.

    Attributes:
        length_s: seconds of audio of a trial.
        epoch_s: seconds of audio in the train split.
        pruning: rungs, reduction factor and what is ranked.
    """

    length_s: float
    epoch_s: float
    pruning: PruningSettings

    def marks(self, first_rung: float | None = None, reduction: int | None = None) -> list[float]:
        """The rungs in seconds of audio; `first_rung` and `reduction` replace the settings' own."""
        return rungs(self.length_s, first_rung or self.pruning.first_rung, reduction or self.pruning.reduction)


class Full:
    """Random search: every trial runs to its end."""

    def __init__(self, marks: Sequence[float] = ()) -> None:
        self.marks = marks

    def decide(self, trial: int, points: Sequence[Point], ready_s: float) -> Decision:
        return "go"

    def resume(self, waiting: Sequence[int], running: Collection[int], fresh: int) -> int | None:
        return None


class StockAsha(Full):
    """Ray Tune's ASHAScheduler, one bracket: a trial is compared once, with those that reached the rung before it.

    The arithmetic is that of `ray/tune/schedulers/async_hyperband.py` (2.60), `_Bracket`, with rewards negated.

    Args:
        metric: what is ranked.
        marks: the rungs.
        reduction: those below the percentile 100 (1 - 1/reduction) of the rewards are stopped.
    """

    def __init__(self, metric: Metric, marks: Sequence[float], reduction: int) -> None:
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


class Median:
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


class OneEpoch:
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


class Ours:
    """The rule of a sweep, by the sweep's own code: paused trials that can be promoted go before fresh ones."""

    def __init__(self, options: Options) -> None:
        self.marks = options.marks()
        self._rule = Rule(self.marks, options.pruning.reduction, options.pruning.rank_by)
        self._finish_share = options.pruning.finish_share
        self._recalled: set[int] = set()
        self._curves: dict[int, Sequence[Point]] = {}
        self._waits_at: dict[int, int] = {}

    def decide(self, trial: int, points: Sequence[Point], ready_s: float) -> Decision:
        self._curves[trial] = points
        peers = [other for other in sorted(self._curves) if other != trial][-PEERS_AT_MOST:]
        if divergence(points, ready_s, (self._curves[other] for other in peers)):
            return "stop"
        if trial in self._recalled:
            return "go"
        for rung in self._rule.due(str(trial), points[-1].seen_s, ready_s):
            self._rule.record(rung, str(trial), score(points))
            if not self._rule.rank(rung, str(trial)).passed:
                self._waits_at[trial] = rung
                return "pause"
        return "go"

    def resume(self, waiting: Sequence[int], running: Collection[int], fresh: int) -> int | None:
        at = {str(trial): self._waits_at[trial] for trial in waiting}
        trial = self._rule.promotable(at)
        if trial is None and not fresh and len(self._curves) - len(waiting) < self._finish_share * len(self._curves):
            trial = self._rule.second_look(at)
            self._recalled |= {int(trial)} if trial is not None else set()
        return None if trial is None else int(trial)


RULES: dict[str, Callable[[Options], PruningRule]] = {
    "full": lambda options: Full(),
    "asha_wer_2": lambda options: StockAsha("wer", options.marks(reduction=2), 2),
    "asha_wer_4": lambda options: StockAsha("wer", options.marks(reduction=4), 4),
    "asha_wer_grace": lambda options: StockAsha("wer", options.marks(first_rung=0.5), options.pruning.reduction),
    "asha_loss": lambda options: StockAsha("loss", options.marks(), options.pruning.reduction),
    "median": lambda options: Median(options.pruning.first_rung * options.length_s),
    "one_epoch": lambda options: OneEpoch(options.epoch_s),
    "ours": Ours,
}
ALWAYS = ("full", "asha_loss", "ours")
"""Compared in every replay; times are relative to those of the first two."""
CHANGEABLE = ("rank_by", "reduction", "first_rung", "finish_share")


@dataclass(frozen=True)
class NamedRule:
    """A rule with its options; `label` is how the user wrote it, such as `ours:reduction=2`."""

    label: str
    name: str
    options: Options

    def new_rule(self) -> PruningRule:
        """Make the rule, before its first evaluation."""
        return RULES[self.name](self.options)

    @property
    def peer(self) -> NamedRule:
        """Loss-only stock ASHA on the same rungs with the same reduction factor."""
        return NamedRule("asha_loss" + self.label.removeprefix(self.name), "asha_loss", self.options)


def named_rule(label: str, options: Options) -> NamedRule:
    """Read a rule as the user writes it: `NAME`, or `NAME:option=value,...` with what differs from `options`.

    Raises:
        UserError: the rule or the option does not exist, or the value is not allowed.
    """
    name, _, rest = label.partition(":")
    if name not in RULES:
        raise UserError(f"There is no rule {name!r}.", where=f"--rule {label}", fix=f"Name one of {', '.join(RULES)}.")
    changed = dict(part.partition("=")[::2] for part in rest.split(",") if part)
    try:
        if unknown := changed.keys() - set(CHANGEABLE):
            raise ValueError(", ".join(sorted(unknown)))
        pruning = PruningSettings.model_validate({**options.pruning.model_dump(), **changed})
    except ValueError:  # pydantic's is one
        raise UserError(
            f"A rule cannot have the options {rest!r}.",
            where=f"--rule {label}",
            fix="Write for example --rule ours:rank_by=loss,reduction=2,first_rung=0.2.",
        ) from None
    return NamedRule(label, name, replace(options, pruning=pruning))


@dataclass(frozen=True)
class Selection:
    """The rules of a comparison.

    Attributes:
        rules: those to run, the peer of each among them.
        shown: the labels of those in the table and the picture.
    """

    rules: tuple[NamedRule, ...]
    shown: tuple[str, ...]


def select(labels: Sequence[str], options: Options) -> Selection:
    """Select the rules that the user asks for, those that are always compared, and their peers, each once.

    Raises:
        UserError: as `named_rule`.
    """
    asked = [named_rule(label, options) for label in (*ALWAYS, *labels)]
    by_label = {one.label: one for rule in asked for one in (rule, rule.peer)}
    order = dict.fromkeys([*labels, *ALWAYS, *(rule.peer.label for rule in asked)])
    shown = tuple(label for label in order if label in (*ALWAYS, *labels))
    return Selection(tuple(by_label[label] for label in order), shown)
