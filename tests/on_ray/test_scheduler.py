"""What a report leads to: written down, judged, answered; decisions are in the ledger with all they were made of."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from hausa_asr.recipe import GPU_ENERGY, FinetuneConfig, Progress
from hausa_asr.settings.load import load
from hausa_asr.settings.sweep import SweepConfig
from helpers.events import report
from helpers.slots import Slots
from sweeps.driver.agenda import Agenda
from sweeps.driver.sweep import rule_of
from sweeps.on_ray.broken import NoRoom, SlotBroken
from sweeps.on_ray.messages import MESSAGE, Failed, Reported, to_text
from sweeps.on_ray.scheduler import SweepScheduler
from sweeps.pruning.rungs import ready_s, rungs_s
from sweeps.record.explain import explain
from sweeps.record.ledger import Ledger
from sweeps.record.trial import DIVERGED
from sweeps.sampling.study import Study

CONTINUE, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP
# Rungs at 300 and 600 s of audio; a report at step n is at 10 n seconds.
SETTINGS = ["finetune.length_s=1000", "pruning.first_rung=0.3", "pruning.reduction=2", "pruning.rank_by=loss",
            "finetune.warmup_fraction=0.1", "space.lr_peak={low: 1e-5, high: 1e-3, log: true}"]  # fmt: skip


def test_a_trial_is_ready_when_warm_and_free() -> None:
    assert ready_s(FinetuneConfig(length_s=100, warmup_fraction=0.3, freeze_transformer_fraction=0.1)) == 30
    frozen = FinetuneConfig(length_s=100, warmup_fraction=0.1, freeze_transformer_fraction=0.3)
    assert ready_s(frozen) == 30
    assert ready_s(dataclasses.replace(frozen, unfreeze="top_down")) == 60


def test_a_trial_with_large_batches_is_not_ranked_by_one_figure_before_it_has_made_the_updates(tmp_path: Path) -> None:
    for batch_s, ranked in ((140.0, True), (480.0, False)):
        folder = tmp_path / str(batch_s)
        folder.mkdir()
        sweep = Sweep(folder, 3, {"batch_s": batch_s}, "finetune.batch_s=140")
        sweep.report("t0", 30, 1.0)
        assert (sweep.report("t1", 30, 8.0) == STOP) is ranked, "at a third of the length, the first rung"


class Sweep:
    """A scheduler with trials of given settings; reports are fed to it as Tune does."""

    def __init__(self, folder: Path, count: int, settings: dict[str, Any] | None = None, *changes: str) -> None:
        self.config = load(None, [*SETTINGS, *changes])
        self.ledger = Ledger(folder)
        self.ledger.append("sweep", name="s", rungs=rungs_s(self.config))
        for n in range(count):
            source = "baseline" if n == 0 else "search"
            self.ledger.append("proposed", trial=f"t{n}", settings=(settings or {}) if n else {}, source=source)
            self.ledger.append("started", trial=f"t{n}")
        self.scheduler = scheduler_of(self.config, self.ledger)

    def report(self, trial: str, step: int, loss: float, last: bool = False, **more: Any) -> str:
        fields = {**report(step, loss=loss), "last": last, **more}
        return self.send(trial, Reported(Progress(**fields, samples=[], checkpoint="", best_checkpoint="")))

    def send(self, trial: str, message: Reported | Failed) -> str:
        return self.scheduler.on_trial_result(None, SimpleNamespace(trial_id=trial), {MESSAGE: to_text(message)})

    def state_of(self, trial: str) -> tuple[str, str]:
        record = self.ledger.state.trials[trial]
        return record.state, record.cause


def scheduler_of(config: SweepConfig, ledger: Ledger, guess: float = math.inf) -> SweepScheduler:
    rule = rule_of(config, ledger.state)
    agenda = Agenda(config, ledger, rule, Study(config))
    return SweepScheduler(config, ledger, rule, agenda, lambda tune_id: tune_id, guess)


def test_losers_are_paused_at_a_rung_and_never_between(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, 5)
    assert sweep.report("t4", 30, 2.5) == CONTINUE
    assert sweep.report("t1", 29, 9.0) == CONTINUE  # 290 s: no rung yet
    assert sweep.report("t1", 30, 1.0) == CONTINUE
    assert sweep.report("t1", 50, 2.0) == CONTINUE  # between the rungs
    assert sweep.report("t2", 35, 2.8) == STOP
    assert sweep.report("t3", 30, 0.5) == CONTINUE
    assert sweep.state_of("t2") == ("paused", "rung")
    assert sweep.state_of("t1") == ("running", "")
    assert "number 3 of 3" in sweep.ledger.state.trials["t2"].reason


@pytest.mark.parametrize(("gpus", "kept"), [(1.0, True), (0.5, False)])
def test_the_energy_of_a_gpu_that_trials_share_is_nobodys(tmp_path: Path, gpus: float, kept: bool) -> None:
    slots = Slots(tmp_path, f"resources.gpus_per_worker={gpus}")
    trial = slots.order().trial
    assert trial is not None
    made = report(5, 0.9, 1.0)
    made["metrics"][GPU_ENERGY] = 0.1
    scheduler = SweepScheduler(slots.config, slots.ledger, slots.rule, slots.agenda, lambda name: name)
    scheduler.judge(trial.id, Reported(Progress(**made, samples=[], checkpoint="", best_checkpoint="")))
    assert (GPU_ENERGY in trial.reports[-1].metrics) == kept and "wer" in trial.reports[-1].metrics


def test_a_decision_is_kept_with_all_that_it_was_made_of_and_can_be_explained(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, 3)
    sweep.report("t1", 30, 1.0)
    sweep.report("t0", 30, 3.0)
    sweep.report("t2", 35, 4.0)
    [decision] = Ledger(tmp_path).state.trials["t2"].decisions
    wanted = {"rung": 0, "rung_s": 300.0, "seen_s": 350.0, "metric": "loss", "value": 4.0, "cutoff": 3.0, "place": 3,
              "cohort": 3, "passing": 2, "passed": False}  # fmt: skip
    assert {name: decision[name] for name in wanted} == wanted
    words = explain(tmp_path, "t2")
    assert "ranked by eval loss with 3 trials: number 3 with 4.0000 at 350 s" in words
    assert "up to 3.0000: paused" in words


def test_the_baseline_waits_at_a_rung_like_all_and_then_runs_to_its_end(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, 3)
    assert sweep.report("t0", 30, 1.5) == STOP, "it is the best of one, but has time until there are more"
    assert sweep.state_of("t0") == ("paused", "rung")
    assert "as the baseline it waits" in sweep.ledger.state.trials["t0"].reason
    assert "paused, since the baseline waits for more" in explain(tmp_path, "t0")
    assert sweep.report("t1", 60, 1.0) == CONTINUE
    sweep.ledger.append("started", trial="t0", recall=True)
    assert sweep.report("t0", 70, 2.0) == CONTINUE, "it is the worst of two"
    assert sweep.report("t0", 100, 2.0, last=True) == STOP
    assert sweep.state_of("t0") == ("finished", "")
    assert {name: one.loss for name, one in sweep.ledger.state.rungs[0].items()} == {"t0": 1.5, "t1": 1.0}
    assert "As the baseline it was sent on to its end" in explain(tmp_path, "t0")


def test_by_what_is_expected_all_are_ranked_also_those_that_are_still_frozen_or_have_made_few_updates(
    tmp_path: Path,
) -> None:
    settings = {"freeze_transformer_fraction": 0.5, "batch_s": 480.0}
    sweep = Sweep(tmp_path, 3, settings, "pruning.rank_by=predicted", "finetune.batch_s=140")
    sweep.report("t0", 30, 1.0)
    assert sweep.report("t1", 30, 8.0) == STOP
    assert "t1" in sweep.ledger.state.rungs[0]


def test_a_trial_that_is_still_frozen_passes_a_rung_unranked(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, 3, {"freeze_transformer_fraction": 0.5})
    sweep.report("t0", 30, 1.0)
    assert sweep.report("t1", 30, 8.0) == CONTINUE
    assert "t1" not in sweep.ledger.state.rungs[0]
    sweep.ledger.append("started", trial="t0")
    sweep.report("t0", 60, 0.5)
    assert sweep.report("t1", 60, 8.0) == STOP


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_diverged_trial_ends_at_its_first_report_even_the_baseline(tmp_path: Path, loss: float) -> None:
    sweep = Sweep(tmp_path, 2)
    for trial in ("t0", "t1"):
        assert sweep.report(trial, 5, loss) == STOP
        ended = sweep.ledger.state.trials[trial]
        assert (ended.state, ended.reason) == ("failed", DIVERGED)
        assert ended.detail


def test_slow_speech_is_not_taken_for_divergence_but_far_worse_than_guessing_is(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, 2)
    sweep.scheduler = scheduler_of(sweep.config, sweep.ledger, guess=31.6)  # read Yoruba's
    assert sweep.report("t1", 5, 80.0) == CONTINUE, "still warming up"
    assert sweep.report("t1", 20, 30.0) == CONTINUE
    assert sweep.report("t1", 35, 80.0) == STOP
    assert sweep.ledger.state.trials["t1"].reason == DIVERGED


def test_a_trial_that_can_no_longer_update_ends_though_its_loss_is_finite(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, 2)
    assert sweep.report("t1", 10, 2.0, diverged=True) == STOP
    assert sweep.ledger.state.trials["t1"].reason == DIVERGED


def test_a_trial_that_raised_is_paused_with_its_words_and_may_be_tried_again(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, 2)
    assert sweep.send("t1", Failed("OSError: No space left on device")) == STOP
    assert sweep.state_of("t1") == ("paused", "crash")
    assert sweep.ledger.state.trials["t1"].reason == "OSError: No space left on device"


OWN = "OutOfMemoryError: CUDA out of memory."


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        (Failed(OWN, own=True), ("failed", "")),
        (SlotBroken(OWN, "n1", "10.0.0.1", own=True), ("failed", "")),
        (SlotBroken(OWN, "n1", "10.0.0.1"), ("paused", "crash")),
        (NoRoom("no worker has taken the trial within 300 s"), ("paused", "no room")),
    ],
)
def test_what_its_own_settings_cause_ends_a_trial_and_anything_else_does_not(
    tmp_path: Path, fault: Failed | SlotBroken, state: tuple[str, str]
) -> None:
    sweep = Sweep(tmp_path, 2)
    sweep.report("t1", 5, 2.0)
    if isinstance(fault, Failed):
        assert sweep.send("t1", fault) == STOP
    else:
        (tmp_path / "error.txt").write_text(
            f"ray::Slot.train()\nsweeps.on_ray.broken.{type(fault).__name__}: {fault}\n"
        )
        trial = SimpleNamespace(trial_id="t1", last_result={}, error_file=str(tmp_path / "error.txt"))
        sweep.scheduler.on_trial_error(None, trial)
    assert sweep.state_of("t1") == state
    record = sweep.ledger.state.trials["t1"]
    if state[0] == "failed":
        assert record.reason.endswith(OWN) and not sweep.ledger.state.crashes.in_a_row, "nobody tries it again"


def test_after_a_resume_the_rungs_are_as_they_were(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, 5)
    for trial, loss in (("t0", 3.0), ("t1", 1.0), ("t2", 0.9)):
        sweep.report(trial, 30, loss)
    sweep.ledger = Ledger(tmp_path)
    sweep.scheduler = scheduler_of(sweep.config, sweep.ledger)
    assert sweep.report("t1", 30, 1.0) == CONTINUE  # reported again, ranked once
    assert len(sweep.ledger.state.trials["t1"].decisions) == 1
    assert sweep.report("t3", 30, 1.5) == STOP
    assert {name: one.loss for name, one in sweep.ledger.state.rungs[0].items()} == {
        "t0": 3.0, "t1": 1.0, "t2": 0.9, "t3": 1.5,
    }  # fmt: skip


def test_no_pruning_where_it_is_off(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, 2, None, "pruning.rule=none")
    assert sweep.report("t1", 90, 20.0) == CONTINUE


def test_the_budget_pauses_what_runs_at_its_next_report(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, 2, None, "budget.wall_s=0.001", "finalists.k=0")
    assert sweep.report("t1", 5, 2.0) == STOP
    assert sweep.state_of("t1") == ("paused", "budget")
    assert "budget" in sweep.ledger.state.trials["t1"].reason


def test_the_ledger_says_how_many_workers_a_report_is_of_only_where_they_may_differ(tmp_path: Path) -> None:
    for name, setting, workers in (("fixed", "4", None), ("range", "{min: 1, max: 4}", 3)):
        (tmp_path / name).mkdir()
        sweep = Sweep(tmp_path / name, 2, None, f"resources.workers_per_trial={setting}")
        for step in (5, 6):
            fields = {**report(step), "samples": [], "checkpoint": "", "best_checkpoint": ""}
            sweep.send("t1", Reported(Progress(**fields), "slot-1", ("node",), 3))
        trial = sweep.ledger.state.trials["t1"]
        assert [one.workers for one in trial.reports] == [workers, workers]
        assert trial.workers == workers
        assert ('"workers"' in sweep.ledger.path.read_text()) is (workers is not None)
