"""Whole sweeps on a virtual clock, where a search may go anywhere in the space: ours against the stock pattern.

    python benchmarks/simulated_sweeps.py [--ours NAME=VALUE,...]... [--seeds 6] [--stock-gap 0.8] [--json FILE]

A replay (`python -m sweeps.replay`) only chooses among the settings of a table. A sampler that stays where it happened
to begin looks good there, since the next setting that was recorded is always somewhere else. So here each table is made
into a model that has a curve for any setting (`modelled_world`), and a sweep proposes as a real one does: by the code
of a sweep (`Study`, `Rule`, `Predictor`), with the baseline first.

`stock` is Optuna's TPE with its defaults and Ray's ASHA on WER, reduction 2 from a fifth of the length; a stopped trial
reports its last WER to TPE, as `OptunaSearch` does. `optuna` is TPE with Optuna's MedianPruner, both with its defaults;
`random` trains random settings to their end. `--ours` gives settings that differ from the shipped ones, such as
`search.sampler=tpe,pruning.rank_by=blend`; repeat it for more. Two workers, a clock of 13 trials' lengths each, an
evaluation takes 3 % of a length. `--stock-gap` is what the stock pattern loses at each trial's start, in lengths: 0 as
for trials of hours; 0.8 as in the race of the demo, where a trial takes some 27 s, and a Ray Train run of its own 23 s
(`python benchmarks/turnaround.py`).

Printed, against `stock` on the same seed and world: the time until its final WER was reached, over the time at which it
reached it itself (a run that never does counts with the whole clock); the difference of the lowest WER at the end; and
over time (the mean difference of the logarithms, from three lengths on). Means over worlds and seeds with standard
errors. It takes about a minute a contestant on two cores.
"""

from __future__ import annotations

import argparse
import functools
import heapq
import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import bench
import numpy as np
import optuna
from modelled_world import AGES, Kind, ModelledWorld

from hausa_asr.settings.load import load
from sweeps.driver.sweep import predictor_of
from sweeps.pruning.rule import Point, Rule, score
from sweeps.pruning.rungs import rungs
from sweeps.record.trial import BASELINE, Report, TrialRecord
from sweeps.replay.stock import StockAsha
from sweeps.sampling.space import propose
from sweeps.sampling.study import Study

DEMO = bench.ROOT / "sweeps/configs/demo.yaml"
CONFIGS = {"free_convolutions": bench.ROOT / "benchmarks/worlds/free_convolutions.yaml"}
TABLES = ("big", "demo", "demo_long", "few", "free_convolutions", "noisy", "yoruba")
KINDS: tuple[Kind, ...] = ("trees", "process")
CLOCK, WORKERS, EVALUATION, EVERY = 13.0, 2, 0.03, 0.5
"""In lengths of a trial; `EVERY` is the interval of the evaluations beside the rungs."""
FROM = 3.0
"""From this time on, WERs over time are compared."""


class Contestant(Protocol):
    """A search: which settings come next, and which trials go on."""

    marks: list[float]

    def propose(self, number: int) -> dict[str, Any]: ...

    def decide(self, number: int, points: list[Point]) -> bool: ...

    def resume(self) -> int | None: ...


class Ours:
    """A sweep's own sampler, rungs and predictor."""

    def __init__(self, world: ModelledWorld, seed: int, changes: tuple[str, ...]) -> None:
        more = [f"search.seed={seed}", "finetune.length_s=1", *changes]
        self._config = config = load(world.config_path, more, environment={})
        self.marks = rungs(1.0, config.pruning.first_rung, config.pruning.reduction)
        self._rule = Rule(self.marks, config.pruning.reduction, config.pruning.rank_by)
        self._study = Study(config, predictor=predictor_of(config, self._rule))
        self._trials: list[TrialRecord] = []

    def propose(self, number: int) -> dict[str, Any]:
        settings = dict(self._config.baseline) if not number else self._study.propose(number)
        assert settings is not None
        self._trials.append(TrialRecord(f"t{number:03d}", settings, "search" if number else BASELINE))
        self._study.update(self._trials[-1])
        return settings

    def decide(self, number: int, points: list[Point]) -> bool:
        trial, last = self._trials[number], points[-1]
        trial.state = "running"
        metrics = {"loss": last.loss, "wer": last.wer, "cer": last.cer}
        trial.reports.append(Report(len(points), 0, last.seen_s, metrics, {"wer": min(one.wer for one in points)}))
        goes_on = True
        if last.seen_s >= 1.0:
            trial.state = "finished"
        else:
            for rung in self._rule.due(trial.id, last.seen_s, 0.0):
                self._rule.record(rung, trial.id, score(points))
                waits = trial.is_baseline and self._rule.is_young(rung)
                goes_on = self._rule.rank(rung, trial.id).passed and not waits
                if not goes_on:
                    trial.state, trial.waits_at = "paused", rung
        self._study.update(trial)
        return goes_on

    def resume(self) -> int | None:
        waiting = {
            one.id: one.waits_at
            for one in self._trials
            if one.state == "paused" and one.waits_at is not None
            and not (one.is_baseline and self._rule.is_young(one.waits_at))
        }  # fmt: skip
        found = self._rule.promotable(waiting)
        if found is None:
            return None
        number = int(found[1:])
        self._trials[number].state = "running"
        return number


