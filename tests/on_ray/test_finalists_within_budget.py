"""Finalists with a budget: what the search leaves them is theirs until the last seed is done.

A search and its finalists on a virtual clock: agenda, scheduler, rule, budget and ledger are real, and only training is
made up.
"""

from __future__ import annotations

import heapq
import math
from pathlib import Path

import numpy as np
import pytest

from hausa_asr.recipe import Progress
from helpers.events import report
from helpers.slots import Slots
from sweeps.on_ray.messages import Reported
from sweeps.on_ray.scheduler import SweepScheduler
from sweeps.planning.budget import spent
from sweeps.record.trial import TrialRecord

LENGTH_S, EVERY_S, PACE = 1_000.0, 50.0, 2.0
START_S = 150.0
"""What a slot takes to start, six times an interval, as on a small machine."""
FULL_S = LENGTH_S / PACE
"""Seconds that a slot is busy with a trial of full length, on the average."""
BUDGETS = {
    "hours": f"budget.hours={(11 * FULL_S + 2 * START_S) / 3600}",
    "money": f"budget={{money: {3 * (11 * FULL_S + 2 * START_S) / 3600}, price_per_hour: 3}}",
    "wall-clock": f"budget.wall_s={5.5 * FULL_S + START_S}",
}


class Clock:
    """The time of day, as the ledger and the budget ask for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1e9
        monkeypatch.setattr("time.time", lambda: self.now)


class Sweep(Slots):
    """Two slots that train nothing: each setting has a pace and a final WER of its own."""

    slots, start_s = 2, START_S

    def __init__(self, folder: Path, clock: Clock, draw: int, *changes: str) -> None:
        self.clock, self.draw = clock, draw
        of = (f"finetune.length_s={LENGTH_S}", "search.trials=30", "pruning.finish_share=0.4",
              "finalists={k: 2, seeds: 2}")  # fmt: skip
        super().__init__(folder, *of, *changes)

    def run(self, stop_after: int | None = None) -> None:
        """Run to the end, or until this many of the finalists' runs have finished; then the driver is gone."""
        scheduler = SweepScheduler(self.config, self.ledger, self.rule, self.agenda, lambda name: name)
        reports: list[tuple[float, str]] = []
        free, started, cold, ended = self.slots, 0, self.start_s, False
        while True:
            while free and not ended:
                order = self.order()
                ended = order.do == "end"  # for good: Tune asks no more
                if order.trial is None:
                    break
                heapq.heappush(reports, (self.clock.now + cold + EVERY_S / self.pace(order.trial), order.trial.id))
                free, started = free - 1, started + 1
                cold = self.start_s if started < self.slots else 0.0
            if not reports:
                assert self.agenda.is_done(), "else the sweep ends as if it were interrupted"
                self.agenda.finish()
                return
            self.clock.now, name = heapq.heappop(reports)
            trial = self.ledger.state.trials[name]
            if scheduler.judge(name, Reported(self.progress(trial))):
                heapq.heappush(reports, (self.clock.now + EVERY_S / self.pace(trial), name))
                continue
            self.agenda.back(trial)
            free += 1
            if stop_after == sum(run.state == "finished" for run in self.ledger.state.finalists):
                return

    def pace(self, trial: TrialRecord) -> float:
        """Seconds of audio per second; settings differ by up to a fifth, and runs of one setting a little."""
        number = int((trial.of or trial.id)[1:])
        setting = np.random.default_rng([self.draw, number]).uniform(0.8, 1.2)
        run = np.random.default_rng([self.draw, *trial.id.encode()]).normal(1, 0.02)
        return PACE * float(setting * run)

    def progress(self, trial: TrialRecord) -> Progress:
        """The trial's next report."""
        step = max(trial.last_step, 0) + int(EVERY_S / 10)
        number = int((trial.of or trial.id)[1:])
        final = np.random.default_rng([self.draw, 1_000, number]).uniform(0.1, 0.4) if number else 0.5
        wer = float(final + math.exp(-step / 20))
        made = report(step, wer, 3 * wer)
        made["metrics"]["audio_s_per_s"] = self.pace(trial)
        return Progress(**made, samples=[], checkpoint="", best_checkpoint="")

    def all_are_done(self) -> None:
        """Check that both seeds of the best two and of the baseline are finished, and within the budget."""
        state = self.ledger.state
        best = [trial.id for trial in state.ranking() if not trial.is_baseline][:2]
        ends = {run.id: (run.state, run.cause) for run in state.finalists}
        assert ends == {f"{name}-s{seed}": ("finished", "") for name in (*best, "t000") for seed in (1, 2)}
        # Where the search's last best is slower than others, its runs may take a little of the baseline's share.
        assert state.trials["t000"].seen_s >= 0.7 * LENGTH_S
        self.is_within_the_budget()

    def is_within_the_budget(self) -> None:
        """Check that a sweep has taken no more than an interval over its budget, and that the budget has ended it."""
        state, budget = self.ledger.state, self.config.budget
        took = spent(state, self.config)
        interval_s = self.slots * EVERY_S / PACE / 0.75
        assert budget.hours is None or took.hours <= budget.hours + interval_s / 3600
        assert budget.money is None or took.money <= budget.money + 3 * interval_s / 3600
        assert budget.wall_s is None or took.wall_s <= budget.wall_s + interval_s
        assert sum(trial.state == "finished" for trial in state.searched) >= 1 and len(state.searched) >= 4
        assert len(state.searched) < self.config.search.trials, "the budget has ended the search, and not the trials"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.mark.parametrize("draw", range(4))
