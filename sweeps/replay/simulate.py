"""Simulate one search on a virtual clock: a rule, settings in the order of their proposal, and workers.

In: the evaluations that a sweep would make of each curve, with the seconds that they take. Out: what was known when,
the work done, who was stopped; and the least time that arithmetic allows. `sweeps.replay.compare` runs many of them.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

from sweeps.pruning.rule import Point
from sweeps.replay.curves import BASELINE, Curve
from sweeps.replay.rules import PruningRule


@dataclass(frozen=True)
class Timeline:
    """The evaluations that a sweep makes of a curve.

    Attributes:
        points: the evaluations, the last one at the trial's end.
        at_s: when each is known, in seconds of a worker's time since the trial's start.
        ready_s: since when the trial can be compared, in seconds of audio.
        kept: it is never pruned.
    """

    points: tuple[Point, ...]
    at_s: tuple[float, ...]
    ready_s: float
    kept: bool

    @property
    def wer(self) -> float:
        """The trial's WER at full length: the lowest of its checkpoints, by which it is selected."""
        return min(point.wer for point in self.points)


def timeline(curve: Curve, marks: Sequence[float], every: float) -> Timeline:
    """What a sweep sees of a curve, by the first recorded point at or after each mark, and by the last one.

    Args:
        curve: the complete curve.
        marks: seconds of audio at which a rule needs an evaluation.
        every: others come so often, as a share of the length; 0 for every recorded point.
    """
    seen = [point.seen_s for point in curve.points]
    if every:
        grid = [share * every * curve.length_s for share in range(1, math.ceil(1 / every))]
        wanted = {next((n for n, s in enumerate(seen) if s >= mark), len(seen) - 1) for mark in (*grid, *marks)}
    else:
        wanted = set(range(len(seen)))
    chosen = sorted(wanted | {len(seen) - 1})
    at_s = tuple(curve.train_s[index] + curve.eval_s * (done + 1) for done, index in enumerate(chosen))
    return Timeline(tuple(curve.points[i] for i in chosen), at_s, curve.ready_s, curve.source == BASELINE)


@dataclass(frozen=True)
class Simulation:
    """What happened in one simulated search. Times are in seconds of the virtual clock.

    Attributes:
        incumbents: when a lower WER than any before was known, and that WER.
        end_s: when the last worker was done.
        work_s: seconds that workers were busy, added up.
        stopped: the trials that did not come to their end, those still paused among them.
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


def simulate(new_rule: PruningRule, timelines: Sequence[Timeline], workers: int, gap_s: float = 0.0) -> Simulation:
    """Race one rule.

    A free worker takes what the rule resumes, else a fresh setting; where neither is there it looks again after every
    evaluation. When all workers are idle, what is still paused ends.

    Args:
        new_rule: the rule, which knows nothing yet.
        courses: the settings in the order of their proposal.
        workers: how many trials run side by side.
        gap_s: seconds before a trial's first step, each time that a worker takes one.
    """
    done = [0] * len(timelines)
    waiting: list[int] = []
    running: set[int] = set()
    events: list[tuple[float, int, int]] = []
    incumbents: list[tuple[float, float]] = []
    finished: set[int] = set()
    fresh, serial, now, best, work_s = 0, 0, 0.0, math.inf, 0.0

    def go_on(trial: int, delay_s: float) -> None:
        nonlocal serial, work_s
        at_s, number = timelines[trial].at_s, done[trial]
        takes_s = delay_s + at_s[number] - (at_s[number - 1] if number else 0.0)
        work_s += takes_s
        serial += 1
        heapq.heappush(events, (now + takes_s, serial, trial))

    while True:
        while len(running) < workers:
            trial = new_rule.resume(waiting, running, len(timelines) - fresh)
            if trial is not None:
                waiting.remove(trial)
            elif fresh < len(timelines):
                trial, fresh = fresh, fresh + 1
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
        answer = new_rule.report(trial, points, taken.ready_s)
        if done[trial] == len(taken.points):
            finished.add(trial)
        elif answer == "go" or taken.kept:
            go_on(trial, 0.0)
            continue
        elif answer == "pause":
            waiting.append(trial)
        running.remove(trial)


def floor_s(timelines: Sequence[Timeline], workers: int, mark: float, wer: float, gap_s: float = 0.0) -> float:
    """The least seconds to a WER, for any rule that stops nothing before a mark.

    Such a rule takes the settings in the given order on the first free worker, each to its first evaluation at the mark
    at least, and the baseline to its end. If it knew the future, it would stop all others there and run only that one
    through which gets to the WER soonest. So the floor is the least, over the settings that get there, of their start
    in that schedule and their own seconds to the first evaluation at or under the WER. No such rule is faster; one as
    fast has been lucky, since at the mark nobody knows which setting that is.

    Args:
        courses: the settings in the order of their proposal.
        workers: how many trials run side by side.
        mark: in seconds of audio; infinity where every trial runs to its end.
        wer: to be reached. One of the settings must.
        gap_s: seconds before a trial's first step.
    """
    free = [0.0] * workers
    least = math.inf
    for one in timelines:
        start = heapq.heappop(free) + gap_s
        reached = next((at for at, point in zip(one.at_s, one.points, strict=True) if point.wer <= wer), math.inf)
        least = min(least, start + reached)
        stop = next((n for n, point in enumerate(one.points) if point.seen_s >= mark), len(one.points) - 1)
        heapq.heappush(free, start + one.at_s[-1 if one.kept else stop])
    return least
