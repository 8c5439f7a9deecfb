"""Simulate one search on a virtual clock: a rule, settings in the order of their proposal, and workers.

In: the evaluations that a sweep would make of each curve, with the seconds that they take. Out: the lowest WER over
time, the work done, the trials stopped; and a lower bound of the time. `compare` and `savings` run many of them.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

from sweeps.pruning.rule import Point
from sweeps.replay.curves import Curve
from sweeps.replay.policy import PruningRule


@dataclass(frozen=True)
class Timeline:
    """The evaluations that a sweep makes of a curve.

    Attributes:
        points: the evaluations, the last one at the trial's end.
        at_s: when each is known, in seconds of a worker's time since the trial's start.
        ready_s: after this many seconds of audio the trial can be compared.
        place: its settings as numbers, see `places`; empty if they are not known.
    """

    points: tuple[Point, ...]
    at_s: tuple[float, ...]
    ready_s: float
    place: tuple[float, ...] = ()

    @property
    def wer(self) -> float:
        """The trial's WER at full length: the lowest of its checkpoints, by which it is selected."""
        return min(point.wer for point in self.points)


def timeline(curve: Curve, marks: Sequence[float], every: float) -> Timeline:
    """Take the evaluations of a curve that a sweep would make.

    These are the first recorded point at or after each mark, and the last point.

    Args:
        curve: the complete curve.
        marks: seconds of audio at which a rule needs an evaluation.
        every: interval of the other evaluations, as a share of the length; 0 for every recorded point.
    """
    seen = [point.seen_s for point in curve.points]
    if every:
        grid = [share * every * curve.length_s for share in range(1, math.ceil(1 / every))]
        wanted = {next((n for n, s in enumerate(seen) if s >= mark), len(seen) - 1) for mark in (*grid, *marks)}
    else:
        wanted = set(range(len(seen)))
    chosen = sorted(wanted | {len(seen) - 1})
    at_s = tuple(curve.train_s[index] + curve.eval_s * (done + 1) for done, index in enumerate(chosen))
    points = tuple(curve.points[i] for i in chosen)
    return Timeline(points, at_s, curve.ready_s, curve.place)


@dataclass(frozen=True)
class Simulation:
    """What happened in one simulated search. Times are in seconds of the virtual clock.

    Attributes:
        incumbents: each time at which a new lowest WER was known, with that WER.
        end_s: when the last worker was done.
        work_s: seconds that workers were busy, added up.
        stopped: the trials that did not reach their full length, also those still paused.
    """

    incumbents: list[tuple[float, float]]
    end_s: float
    work_s: float
    stopped: frozenset[int]

    def reached_s(self, wer: float) -> float:
        """When the incumbent was at or under a WER; infinity if it never was."""
        return next((at for at, known in self.incumbents if known <= wer), math.inf)

    def wer_at(self, time_s: float) -> float:
        """The incumbent's WER at a time; 1 before the first evaluation."""
        return min([1.0, *(known for at, known in self.incumbents if at <= time_s)])


def simulate(rule: PruningRule, timelines: Sequence[Timeline], workers: int, gap_s: float = 0.0) -> Simulation:
    """Run one search with one rule on the virtual clock.

    A free worker takes the paused trial that the rule resumes, else the fresh setting that it picks. If it has neither,
    it looks again after every evaluation. When all workers are idle, the trials that are still paused end.

    Args:
        rule: a new one, which has seen no evaluation yet.
        timelines: the settings in the order of their proposal.
        workers: how many trials run side by side.
        gap_s: seconds before a trial's first step, each time that a worker takes one.
    """
    done = [0] * len(timelines)
    waiting: list[int] = []
    running: set[int] = set()
    events: list[tuple[float, int, int]] = []
    incumbents: list[tuple[float, float]] = []
    finished: set[int] = set()
    fresh = list(range(len(timelines)))
    serial, now, best, work_s = 0, 0.0, math.inf, 0.0

    def go_on(trial: int, delay_s: float) -> None:
        nonlocal serial, work_s
        at_s, number = timelines[trial].at_s, done[trial]
        takes_s = delay_s + at_s[number] - (at_s[number - 1] if number else 0.0)
        work_s += takes_s
        serial += 1
        heapq.heappush(events, (now + takes_s, serial, trial))

    while True:
        while len(running) < workers:
            trial = rule.resume(waiting, running, len(fresh))
            if trial is not None:
                waiting.remove(trial)
            elif fresh:
                trial = rule.pick(fresh, running, timelines)
                fresh.remove(trial)
            else:
                break
            running.add(trial)
            go_on(trial, gap_s)
        if not events:
            return Simulation(incumbents, now, work_s, frozenset(range(len(timelines))) - finished)
        now, _, trial = heapq.heappop(events)
        taken = timelines[trial]
        done[trial] += 1
        points = taken.points[: done[trial]]
        if points[-1].wer < best:
            best = points[-1].wer
            incumbents.append((now, best))
        decision = rule.decide(trial, points, taken.ready_s)
        if done[trial] == len(taken.points):
            finished.add(trial)
        elif decision == "go":
            go_on(trial, 0.0)
            continue
        elif decision == "pause":
            waiting.append(trial)
        running.remove(trial)


def floor_s(timelines: Sequence[Timeline], workers: int, mark: float, wer: float, gap_s: float = 0.0) -> float:
    """The least seconds to a WER, for any rule that stops nothing before a mark.

    Such a rule takes the settings in the given order on the first free worker, each at least to its first evaluation at
    the mark. If it knew the future, it would stop every setting there except the one that reaches the WER soonest. So
    the floor is a minimum over the settings that reach the WER: the start in that schedule plus the setting's own
    seconds to its first evaluation at or under the WER. No such rule is faster. A rule as fast was lucky: at the mark
    it cannot know which setting is the best.

    Args:
        timelines: the settings in the order of their proposal.
        workers: how many trials run side by side.
        mark: in seconds of audio; infinity if every trial runs to its end.
        wer: the WER to reach; one of the settings must reach it.
        gap_s: seconds before a trial's first step.
    """
    free = [0.0] * workers
    least = math.inf
    for one in timelines:
        start = heapq.heappop(free) + gap_s
        reached = next((at for at, point in zip(one.at_s, one.points, strict=True) if point.wer <= wer), math.inf)
        least = min(least, start + reached)
        stop = next((n for n, point in enumerate(one.points) if point.seen_s >= mark), len(one.points) - 1)
        heapq.heappush(free, start + one.at_s[stop])
    return least
