"""What follows when something breaks under a trial: by the agenda, on a real ledger, without Ray."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from helpers.events import report
from helpers.slots import Slots
from sweeps.driver import failures
from sweeps.record.trial import TrialRecord

DISK = "OSError: No space left on device"


class Breaking(Slots):
    """Slots on which something breaks."""

    def crash(self, trial: TrialRecord, node: str = "n1", reason: str = DISK) -> None:
        self.agenda.failures.crashed(trial.id, reason, node, f"host of {node}" if node else "")
        self.agenda.back(trial)

    def report(self, trial: TrialRecord, units: int = 10, node: str = "n1") -> None:
        self.ledger.append("reported", trial=trial.id, nodes=[node], **report(units, loss=1.0))


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody rests after a crash."""
    monkeypatch.setattr(failures, "_FIRST_REST_S", 0.0)


def test_a_crashed_trial_waits_until_another_one_has_reported_and_then_goes_on(tmp_path: Path, at_once: None) -> None:
    slots = Breaking(tmp_path)
    first = slots.take()
    slots.report(first)
    slots.crash(first)
    assert (first.state, first.cause, first.reason) == ("paused", "crash", f"on node host of n1: {DISK}")
    second = slots.take()
    assert second is not first
    slots.report(second)
    assert slots.take() is first, "and it has kept its reports"
    assert first.seen_s > 0 and first.state == "running"


def test_a_trial_that_breaks_again_and_again_while_others_go_on_has_failed(tmp_path: Path, at_once: None) -> None:
    slots = Breaking(tmp_path, "search.trials=3")
    bad, good = slots.take(), slots.take()
    for number in range(3):
        slots.report(good, 10 + number)
        slots.crash(bad, reason="ValueError: no such layer")
        if number < 2:
            slots.report(good, 20 + number)
            assert slots.take() is bad
    assert (bad.state, bad.cause) == ("failed", "crash")
    assert "3 times" in bad.reason and "no such layer" in bad.reason
    assert slots.take() not in (bad, good)
    assert slots.ledger.state.crashes.of_node == {"n1": slots.ledger.state.crashes.of_trial[bad.id][-1:]}, (
        "the node was well in between"
    )


def test_a_trial_that_is_alone_and_breaks_does_not_hold_up_the_sweep(tmp_path: Path, at_once: None) -> None:
    slots = Breaking(tmp_path, "search.trials=1")
    for _ in range(3):
        slots.crash(slots.take())
    [trial] = slots.ledger.state.searched
    assert trial.state == "failed" and not slots.agenda.failures.too_many()
    assert slots.order().do == "end" and slots.agenda.is_done()


def test_the_last_trial_is_tried_on_another_node_before_it_is_given_up(tmp_path: Path, at_once: None) -> None:
    slots = Breaking(tmp_path, "search.trials=2")
    last, other = slots.take(), slots.take()
    slots.report(other, node="good")
    for number in range(4):
        slots.crash(last, "bad")
        slots.report(other, 20 + number, "good")
        assert last.state == "paused" and slots.agenda.failures.avoided_by(last.id) == ["bad"]
    slots.crash(last, "good")
    assert last.state == "failed", "it breaks wherever it is"


def test_a_node_on_which_one_trial_after_another_breaks_is_avoided_and_costs_none(
    tmp_path: Path, at_once: None
) -> None:
    slots = Breaking(tmp_path, "search.trials=40")
    well = slots.take()
    for number in range(3):
        slots.crash(slots.take(), "bad")
        slots.report(well, 10 + number, "good")
    assert slots.agenda.failures.avoided() == ["bad"]
    assert not [trial.id for trial in slots.ledger.state.searched if trial.state == "failed"]
    slots.report(well, 20, "bad")
    assert slots.agenda.failures.avoided() == [], "something trains there again"


def test_when_nothing_works_slots_rest_and_then_the_sweep_pauses_itself_and_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    slots = Breaking(tmp_path, "search.trials=40", "cluster.crashes_in_a_row=5")
    waited_s = 0.0
    for _ in range(5):
        while (order := slots.order()).do == "wait":
            assert not slots.agenda.has_work(), "or a waiting slot would ask for ever"
            now += 1
            waited_s += 1
        assert order.trial is not None
        slots.crash(order.trial)
    assert 10 <= waited_s <= 20
    assert slots.order().do == "end" and not slots.agenda.is_done()
    said = slots.agenda.failures.too_many()
    assert "5 times in a row" in said and DISK in said and "host of n1" in said
    assert all(trial.state == "paused" for trial in slots.ledger.state.searched)
    slots.open()
    assert not slots.agenda.failures.too_many()
    assert slots.take() is slots.ledger.state.searched[0], "the next driver tries them again"


def test_nothing_is_tried_while_a_slot_that_still_trains_may_show_that_all_is_well(
    tmp_path: Path, at_once: None
) -> None:
    slots = Breaking(tmp_path, "search.trials=40")
    well, one, other = slots.take(), slots.take(), slots.take()
    slots.crash(one)
    slots.crash(other)
    assert slots.order().do == "wait"
    slots.report(well)
    assert slots.take() is one


