"""Compare pruning rules over many simulated searches, with an interval for every figure.

In: recorded curves and rules. Out: `RuleFigures` per rule and number of workers. `table` prints them.

The searches are paired: in one replay every rule gets the same curves in the same order. The intervals count as chance
the settings of the table, their orders and seeds (see `intervals`). They say nothing about other corpora or models.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sweeps.replay.curves import BASELINE, Curve, draw
from sweeps.replay.intervals import KEPT, Column, Estimate, estimate, share
from sweeps.replay.rules import NamedRule
from sweeps.replay.simulate import Simulation, Timeline, floor_s, simulate, timeline

NEAR = 0.05
"""An incumbent counts as good as the best if its WER is higher by at most this share, or by a standard error."""
TOP = 0.1
"""The best settings are this share of all."""
STOCK = "asha_wer_2"
"""The stock rule that ours has to beat."""


@dataclass(frozen=True)
class RuleFigures:
    """The figures of one rule with one number of workers. Times are ratios of mean times.

    Attributes:
        time_vs_full: time to the target, as a share of the time of random search at full length.
        time_vs_wer_asha: the same against stock ASHA on WER with reduction 2.
        time_vs_loss_asha: the same against loss-only stock ASHA on the same rungs with the same reduction factor.
        floor_vs_full: the least time to the target that its evaluations allow with the settings in random order, as a
            share of random search's time. A rule that picks the next setting can be faster.
        least_vs_full: the same for a search that knows beforehand which setting gets there soonest. None is faster.
        wer_at_quarter: the incumbent's WER after a quarter of the time that random search takes for the whole sweep.
        wer_at_half: the same after half of that time.
        top_stopped: share of the best tenth of the settings that ended before their full length.
        stopped: share of all settings that ended before their full length.
        work_vs_full: worker-seconds of the whole sweep, as a share of random search's.
        reached: share of the replays in which it reached the target.
    """

    time_vs_full: Estimate
    time_vs_wer_asha: Estimate
    time_vs_loss_asha: Estimate
    floor_vs_full: Estimate
    least_vs_full: Estimate
    wer_at_quarter: Estimate
    wer_at_half: Estimate
    top_stopped: Estimate
    stopped: Estimate
    work_vs_full: Estimate
    reached: float


SHARES = ("top_stopped", "stopped")


@dataclass(frozen=True)
class Comparison:
    """All rules with one number of workers.

    Attributes:
        workers: trials side by side.
        figures: by the rule's label.
        simulations: by the rule's label, one per replay.
        target_s: per label, seconds to the target, one per replay.
        floors_s: per label, the least seconds to the target with the settings in random order, one per replay.
        least_s: the same with the best setting first.
        targets: the WER to reach, one per replay.
    """

    workers: int
    figures: dict[str, RuleFigures]
    simulations: dict[str, list[Simulation]]
    target_s: dict[str, np.ndarray]
    floors_s: dict[str, np.ndarray]
    least_s: dict[str, np.ndarray]
    targets: np.ndarray


@dataclass(frozen=True)
class Setup:
    """What all searches of a comparison have in common.

    Attributes:
        replays: how many random orders of the settings.
        seed: of the orders and the parts.
        every: interval of the evaluations beside those that a rule needs, as a share of the length.
        trials: settings of each replay, drawn at random; None for all.
        gap_s: seconds before a trial's first step.
        resamples: parts of the settings that are replayed too, for the intervals.
        part_replays: replays of each part.
    """

    replays: int
    seed: int = 0
    every: float = 0.25
    trials: int | None = None
    gap_s: float = 0.0
    resamples: int = 0
    part_replays: int = 4


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

    def parts(self) -> list[Replays]:
        """Replays of random parts of the settings, for the intervals; the baseline is in every part."""
        first = [seeds for seeds in self.settings if seeds[0].source == BASELINE]
        rest = [seeds for seeds in self.settings if seeds[0].source != BASELINE]
        rng = np.random.default_rng((self.setup.seed, self.setup.resamples))
        chosen = [rng.permutation(len(rest))[: round(KEPT * len(rest))] for _ in range(self.setup.resamples)]
        setup = replace(self.setup, replays=self.setup.part_replays, resamples=0)
        return [
            Replays([*first, *(rest[place] for place in places)], replace(setup, seed=self.setup.seed + number))
            for number, places in enumerate(chosen, start=1)
        ]

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
        rules: `full`, `STOCK` and every rule's peer among them.
        workers: trials side by side.
    """
    simulated = _simulated(replays, rules, workers)
    whole = _columns(replays, rules, simulated)
    parts = [_columns(part, rules, _simulated(part, rules, workers)) for part in replays.parts()]
    figures = {}
    for rule in rules:
        found = {
            name: (share if name in SHARES else estimate)(column, [part[rule.label][name] for part in parts])
            for name, column in whole[rule.label].items()
        }
        reached = [
            math.isfinite(run.reached_s(target))
            for run, target in zip(simulated.simulations[rule.label], simulated.targets, strict=True)
        ]
        figures[rule.label] = RuleFigures(**found, reached=statistics.fmean(reached))
    return replace(simulated, figures=figures)