@pytest.mark.parametrize("limit", BUDGETS)
def test_the_finalists_share_is_theirs_until_all_seeds_are_done(
    tmp_path: Path, clock: Clock, limit: str, draw: int
) -> None:
    sweep = Sweep(tmp_path, clock, draw, BUDGETS[limit])
    sweep.run()
    sweep.all_are_done()


@pytest.mark.parametrize("draw", range(4))
@pytest.mark.parametrize("limit", BUDGETS)
def test_without_finalists_the_baseline_comes_to_its_end_all_the_same(
    tmp_path: Path, clock: Clock, limit: str, draw: int
) -> None:
    sweep = Sweep(tmp_path, clock, draw, BUDGETS[limit], "finalists.k=0")
    sweep.run()
    sweep.is_within_the_budget()
    baseline = sweep.ledger.state.trials["t000"]
    assert (baseline.state, baseline.seen_s) == ("finished", LENGTH_S)
    assert baseline.recalled, "it has waited at a rung, or this is no test"


@pytest.mark.parametrize("every_s", [50.0, 250.0])
@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("finalists", ["finalists.k=0", "finalists={k: 1, seeds: 1}"])
def test_however_many_slots_there_are_and_however_rare_reports_are(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, slots: int, every_s: float, finalists: str
) -> None:
    monkeypatch.setattr(f"{__name__}.EVERY_S", every_s)
    sweep = Sweep(tmp_path, clock, 1, f"budget.wall_s={12 * FULL_S / slots + START_S}", finalists)
    sweep.slots = slots
    sweep.run()
    sweep.is_within_the_budget()
    assert sweep.ledger.state.trials["t000"].state == "finished"


def test_a_space_that_is_used_up_ends_with_the_baseline(tmp_path: Path, clock: Clock) -> None:
    few = ("space.lr_peak={choices: [1e-5, 2e-5]}", "pruning.finish_share=0", "finalists.k=0")
    sweep = Sweep(tmp_path, clock, 0, *few)
    sweep.slots = 1
    sweep.run()
    assert sweep.agenda.over == "every setting of the space was tried"
    assert sweep.ledger.state.trials["t000"].state == "finished"


@pytest.mark.parametrize("draw", range(6))
def test_what_the_baselines_end_changes_is_still_seen_to(tmp_path: Path, clock: Clock, draw: int) -> None:
    sweep = Sweep(tmp_path, clock, draw, "search.trials=6", "finalists.k=0", "pruning.rank_by=predicted")
    sweep.run()
    assert sweep.ledger.state.trials["t000"].state == "finished"


@pytest.mark.parametrize("limit", BUDGETS)
def test_a_new_driver_ends_the_finalists_and_does_not_search_again(tmp_path: Path, clock: Clock, limit: str) -> None:
    sweep = Sweep(tmp_path, clock, 0, BUDGETS[limit])
    sweep.run(stop_after=2)
    searched = {trial.id: trial.seen_s for trial in sweep.ledger.state.searched if not trial.is_baseline}
    clock.now += 3600
    sweep.open()
    sweep.start_s = 0.0  # the start of its slots would be for nobody's account
    sweep.run()
    sweep.all_are_done()
    after = {trial.id: trial.seen_s for trial in sweep.ledger.state.searched if not trial.is_baseline}
    assert after == searched


def test_a_larger_budget_searches_on_and_has_new_finalists_where_better_settings_were_found(
    tmp_path: Path, clock: Clock
) -> None:
    sweep = Sweep(tmp_path, clock, 3, BUDGETS["hours"])
    sweep.run()
    before = [trial.id for trial in sweep.ledger.state.finalists]
    sweep.open(f"budget.hours={25 * FULL_S / 3600}")
    assert sweep.agenda.over == ""
    sweep.run()
    after = sweep.ledger.state
    assert len(after.finalists) > len(before), "better settings were found"
    best = [trial.id for trial in after.ranking() if not trial.is_baseline][:2]
    assert all(after.trials[f"{name}-s{seed}"].state == "finished" for name in (*best, "t000") for seed in (1, 2))
