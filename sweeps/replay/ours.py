"""Our rule, as a replay simulates it: the code of a sweep, with its sampler (`Ours`) or without (`Plain`)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from sweeps.prediction.predictor import Predictor
from sweeps.pruning.divergence import PEERS_AT_MOST, divergence
from sweeps.pruning.rule import Point, Rule, score
from sweeps.replay.policy import Decision, Options, Settings
from sweeps.replay.stock import Full


class Plain(Full):
    """The rungs of a sweep, by the sweep's own code. Settings come in random order, and `predicted` means `blend`."""

    def __init__(self, options: Options) -> None:
        super().__init__(options.marks())
        self._rule = Rule(self.marks, options.pruning.reduction, options.pruning.rank_by)
        self._finish_share = options.pruning.finish_share
        self._recalled: set[int] = set()
        self._curves: dict[int, Sequence[Point]] = {}
        self._waits_at: dict[int, int] = {}
        self._finished: set[int] = set()
        self._length_s = options.length_s
        self._baseline = 0 if options.baseline else None

    def decide(self, trial: int, points: Sequence[Point], ready_s: float) -> Decision:
        self._curves[trial] = points
        peers = [other for other in sorted(self._curves) if other != trial][-PEERS_AT_MOST:]
        if divergence(points, ready_s, (self._curves[other] for other in peers)):
            return "stop"
        if points[-1].seen_s >= self._length_s:
            self._finished.add(trial)
            return "go"
        if trial in self._recalled:
            return "go"
        for rung in self._rule.due(str(trial), points[-1].seen_s, ready_s):
            self._rule.record(rung, str(trial), score(points))
            waits = trial == self._baseline and self._rule.is_young(rung)
            if waits or not self._rule.rank(rung, str(trial)).passed:
                self._waits_at[trial] = rung
                return "pause"
        return "go"

    def resume(self, waiting: Sequence[int], running: Collection[int], fresh: int) -> int | None:
        at = {str(trial): self._waits_at[trial] for trial in waiting}
        baseline = self._baseline
        if baseline is not None and baseline in waiting:
            if not fresh:
                self._recalled.add(baseline)
                return baseline
            if self._rule.is_young(self._waits_at[baseline]):
                del at[str(baseline)]
        trial = self._rule.promotable(at)
        if trial is None and not fresh:
            # As the agenda counts: finished or running; a diverged trial is not through.
            through = len(self._finished) + len(running)
            if through < self._finish_share * len(self._curves):
                trial = self._rule.second_look(at)
                self._recalled |= {int(trial)} if trial is not None else set()
        return None if trial is None else int(trial)


class Ours(Plain):
    """A sweep's own rule and sampler: where trials will end, by their ranks and settings, decides what comes next."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._predictor = Predictor(self._rule.shares(options.length_s))
        self._rule.predict = self._predictor.means
        self._first = options.first_picks

    def decide(self, trial: int, points: Sequence[Point], ready_s: float) -> Decision:
        decision = super().decide(trial, points, ready_s)
        if decision == "stop":
            self._predictor.fail(str(trial))
        elif trial in self._finished:
            self._predictor.finish(str(trial), min(point.wer for point in points))
        return decision

    def pick(self, fresh: Sequence[int], running: Collection[int], settings: Sequence[Settings]) -> int:
        chosen = fresh[0]
        if len(settings) - len(fresh) >= self._first and settings[chosen].place:
            places = np.array([settings[trial].place for trial in fresh])
            gains = self._predictor.gains(places, [str(trial) for trial in running])
            if gains is not None:
                chosen = fresh[int(np.argmax(gains))]
        if settings[chosen].place:
            self._predictor.place(str(chosen), np.array(settings[chosen].place))
        return chosen