class Stock:
    """Optuna's TPE and stock ASHA on WER."""

    def __init__(self, world: ModelledWorld, seed: int) -> None:
        self.marks = rungs(1.0, 0.2, 2)
        self._asha = StockAsha("wer", self.marks, 2)
        self._space = load(world.config_path, [], environment={}).space
        self._study = optuna.create_study(sampler=self._sampler(seed))
        self._asked: list[optuna.Trial] = []

    @staticmethod
    def _sampler(seed: int) -> optuna.samplers.BaseSampler:
        return optuna.samplers.TPESampler(seed=seed)

    def propose(self, number: int) -> dict[str, Any]:
        self._asked.append(self._study.ask())
        return propose(self._space, self._asked[-1])

    def decide(self, number: int, points: list[Point]) -> bool:
        ended = points[-1].seen_s >= 1.0
        goes_on = not ended and self._asha.decide(number, points, 0.0) == "go"
        if not goes_on:
            self._study.tell(self._asked[number], points[-1].wer)
        return goes_on

    def resume(self) -> int | None:
        return None


class Alone(Stock):
    """Optuna alone with its defaults: TPE, and its MedianPruner at the evaluations."""

    def __init__(self, world: ModelledWorld, seed: int) -> None:
        super().__init__(world, seed)
        self._study = optuna.create_study(sampler=self._sampler(seed), pruner=optuna.pruners.MedianPruner())

    def decide(self, number: int, points: list[Point]) -> bool:
        trial, last = self._asked[number], points[-1]
        trial.report(last.wer, len(points))
        if last.seen_s >= 1.0:
            self._study.tell(trial, min(one.wer for one in points))
            return False
        if trial.should_prune():
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return False
        return True


class Random(Stock):
    """Random settings, each to its end."""

    def __init__(self, world: ModelledWorld, seed: int) -> None:
        super().__init__(world, seed)
        self.marks = []

    @staticmethod
    def _sampler(seed: int) -> optuna.samplers.BaseSampler:
        return optuna.samplers.RandomSampler(seed=seed)

    def decide(self, number: int, points: list[Point]) -> bool:
        return points[-1].seen_s < 1.0


PEERS = {"random": Random, "optuna": Alone}


@dataclass(frozen=True)
class Run:
    """One simulated sweep: each time at which a new lowest WER was known, with that WER; trials begun and finished."""

    lowest: list[tuple[float, float]]
    begun: int
    finished: int

    def reached(self, wer: float) -> float:
        return next((at for at, known in self.lowest if known <= wer + 1e-9), CLOCK)

    def over_time(self) -> float:
        """The mean logarithm of the lowest WER."""
        times = np.linspace(FROM, CLOCK, 41)
        return float(np.mean([math.log(min([1.0, *(v for at, v in self.lowest if at <= time)])) for time in times]))


def run(world: ModelledWorld, search: Contestant, seed: int, gap: float) -> Run:
    """Run one search until the clock's end."""
    rng = np.random.default_rng(seed)
    marks = sorted({*search.marks, *np.arange(EVERY, 1.0, EVERY), 1.0})
    curves: list[list[Point]] = []
    done: list[int] = []
    events: list[tuple[float, int, int]] = []
    lowest: list[tuple[float, float]] = []
    now, best, busy, finished, serial = 0.0, math.inf, 0, 0, 0

    def train(trial: int, delay: float) -> None:
        nonlocal serial
        serial += 1
        since = marks[done[trial] - 1] if done[trial] else 0.0
        heapq.heappush(events, (now + delay + marks[done[trial]] - since + EVALUATION, serial, trial))

    while True:
        while busy < WORKERS:
            trial = search.resume()
            if trial is None:
                trial = len(curves)
                figures = world.curve(search.propose(trial), rng)
                curves.append([Point(at, *(float(np.interp(at, AGES, one)) for one in figures)) for at in marks])
                done.append(0)
            busy += 1
            train(trial, gap)
        now, _, trial = heapq.heappop(events)
        if now > CLOCK:
            return Run(lowest, len(curves), finished)
        done[trial] += 1
        points = curves[trial][: done[trial]]
        if points[-1].wer < best:
            best = points[-1].wer
            lowest.append((now, best))
        goes_on = search.decide(trial, points)
        finished += done[trial] == len(marks)
        if goes_on and done[trial] < len(marks):
            train(trial, 0.0)
        else:
            busy -= 1