def _simulated(replays: Replays, rules: Sequence[NamedRule], workers: int) -> Comparison:
    """A comparison that lacks only its figures."""
    targets = np.array([replays.target(replay) for replay in range(len(replays.draws))])
    simulations = {rule.label: _simulations(replays, rule, workers) for rule in rules}
    floors_s = {rule.label: _floors_s(replays, rule, workers, targets) for rule in rules}
    least_s = {rule.label: _least_s(replays, rule, targets) for rule in rules}
    return Comparison(workers, {}, simulations, _target_s(simulations, targets), floors_s, least_s, targets)


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


def _least_s(replays: Replays, rule: NamedRule, targets: np.ndarray) -> np.ndarray:
    """As the floors, with a worker for each setting, so that the best begins at once."""
    marks, gap_s = rule.new_rule().marks, replays.setup.gap_s
    drawn = [replays.timelines(replay, marks) for replay in range(len(replays.draws))]
    return np.array(
        [floor_s(one, len(one), math.inf, target, gap_s) for one, target in zip(drawn, targets, strict=True)]
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


def _columns(replays: Replays, rules: Sequence[NamedRule], simulated: Comparison) -> dict[str, dict[str, Column]]:
    """What the figures of each rule are made from, by label and figure."""
    target_s, full = simulated.target_s, simulated.simulations["full"]
    top = [replays.top(replay) for replay in range(len(replays.draws))]
    full_work = np.array([run.work_s for run in full])

    def wer_at(runs: Sequence[Simulation], part: float) -> Column:
        return Column(np.array([run.wer_at(part * whole.end_s) for run, whole in zip(runs, full, strict=True)]))

    columns = {}
    for rule in rules:
        runs, time_s = simulated.simulations[rule.label], target_s[rule.label]
        lost = [len(run.stopped & best) / len(best) for run, best in zip(runs, top, strict=True)]
        columns[rule.label] = {
            "time_vs_full": Column(time_s, target_s["full"]),
            "time_vs_wer_asha": Column(time_s, target_s[STOCK]),
            "time_vs_loss_asha": Column(time_s, target_s[rule.peer.label]),
            "floor_vs_full": Column(simulated.floors_s[rule.label], target_s["full"]),
            "least_vs_full": Column(simulated.least_s[rule.label], target_s["full"]),
            "wer_at_quarter": wer_at(runs, 0.25),
            "wer_at_half": wer_at(runs, 0.5),
            "top_stopped": Column(np.array(lost)),
            "stopped": Column(np.array([len(run.stopped) / len(replays.draws[0]) for run in runs])),
            "work_vs_full": Column(np.array([run.work_s for run in runs]), full_work),
        }
    return columns
