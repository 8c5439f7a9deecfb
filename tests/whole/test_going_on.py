"""A sweep that is given more: a larger budget, more trials, a wider space; and one that was interrupted."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from hausa_asr.recipe import TRAINING
from hausa_asr.training import checkpoint
from helpers.whole_sweeps import (
    ONE_SLOT,
    Runs,
    check_whole,
    finish,
    gone,
    ledger_of,
    start,
    wait_for,
)
from sweeps.record.ledger import Ledger

pytestmark = pytest.mark.timeout(600)  # longer than what its own waits add up to


def test_it_goes_on_with_a_larger_budget_a_wider_space_and_after_sigterm(settings: Path) -> None:
    folder = settings.parent
    sweep, again = folder / "runs/grown", ("--resume", "grown", "--set", f"storage={folder}/runs")
    # 3.6 s of a CPU are spent before the first evaluation, since they count from when a slot takes the trial.
    output = finish(start("--config", settings, "--set", "name=grown", "--set", "budget.hours=0.001", *ONE_SLOT))
    assert "the budget of 0.00 CPU-hours is spent" in output
    ended = Ledger(sweep).state.trials
    assert {name: (trial.state, trial.cause, len(trial.reports)) for name, trial in ended.items()} == {
        "t000": ("pruned", "budget", 1)
    }

    larger = ("budget.hours=1", "search.trials=5", "space.hidden_dropout={low: 0.0, high: 0.2}")
    process = start(*again, *(argument for change in larger for argument in ("--set", change)))
    wait_for(
        lambda: any(
            event["event"] == "paused" and event["cause"] == "rung" and event["trial"] != "t000"
            for event in ledger_of(sweep)
        ),
        process,
    )
    process.send_signal(signal.SIGTERM)
    assert f"--resume {sweep}" in finish(process, code=130), "typed elsewhere its folder is needed"
    assert gone(process.pid) == []
    runs, stopped = Runs(folder), Ledger(sweep).state
    assert stopped.left is not None and stopped.left.how == "interrupted"
    assert runs.parents[0].info.status == "KILLED"
    waits = {"proposed": "SCHEDULED", "running": "SCHEDULED", "paused": "SCHEDULED", "finished": "FINISHED",
             "pruned": "KILLED"}  # fmt: skip
    for run in runs.children:
        assert run.info.status == waits[stopped.trials[run.data.tags["trial"]].state]
    assert any(trial.state == "paused" for trial in stopped.trials.values())

    finish(start(*again))
    check_whole(folder, "grown", 5)
    after = Ledger(sweep).state
    for name, trial in [*ended.items(), *stopped.trials.items()]:
        assert after.trials[name].reports[: len(trial.reports)] == trial.reports
    assert [name for name, one in after.trials.items() if "hidden_dropout" in one.settings] == list(after.trials)[1:]
    for trial in after.searched:
        assert sum(trial.settings == other.settings for other in after.searched) == 1, "nothing is tried twice"


def test_an_interrupt_costs_no_update_though_the_last_checkpoint_is_long_ago(settings: Path) -> None:
    sweep = settings.parent / "runs/left"
    rare = ("finetune.length_s=12000", "finetune.eval_every_steps=400", "search.trials=1", "pruning.rule=none")
    changes = [argument for change in rare for argument in ("--set", change)]
    process = start("--config", settings, "--set", "name=left", *changes, *ONE_SLOT)
    wait_for(lambda: any(event["event"] == "reported" for event in ledger_of(sweep)), process)
    time.sleep(2)  # it trains, and the next evaluation is some seconds away
    process.send_signal(signal.SIGTERM)
    assert "write where they are" in finish(process, code=130, within_s=60)
    left = checkpoint.latest(sweep / "trials/t000")
    assert left is not None and not left.is_scored and (left.folder / TRAINING).is_file()
    before = Ledger(sweep).state.trials["t000"]
    assert before.is_open and 400 == before.last_step < left.step < 800