def test_a_trial_for_which_no_worker_came_is_given_out_at_once_and_costs_nothing(tmp_path: Path) -> None:
    slots = Breaking(tmp_path)
    trial = slots.take()
    before_s = slots.ledger.state.spent_s
    time.sleep(0.05)
    slots.agenda.failures.found_no_room(trial.id, "no worker has taken the trial within 300 s")
    slots.agenda.back(trial)
    assert slots.ledger.state.spent_s == before_s and not slots.ledger.state.crashes.in_a_row
    assert slots.take() is trial


def test_a_failed_trial_is_tried_again_by_the_next_driver_but_a_diverged_one_is_not(
    tmp_path: Path, at_once: None
) -> None:
    slots = Breaking(tmp_path, "search.trials=2", "cluster.crashes_per_trial=1")
    broken, diverged = slots.take(), slots.take()
    slots.ledger.append("ended", trial=diverged.id, state="failed", reason="diverged")
    slots.agenda.back(diverged)
    slots.crash(broken)
    assert broken.state == "failed" and slots.order().do == "end"
    slots.open()
    assert slots.take().id == broken.id
    assert slots.order().do == "wait"


def test_a_finalist_under_which_something_breaks_is_tried_again(tmp_path: Path, at_once: None) -> None:
    slots = Breaking(tmp_path, "search.trials=2", "finalists.k=1", "finalists.seeds=1")
    slots.finish(slots.take(), 0.5)
    slots.finish(slots.take(), 0.4)
    final = slots.take()
    assert final.of
    slots.crash(final)
    assert slots.take() is final


def test_a_finalist_that_breaks_when_the_other_slots_have_ended_is_run_all_the_same(
    tmp_path: Path, at_once: None
) -> None:
    slots = Breaking(tmp_path, "search.trials=2", "finalists.k=1", "finalists.seeds=2")
    slots.finish(slots.take(), 0.5)
    slots.finish(slots.take(), 0.4)
    runs = [slots.take() for _ in range(4)]
    last = next(run for run in runs if run.of != "t000")
    for run in runs:
        if run is not last:
            slots.finish(run, 0.4)
    assert slots.order().do == "end"
    slots.crash(last)
    assert slots.agenda.is_to_go_on() and not slots.agenda.is_done()
    slots.agenda.begin_anew()
    assert slots.take() is last
    slots.finish(last, 0.4)
    assert slots.order().do == "end" and slots.agenda.is_done() and not slots.agenda.is_to_go_on()


def test_two_trials_that_break_wherever_they_are_do_not_excuse_each_other_for_ever(
    tmp_path: Path, at_once: None
) -> None:
    slots = Breaking(tmp_path, "search.trials=2")
    for _ in range(8):
        if (order := slots.order()).do == "train":
            assert order.trial is not None
            slots.crash(order.trial)
    assert [trial.state for trial in slots.ledger.state.searched] == ["failed"] * 2
    assert not slots.agenda.failures.too_many()


def test_slots_that_are_lost_all_at_once_do_not_pause_a_sweep_whose_others_go_on(tmp_path: Path, at_once: None) -> None:
    slots = Breaking(tmp_path, "search.trials=40", "cluster.crashes_in_a_row=4")
    slots.ledger.append("slots", slots=6)
    taken = [slots.take() for _ in range(6)]
    for trial in taken[:5]:
        slots.crash(trial)
    slots.ledger.append("slots", slots=1)
    assert not slots.agenda.failures.too_many() and slots.order().do == "wait"
    slots.report(taken[5])
    assert slots.order().do == "train"


def test_a_trial_that_comes_again_where_it_had_been_shows_that_all_is_well(tmp_path: Path) -> None:
    slots = Breaking(tmp_path, "search.trials=40")
    one, other = slots.take(), slots.take()
    slots.report(one, 20)
    for trial in (one, other):
        slots.crash(trial)
    assert slots.order().do == "wait"
    slots.ledger.append("repeated", trial=one.id, step=10, slot="s", nodes=["n1"])
    assert not slots.ledger.state.crashes.in_a_row and one.last_step == 20
    assert slots.order().do == "train"


@pytest.mark.parametrize(("nodes", "failed"), [({"one", "other"}, False), ({"one"}, True)])
def test_a_crash_of_which_no_node_is_known_burns_no_trial_while_there_are_several(
    tmp_path: Path, at_once: None, nodes: set[str], failed: bool
) -> None:
    slots = Breaking(tmp_path, "search.trials=40", "cluster.crashes_in_a_row=4")
    slots.agenda.failures.others = lambda these: nodes - {*these}
    broken, well = slots.take(), slots.take()
    for number in range(3):
        slots.report(well, 10 + number, "one")
        slots.crash(broken, "")
        slots.report(well, 20 + number, "one")
        assert failed or slots.take() is broken
    assert (broken.state == "failed") is failed
    if not failed:
        for _ in range(4):
            slots.crash(broken, "")
        assert broken.state == "paused" and slots.agenda.failures.too_many(), "if nothing goes on the sweep pauses"


def test_a_node_that_no_trial_can_do_without_is_not_avoided(tmp_path: Path, at_once: None) -> None:
    slots = Breaking(tmp_path, "search.trials=40")
    slots.agenda.failures.others = lambda these: () if these else ("good", "bad")  # a trial takes both
    for _ in range(3):
        slots.crash(slots.take(), "bad")
    assert slots.agenda.failures.avoided() == []
