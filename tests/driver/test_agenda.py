"""What slots do next, order by order, on a real ledger: nothing lost, nothing doubled, whatever the reason to stop."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.events import report
from helpers.slots import Slots


def test_baseline_first_then_starting_points_then_the_search_and_no_more_than_wanted(tmp_path: Path) -> None:
    slots = Slots(tmp_path, "starting_points={mine: {lr_peak: 2e-4}, same: {lr_peak: 2e-4}}")
    trials = [slots.take() for _ in range(4)]
    assert [t.id for t in trials] == ["t000", "t001", "t002", "t003"]
    assert [t.source for t in trials] == ["baseline", "starting point mine", "search", "search"]
    assert trials[0].settings == slots.config.baseline
    assert slots.order().do == "wait", "what runs may still promote one"
    for trial in trials:
        slots.finish(trial, 0.5)
    assert slots.order().do == "end"
    assert slots.agenda.is_done()
    assert slots.agenda.over == "4 trials were tried"


def test_a_paused_trial_goes_on_when_its_rung_promotes_it_before_anything_new_begins(tmp_path: Path) -> None:
    slots = Slots(tmp_path)
    base, first, second = slots.take(), slots.take(), slots.take()
    slots.pause(first, 1.0)
    assert slots.agenda.held == {base.id, second.id}
    slots.pause(second, 2.0)  # of two the first passes
    again = slots.order()
    assert (again.trial, again.why) == (first, "")
    assert first.decisions[-1]["promoted"] and first.decisions[-1]["passed"]
    assert first.waits_at is None
    assert slots.take().id == "t003"


def test_a_second_look_fills_up_to_the_share_that_finishes_and_no_further(tmp_path: Path) -> None:
    slots = Slots(tmp_path, "pruning.finish_share=0.6", "pruning.reduction=4", "search.trials=6")
    trials = [slots.take() for _ in range(6)]
    slots.finish(trials[0], 0.5)
    for trial, loss in zip(trials[1:], (3.0, 1.0, 2.0, 5.0, 4.0), strict=True):
        slots.pause(trial, loss)
    for best in (trials[2], trials[3]):  # two of five are the best quarter, rounded up
        promoted = slots.order()
        assert (promoted.trial, promoted.why) == (best, "")
    recalled = slots.order()
    assert (recalled.trial, recalled.why) == (trials[1], "recall")
    for trial, wer in ((trials[2], 0.4), (trials[3], 0.3), (trials[1], 0.5)):
        slots.finish(trial, wer)
    assert slots.order().do == "end"


def test_a_baseline_that_lost_goes_on_to_its_end_when_no_new_setting_is_left(tmp_path: Path) -> None:
    slots = Slots(tmp_path, "pruning={reduction: 3, first_rung: 0.3, finish_share: 1}", "finalists={k: 1, seeds: 1}")
    base, *others = [slots.take() for _ in range(3)]
    slots.finish(others[0], 0.5)
    slots.pause(others[1], 1.0)
    slots.pause(base, 9.0)
    promoted, last = slots.take(), slots.take()
    assert (promoted, last.id) == (others[1], "t003"), "those that its rung promotes and new settings go first"
    slots.pause(last, 20.0)
    again = slots.order()
    assert (again.trial, again.why) == (base, "recall"), "and the second look after it"
    slots.finish(promoted, 0.3)
    assert slots.take() is last
    slots.finish(last, 0.4)
    assert slots.take().id == "t002-s1", "the finalists do not wait for it"
    slots.finish(base, 0.9)
    assert base.state == "finished"


def test_a_baseline_whose_slot_broke_on_its_way_to_the_end_goes_on_before_the_finalists(tmp_path: Path) -> None:
    slots = Slots(tmp_path, "search.trials=2", "finalists={k: 1, seeds: 1}")
    base, other = slots.take(), slots.take()
    slots.pause(base, 9.0)
    assert slots.take() is base
    slots.finish(other, 0.3)
    assert slots.take().id == "t001-s1"
    slots.open()  # the driver is gone, and another one comes
    again = slots.take()
    assert again.id == "t000" and again.recalled


def test_finalists_are_the_best_and_the_baseline_on_fresh_seeds_after_the_search(tmp_path: Path) -> None:
    slots = Slots(tmp_path, "finalists.k=1", "finalists.seeds=2", "finalists.length_s=2000", "finetune.seed=7")
    trials = [slots.take() for _ in range(4)]
    for trial, wer in zip(trials, (0.5, 0.4, 0.2, 0.3), strict=True):
        slots.finish(trial, wer)
    runs = [slots.take() for _ in range(4)]
    assert [run.id for run in runs] == ["t002-s1", "t000-s1", "t002-s2", "t000-s2"]
    assert [run.settings["seed"] for run in runs] == [8, 8, 9, 9]
    assert all(run.settings["length_s"] == 2000 for run in runs)
    assert {**runs[0].settings, **trials[2].settings} == runs[0].settings
    assert slots.order().do == "end"
    assert not slots.agenda.is_done(), "they are still to come to their end"
    for run in runs:
        slots.finish(run, 0.3)
    assert slots.agenda.is_done()
    assert [t.id for t in slots.ledger.state.searched] == ["t000", "t001", "t002", "t003"]


def test_slots_wait_for_the_best_finalist_to_train_it_on_parts_of_train(tmp_path: Path) -> None:
    """A slot that ended here would end the search for all of them."""
    slots = Slots(tmp_path, "finalists={k: 1, seeds: 1, data_growth: true}", "search.trials=2")
    for wer in (0.5, 0.2):
        slots.finish(slots.take(), wer)
    runs = [slots.take(), slots.take()]
    assert [run.id for run in runs] == ["t001-s1", "t000-s1"]
    assert slots.order().do == "wait" and not slots.agenda.has_work()
    slots.finish(runs[0], 0.4)
    assert slots.order().do == "wait" and not slots.agenda.is_done()
    slots.finish(runs[1], 0.3)
    assert slots.agenda.has_work()
    parts = [slots.take(), slots.take()]
    assert [run.id for run in parts] == ["t000-s1-d25", "t000-s1-d50"], "the better one"
    assert slots.order().do == "end"
    for run in parts:
        slots.finish(run, 0.5)
    assert slots.agenda.is_done()


def test_a_finalist_that_goes_on_comes_before_any_on_parts(tmp_path: Path) -> None:
    slots = Slots(tmp_path, "finalists={k: 1, seeds: 1, data_growth: true}", "search.trials=2")
    for wer in (0.5, 0.2):
        slots.finish(slots.take(), wer)
    first, second = slots.take(), slots.take()
    slots.finish(first, 0.4)
    slots.ledger.append("reported", trial=second.id, **report(50, 0.6))
    slots.ledger.append("ended", trial=second.id, state="pruned", cause="budget", reason="spent")
    slots.agenda.back(second)
    again = slots.agenda.next()
    assert again.trial is second
    assert slots.order().do == "wait", "it may be the better one"


def test_a_new_driver_takes_up_what_was_open_then_goes_on_as_before(tmp_path: Path) -> None:
    slots = Slots(tmp_path)
    trials = [slots.take() for _ in range(3)]
    slots.finish(trials[0], 0.5)
    slots.pause(trials[1], 2.0)
    slots.open()
    assert slots.take().id == "t002", "it was open"
    assert slots.take().id == "t001", "alone at its rung, it is promoted"
    assert slots.take().id == "t003"
    assert slots.order().do == "wait"


def test_a_new_driver_takes_up_what_a_slot_had_before_what_broke(tmp_path: Path) -> None:
    slots = Slots(tmp_path)
    broken, at_work = slots.take(), slots.take()
    slots.agenda.failures.crashed(broken.id, "OSError")
    slots.agenda.back(broken)
    slots.ledger.append("reported", trial=at_work.id, **report(30, 0.5))  # so the other one may be tried again
    slots.open()
    assert [slots.take().id for _ in range(2)] == [at_work.id, broken.id]


def test_a_finished_sweep_goes_on_with_more_trials_and_its_losers_may_be_promoted(tmp_path: Path) -> None:
    slots = Slots(tmp_path, "search.trials=3")
    trials = [slots.take() for _ in range(3)]
    slots.pause(trials[1], 2.0)
    slots.pause(trials[2], 3.0)
    assert slots.take() is trials[1]
    slots.finish(trials[1], 0.4)
    slots.finish(trials[0], 0.5)
    assert slots.order().do == "end"
    slots.agenda.finish()
    assert slots.ledger.state.trials["t002"].state == "pruned"
    slots.open("search.trials=5")
    new = slots.take(), slots.take()
    assert [t.id for t in new] == ["t003", "t004"]
    for trial, loss in zip(new, (4.0, 5.0), strict=True):
        slots.pause(trial, loss)
    assert slots.take().id == "t002"  # the second best of four


def test_a_budget_ends_the_search_and_a_larger_one_goes_on_with_what_it_had_stopped(tmp_path: Path) -> None:
    slots = Slots(tmp_path, "budget.hours=0.001")
    trial = slots.take()
    slots.ledger.append("reported", trial=trial.id, **report(10))
    slots.ledger.state.spent_at = {(None, None): 3600.0}
    slots.ledger.append("paused", trial=trial.id, cause="budget", reason="spent")
    slots.agenda.back(trial)
    assert slots.order().do == "end"
    assert slots.agenda.is_done()
    assert "budget" in slots.agenda.over
    slots.agenda.finish()
    slots.open("budget.hours=10")
    assert slots.take().id == "t000"
    assert slots.take().id == "t001"


def test_a_space_that_is_used_up_ends_the_search(tmp_path: Path) -> None:
    slots = Slots(tmp_path, "space={schedule: {choices: [linear, cosine, tri_stage]}}", "search.trials=9")
    trials = [slots.take() for _ in range(3)]
    assert slots.order().do == "wait"
    for trial in trials:
        slots.finish(trial, 0.5)
    assert slots.order().do == "end"
    assert slots.agenda.over == "every setting of the space was tried"
    assert {trial.settings["schedule"] for trial in trials} == {"linear", "cosine", "tri_stage"}, (
        "linear is the baseline's"
    )


@pytest.mark.parametrize("dropped", [False, True])
def test_what_made_room_on_the_disk_is_not_promoted(tmp_path: Path, dropped: bool) -> None:
    slots = Slots(tmp_path, "search.trials=3")
    trials = [slots.take() for _ in range(3)]
    slots.pause(trials[1], 1.0)
    if dropped:
        slots.ledger.append("dropped", trial="t001")
    slots.pause(trials[2], 2.0)
    slots.finish(trials[0], 0.5)
    assert slots.order().do == ("end" if dropped else "train")
