"""Compare rules over many simulated searches: per rule its figures, each with an interval over the replays.

In: recorded curves and rules. Out: `RuleFigures` per rule and number of workers. `sweeps.replay` prints them.

The searches are paired: in one replay every rule gets the same curves in the same order. The intervals are over
replays, that is over which settings a search draws, their orders and seeds: 95 % percentile bootstrap, all rules on the
same resamples. They are not over other corpora or models.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sweeps.replay.curves import Curve, draw
from sweeps.replay.rules import NamedRule
from sweeps.replay.simulate import Simulation, Timeline, floor_s, simulate, timeline

RESAMPLES = 2000
NEAR = 0.05
"""An incumbent so much above the best WER, relatively, is as good; so is one within a standard error."""
TOP = 0.1
BUDGET = 0.25
"""The fixed budget, as a share of the time of random search at full length."""


@dataclass(frozen=True)
class Estimate:
    """A mean over replays, with its 95 % interval."""

    mean: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        return f"{self.mean:{spec}} ({self.low:{spec}}-{self.high:{spec}})"


@dataclass(frozen=True)
class RuleFigures:
    """How a rule did with one number of workers. Times are ratios of mean times.

    Attributes:
        time_vs_full: its time to the target as a share of random search's at full length.
        time_vs_loss_asha: the same of loss-only stock ASHA's on the same rungs with the same reduction factor.
        floor_vs_full: of the least time that its evaluations allow.
        wer_at_budget: the incumbent's WER when random search has done a quarter of its work.
        top_stopped: share of the best tenth of the settings that ended before their full length.
        stopped: share of all settings that did.
        work_vs_full: worker-seconds of the whole sweep as a share of random search's.
        reached: share of the replays in which it came to the target at all.
    """

    time_vs_full: Estimate
    time_vs_loss_asha: Estimate
    floor_vs_full: Estimate
    wer_at_budget: Estimate
    top_stopped: Estimate
    stopped: Estimate
    work_vs_full: Estimate
    reached: float


@dataclass(frozen=True)
class Comparison:
    """All rules with one number of workers.

    Attributes:
        workers: trials side by side.
        figures: by the rule's label.
        simulations: by the rule's label, one per replay.
        target_s: per label, seconds to the target, one per replay.
        floors_s: per label, the least seconds to it.
        targets: the WER that counts as found, one per replay.
    """

    workers: int
    figures: dict[str, RuleFigures]
    simulations: dict[str, list[Simulation]]
    target_s: dict[str, np.ndarray]
    floors_s: dict[str, np.ndarray]
    targets: np.ndarray


class Replays:
    """The curves of every replay, as each rule would see them.

    Args:
        settings: the curves by setting.
        replays: how many orders.
        seed: of the orders.
        every: evaluations come so often beside those that a rule needs, as a share of the length.
        trials: settings of each replay, drawn at random; None for all.
    """

    def __init__(
        self,
        settings: Sequence[Sequence[Curve]],
        replays: int,
        seed: int,
        every: float,
        trials: int | None = None,
    ) -> None:
        self.draws = [draw(settings, seed, replay, trials) for replay in range(replays)]
        self._every = every
        self._courses: dict[tuple[int, tuple[float, ...]], Timeline] = {}

    def timelines(self, replay: int, marks: Sequence[float]) -> list[Timeline]:
        found = []
        for curve in self.draws[replay]:
            key = (id(curve), tuple(marks))
            if key not in self._courses:
                self._courses[key] = timeline(curve, marks, self._every)
            found.append(self._courses[key])
        return found

    def target(self, replay: int) -> float:
        """The WER that counts as the best: within 5 % or one standard error of it, the larger.

        The standard error is the median over the settings that are within 5 % or their own one of the best.
        """
        wers = [one.wer for one in self.timelines(replay, ())]
        best = min(wers)
        spread = [
            curve.wer_se
            for curve, wer in zip(self.draws[replay], wers, strict=True)
            if wer - best <= max(NEAR * best, curve.wer_se)
        ]
        return best + max(NEAR * best, statistics.median(spread))

    def top(self, replay: int) -> set[int]:
        """The best tenth by WER at full length, as places in the order of proposal."""
        wers = [one.wer for one in self.timelines(replay, ())]
        return set(sorted(range(len(wers)), key=wers.__getitem__)[: math.ceil(TOP * len(wers))])


def compare(field: Replays, named: Sequence[NamedRule], workers: int, gap_s: float, seed: int) -> Comparison:
    """Compare all rules with one number of workers.

    Args:
        field: the replays.
        entries: the rules, `full` and every rule's peer among them.
        workers: trials side by side.
        gap_s: seconds before a trial's first step.
        seed: of the bootstrap.
    """
    replays = range(len(field.draws))
    targets = np.array([field.target(replay) for replay in replays])
    top = [field.top(replay) for replay in replays]
    simulations: dict[str, list[Simulation]] = {}
    floors: dict[str, np.ndarray] = {}
    for named_rule in named:
        marks = named_rule.new_rule().marks
        runs = [simulate(named_rule.new_rule(), field.timelines(replay, marks), workers, gap_s) for replay in replays]
        # Without a mark nothing is stopped, and the floor is the least time with whole trials.
        first = marks[0] if marks else math.inf
        bounds = [floor_s(field.timelines(r, marks), workers, first, targets[r], gap_s) for r in replays]
        simulations[named_rule.label], floors[named_rule.label] = runs, np.array(bounds)
    target_s: dict[str, np.ndarray] = {}
    full_s = np.array([run.reached_s(target) for run, target in zip(simulations["full"], targets, strict=True)])
    for label, runs in simulations.items():
        reached = np.array([run.reached_s(target) for run, target in zip(runs, targets, strict=True)])
        # A sweep that ended without it has to be run again, at full length.
        target_s[label] = np.where(np.isfinite(reached), reached, np.array([run.end_s for run in runs]) + full_s)
    budget_s = [BUDGET * run.end_s for run in simulations["full"]]
    full_work = np.array([run.work_s for run in simulations["full"]])
    sample = Resamples(len(replays), seed)
    found = {}
    for named_rule in named:
        runs = simulations[named_rule.label]
        found[named_rule.label] = RuleFigures(
            time_vs_full=sample.ratio(target_s[named_rule.label], target_s["full"]),
            time_vs_loss_asha=sample.ratio(target_s[named_rule.label], target_s[named_rule.peer.label]),
            floor_vs_full=sample.ratio(floors[named_rule.label], target_s["full"]),
            wer_at_budget=sample.mean([run.wer_at(at) for run, at in zip(runs, budget_s, strict=True)]),
            top_stopped=sample.mean([len(run.stopped & best) / len(best) for run, best in zip(runs, top, strict=True)]),
            stopped=sample.mean([len(run.stopped) / len(field.draws[0]) for run in runs]),
            work_vs_full=sample.ratio(np.array([run.work_s for run in runs]), full_work),
            reached=statistics.fmean(
                math.isfinite(run.reached_s(target)) for run, target in zip(runs, targets, strict=True)
            ),
        )
    return Comparison(workers, found, simulations, target_s, floors, targets)


class Resamples:
    """The replays drawn again with replacement, `RESAMPLES` times; the same draws for everything that is compared."""

    def __init__(self, replays: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._shares = rng.multinomial(replays, np.full(replays, 1 / replays), size=RESAMPLES) / replays

    def mean(self, values: Sequence[float]) -> Estimate:
        """The mean of one value per replay."""
        return _figure(float(np.mean(values)), self._shares @ np.asarray(values, dtype=float))

    def ratio(self, above: np.ndarray, below: np.ndarray) -> Estimate:
        """The ratio of two means, replay by replay on the same draws."""
        return _figure(float(above.mean() / below.mean()), (self._shares @ above) / (self._shares @ below))


def _figure(mean: float, resampled: np.ndarray) -> Estimate:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Estimate(mean, float(low), float(high))