@functools.cache
def world_of(table: str, kind: Kind) -> ModelledWorld:
    return ModelledWorld(bench.ROOT / f"benchmarks/curves/{table}.jsonl", CONFIGS.get(table, DEMO), kind)


def simulated(job: tuple[str, Kind, str, int, float]) -> Run:
    """One run, in a process of its own."""
    table, kind, label, seed, stock_gap = job
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    world = world_of(table, kind)
    if label == "stock":
        return run(world, Stock(world, seed), seed, stock_gap)
    if label in PEERS:
        return run(world, PEERS[label](world, seed), seed, 0.0)
    return run(world, Ours(world, seed, tuple(filter(None, label[5:].split(",")))), seed, 0.0)


def figures(runs: list[Run], stock: list[Run], worlds: int) -> dict[str, Any]:
    """One contestant's figures; runs are ordered by world, then by seed."""
    pairs = list(zip(runs, stock, strict=True))
    ends = np.array([(mine.lowest[-1][1], rival.lowest[-1][1]) for mine, rival in pairs])
    reached = [(mine.reached(end), rival.reached(end)) for (mine, rival), end in zip(pairs, ends[:, 1], strict=True)]
    times = -np.diff(np.log(reached))[:, 0]
    found = {
        "end": -np.diff(np.log(ends))[:, 0],
        "over_time": np.array([mine.over_time() - rival.over_time() for mine, rival in pairs]),
    }
    by_world = np.exp(times.reshape(worlds, -1).mean(1))
    return {
        "time": float(np.exp(times.mean())),
        "time_se": float(np.exp(times.mean()) * _error(times)),
        **{name: float(one.mean()) for name, one in found.items()},
        **{f"{name}_se": _error(one) for name, one in found.items()},
        "worst_time": float(by_world.max()),
        "begun": float(np.mean([one.begun for one in runs])),
        "finished": float(np.mean([one.finished for one in runs])),
    }


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--ours", action="append", default=[], metavar="NAME=VALUE,...", help="ours with other settings"
    )
    parser.add_argument("--table", action="append", choices=TABLES, help="only this table; can be repeated")
    parser.add_argument("--seeds", type=int, default=6, help="sweeps of each world (6)")
    parser.add_argument("--first-seed", type=int, default=0, help="where they begin; choose on some, report on others")
    parser.add_argument("--stock-gap", type=float, default=0.0, help="lengths that stock loses at a trial's start (0)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    worlds = [(table, kind) for table in given.table or TABLES for kind in KINDS]
    labels = ["stock", *PEERS, "ours", *(f"ours:{one}" for one in given.ours)]
    found, rows = {}, []
    with ProcessPoolExecutor(2) as pool:
        stock: list[Run] = []
        for label in labels:
            seeds = range(given.first_seed, given.first_seed + given.seeds)
            jobs = [(*world, label, seed, given.stock_gap) for world in worlds for seed in seeds]
            runs = list(pool.map(simulated, jobs, chunksize=given.seeds))
            stock = stock or runs
            one = found[label] = figures(runs, stock, len(worlds))
            rows.append([
                label, f"{one['time']:.2f} ±{one['time_se']:.2f}", f"{one['worst_time']:.2f}",
                *(f"{100 * one[key]:+.1f} % ±{100 * one[f'{key}_se']:.1f}" for key in ("end", "over_time")),
                f"{one['begun']:.0f}", f"{one['finished']:.0f}",
            ])  # fmt: skip
            print(f"{label} done", flush=True)
    head = ["", "time / stock", "worst world", "WER at the end", "WER over time", "begun", "finished"]
    print("\n" + bench.table(head, rows))
    bench.write(given.json, found)


if __name__ == "__main__":
    main()
