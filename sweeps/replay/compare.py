"""Compare pruning rules over many simulated searches, with an interval over the replays for every figure.

In: recorded curves and rules. Out: `RuleFigures` per rule and number of workers. `table` prints them.

The searches are paired: in one replay every rule gets the same curves in the same order. The intervals are over
replays, that is over the settings that a search draws, their orders and seeds: 95 % percentile bootstrap, all rules on
the same resamples. They say nothing about other corpora or models.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sweeps.replay.curves import Curve, draw
from sweeps.replay.rules import NamedRule
from sweeps.replay.simulate import Simulation, Timeline, floor_s, simulate, timeline

RESAMPLES = 2000
NEAR = 0.05
"""An incumbent counts as good as the best if its WER is higher by at most this share, or by a standard error."""
TOP = 0.1
"""The best settings are this share of all."""
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
    """The figures of one rule with one number of workers. Times are ratios of mean times.

    Attributes:
        time_vs_full: time to the target, as a share of the time of random search at full length.
        time_vs_loss_asha: the same against loss-only stock ASHA on the same rungs with the same reduction factor.
        floor_vs_full: the least time to the target that its evaluations allow, as a share of random search's time.
        wer_at_budget: the incumbent's WER when random search has done a quarter of its work.
        top_stopped: share of the best tenth of the settings that ended before their full length.
        stopped: share of all settings that ended before their full length.
        work_vs_full: worker-seconds of the whole sweep, as a share of random search's.
        reached: share of the replays in which it reached the target.
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
        floors_s: per label, the least seconds to the target, one per replay.
        targets: the WER to reach, one per replay.
    """

    workers: int
    figures: dict[str, RuleFigures]
    simulations: dict[str, list[Simulation]]
    target_s: dict[str, np.ndarray]
    floors_s: dict[str, np.ndarray]
    targets: np.ndarray


@dataclass(frozen=True)
class Setup:
    """What all searches of a comparison have in common.

    Attributes:
        replays: how many random orders of the settings.
        seed: of the orders and the bootstrap.
        every: interval of the evaluations beside those that a rule needs, as a share of the length.
        trials: settings of each replay, drawn at random; None for all.
        gap_s: seconds before a trial's first step.
    """

    replays: int
    seed: int = 0
    every: float = 0.25
    trials: int | None = None
    gap_s: float = 0.0


class Replays:
    """The curves of every replay, as each rule would see them.

    Args:
        settings: the curves by setting.
        setup: how many replays, and of what.
    """

    def __init__(self, settings: Sequence[Sequence[Curve]], setup: Setup) -> None:
        self.settings, self.setup = settings, setup
        self.draws = [draw(settings, setup.seed, replay, setup.trials) for replay in range(setup.replays)]
        self._timelines: dict[tuple[int, tuple[float, ...]], Timeline] = {}

    def timelines(self, replay: int, marks: Sequence[float]) -> list[Timeline]:
        """The evaluations of a replay's trials, in the order of proposal, for a rule with these marks."""
        timelines = []
        for curve in self.draws[replay]:
            key = (id(curve), tuple(marks))
            if key not in self._timelines:
                self._timelines[key] = timeline(curve, marks, self.setup.every)
            timelines.append(self._timelines[key])
        return timelines

    def target(self, replay: int) -> float:
        """The WER that counts as the best: above the lowest by 5 % or one standard error, the larger.

        The standard error is the median over the settings within 5 %, or within their own standard error, of the best.
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


def compare(replays: Replays, rules: Sequence[NamedRule], workers: int) -> Comparison:
    """Compare all rules with one number of workers.

    Args:
        replays: the curves of every replay.
        rules: `full` and every rule's peer among them.
        workers: trials side by side.
    """
    targets = np.array([replays.target(replay) for replay in range(len(replays.draws))])
    simulations = {rule.label: _simulations(replays, rule, workers) for rule in rules}
    floors_s = {rule.label: _floors_s(replays, rule, workers, targets) for rule in rules}
    target_s = _target_s(simulations, targets)
    simulated = Comparison(workers, {}, simulations, target_s, floors_s, targets)
    return replace(simulated, figures=_figures(replays, rules, simulated))


def _simulations(replays: Replays, rule: NamedRule, workers: int) -> list[Simulation]:
    marks, gap_s = rule.new_rule().marks, replays.setup.gap_s
    return [
        simulate(rule.new_rule(), replays.timelines(replay, marks), workers, gap_s)
        for replay in range(len(replays.draws))
    ]


def _floors_s(replays: Replays, rule: NamedRule, workers: int, targets: np.ndarray) -> np.ndarray:
    marks, gap_s = rule.new_rule().marks, replays.setup.gap_s
    # Without a mark nothing is stopped, and the floor is the least time with whole trials.
    first = marks[0] if marks else math.inf
    return np.array(
        [
            floor_s(replays.timelines(replay, marks), workers, first, target, gap_s)
            for replay, target in enumerate(targets)
        ]
    )


def _target_s(simulations: dict[str, list[Simulation]], targets: np.ndarray) -> dict[str, np.ndarray]:
    """Seconds to the target by label, one per replay."""
    full_s = np.array([run.reached_s(target) for run, target in zip(simulations["full"], targets, strict=True)])
    target_s = {}
    for label, runs in simulations.items():
        reached = np.array([run.reached_s(target) for run, target in zip(runs, targets, strict=True)])
        # A sweep that ended without it has to be run again, at full length.
        target_s[label] = np.where(np.isfinite(reached), reached, np.array([run.end_s for run in runs]) + full_s)
    return target_s


def _figures(replays: Replays, rules: Sequence[NamedRule], simulated: Comparison) -> dict[str, RuleFigures]:
    """Compute the figures of each rule from a comparison that lacks only these."""
    target_s, full = simulated.target_s, simulated.simulations["full"]
    top = [replays.top(replay) for replay in range(len(replays.draws))]
    budget_s = [BUDGET * run.end_s for run in full]
    full_work = np.array([run.work_s for run in full])
    sample = Resamples(len(replays.draws), replays.setup.seed)
    figures = {}
    for rule in rules:
        label, runs = rule.label, simulated.simulations[rule.label]
        figures[label] = RuleFigures(
            time_vs_full=sample.ratio(target_s[label], target_s["full"]),
            time_vs_loss_asha=sample.ratio(target_s[label], target_s[rule.peer.label]),
            floor_vs_full=sample.ratio(simulated.floors_s[label], target_s["full"]),
            wer_at_budget=sample.mean([run.wer_at(at) for run, at in zip(runs, budget_s, strict=True)]),
            top_stopped=sample.mean([len(run.stopped & best) / len(best) for run, best in zip(runs, top, strict=True)]),
            stopped=sample.mean([len(run.stopped) / len(replays.draws[0]) for run in runs]),
            work_vs_full=sample.ratio(np.array([run.work_s for run in runs]), full_work),
            reached=statistics.fmean(
                math.isfinite(run.reached_s(target)) for run, target in zip(runs, simulated.targets, strict=True)
            ),
        )
    return figures


class Resamples:
    """The replays drawn again with replacement, `RESAMPLES` times; the same draws for all rules and figures."""

    def __init__(self, replays: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._shares = rng.multinomial(replays, np.full(replays, 1 / replays), size=RESAMPLES) / replays

    def mean(self, values: Sequence[float]) -> Estimate:
        """The mean of one value per replay."""
        return _estimate(float(np.mean(values)), self._shares @ np.asarray(values, dtype=float))

    def ratio(self, above: np.ndarray, below: np.ndarray) -> Estimate:
        """The ratio of two means, replay by replay on the same draws."""
        return _estimate(float(above.mean() / below.mean()), (self._shares @ above) / (self._shares @ below))


def _estimate(mean: float, resampled: np.ndarray) -> Estimate:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Estimate(mean, float(low), float(high))
