"""The pruning rule, as arithmetic, and what it does with a trial's reports."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler
from test_ledger import report

from hausa_asr.config import load
from hausa_asr.recipe import FinetuneConfig
from sweeps.ledger import Ledger
from sweeps.scheduler import SweepScheduler, rank, ready_s, rungs
from sweeps.searcher import DIVERGED

CONTINUE, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP


def test_rungs_rise_by_the_reduction_and_stay_below_the_length() -> None:
    assert rungs(9000, 0.25, 2) == [2250, 4500]
    assert rungs(9000, 0.1, 3) == pytest.approx([900, 2700, 8100])


def test_one_in_reduction_passes() -> None:
    others = [5.0, 4.0, 3.0, 2.0, 1.0]
    assert rank(others, 1.5, 3).passed
    assert not rank(others, 2.5, 3).passed
    assert rank(others, 2.5, 2).passed
    assert rank([], 9.0, 3) == rank([], 9.0, 2)
    assert rank([], 9.0, 3).passed
    ranking = rank(others, 2.0, 2)
    assert (ranking.cohort, ranking.cutoff) == (6, 2.0)


def test_a_trial_is_ready_when_warm_and_free() -> None:
    assert ready_s(FinetuneConfig(length_s=100, warmup_fraction=0.3, freeze_transformer_fraction=0.1)) == 30
    frozen = FinetuneConfig(length_s=100, warmup_fraction=0.1, freeze_transformer_fraction=0.3)
    assert ready_s(frozen) == 30
    assert ready_s(dataclasses.replace(frozen, unfreeze="top_down")) == 60


class Sweep:
    """A scheduler with trials of given settings; reports are fed to it as Tune does."""

    def __init__(self, folder: Path, count: int, settings: dict[str, Any] | None = None) -> None:
        # Rungs at 300 and 600 s of audio.
        config = load(None, ["finetune.length_s=1000", "pruning.first_rung=0.3", "pruning.reduction=2",
                             "finetune.warmup_fraction=0.1"])  # fmt: skip
        self.ledger = Ledger(folder)
        for n in range(count):
            source = "baseline" if n == 0 else "search"
            self.ledger.append("proposed", trial=f"t{n}", settings=(settings or {}) if n else {}, source=source)
        self.scheduler = SweepScheduler(config, self.ledger, lambda tune_id: tune_id)

    def tell(self, trial: str, step: int, loss: float, last: bool = False) -> str:
        told = {**report(step, loss=loss), "last": last}
        return self.result(trial, {"kind": "report", "report": told})

    def result(self, trial: str, news: dict[str, Any]) -> str:
        return self.scheduler.on_trial_result(None, SimpleNamespace(trial_id=trial), {"news": json.dumps(news)})


def test_the_worse_half_is_pruned_at_a_rung_and_never_between(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, 4)
    assert sweep.tell("t1", 29, 9.0) == CONTINUE  # 290 s: no rung yet
    assert sweep.tell("t1", 30, 1.0) == CONTINUE
    assert sweep.tell("t1", 50, 9.0) == CONTINUE  # between the rungs
    assert sweep.tell("t2", 35, 2.0) == STOP
    assert sweep.tell("t3", 30, 0.5) == CONTINUE
    ended = sweep.ledger.state.trials["t2"]
    assert (ended.state, sweep.ledger.state.trials["t1"].state) == ("pruned", "proposed")
    assert "2.0000" in ended.reason
    assert "1.0000" in ended.reason


def test_the_baseline_is_ranked_but_runs_to_its_end(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, 3)
    assert sweep.tell("t1", 30, 1.0) == CONTINUE
    assert sweep.tell("t0", 30, 5.0) == CONTINUE
    assert sweep.tell("t0", 70, 5.0) == CONTINUE
    assert sweep.tell("t0", 100, 4.0, last=True) == STOP
    assert sweep.ledger.state.trials["t0"].state == "finished"
    assert sweep.ledger.state.rungs[0] == {"t1": 1.0, "t0": 5.0}


def test_a_trial_that_is_still_frozen_passes_a_rung_unranked(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, 3, {"freeze_transformer_fraction": 0.5})
    sweep.tell("t0", 30, 1.0)
    assert sweep.tell("t1", 30, 8.0) == CONTINUE
    assert "t1" not in sweep.ledger.state.rungs[0]
    sweep.tell("t0", 60, 0.5)
    assert sweep.tell("t1", 60, 8.0) == STOP


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_diverged_trial_ends_at_its_first_report_even_the_baseline(tmp_path: Path, loss: float) -> None:
    sweep = Sweep(tmp_path, 2)
    for trial in ("t0", "t1"):
        assert sweep.tell(trial, 5, loss) == STOP
        ended = sweep.ledger.state.trials[trial]
        assert (ended.state, ended.reason) == ("failed", DIVERGED)


def test_a_trial_that_can_no_longer_update_ends_though_its_loss_is_finite(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, 2)
    told = {**report(10, loss=2.0), "diverged": True}
    assert sweep.result("t1", {"kind": "report", "report": told}) == STOP
    assert sweep.ledger.state.trials["t1"].reason == DIVERGED


def test_a_trial_that_raised_is_failed_with_its_words(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, 2)
    assert sweep.result("t1", {"kind": "failed", "error": "RuntimeError: out of memory"}) == STOP
    assert sweep.ledger.state.trials["t1"].reason == "RuntimeError: out of memory"


def test_after_a_resume_the_rungs_are_as_they_were(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, 4)
    sweep.tell("t1", 30, 1.0)
    sweep.tell("t2", 30, 0.9)
    resumed = SweepScheduler(sweep.scheduler._config, Ledger(tmp_path), lambda tune_id: tune_id)
    sweep.scheduler, sweep.ledger = resumed, resumed._ledger
    assert sweep.tell("t1", 30, 1.0) == CONTINUE  # told again, ranked once
    assert sweep.tell("t3", 30, 1.5) == STOP
    assert sweep.ledger.state.rungs[0] == {"t1": 1.0, "t2": 0.9, "t3": 1.5}


def test_no_pruning_when_told_so(tmp_path: Path) -> None:
    config = load(None, ["finetune.length_s=1000", "pruning.rule=none"])
    ledger = Ledger(tmp_path)
    ledger.append("proposed", trial="t1", settings={}, source="search")
    scheduler = SweepScheduler(config, ledger, lambda tune_id: tune_id)
    news = {"kind": "report", "report": report(90, loss=99.0)}
    assert scheduler.on_trial_result(None, SimpleNamespace(trial_id="t1"), {"news": json.dumps(news)}) == CONTINUE
