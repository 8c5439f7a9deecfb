"""Which slot gets the next order: by the real agenda, with Tune's calls made by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.events import report
from helpers.slots import Slots
from sweeps.on_ray.calls import Calls
from sweeps.on_ray.searcher import SweepSearcher
from sweeps.record.trial import TrialRecord


@pytest.fixture
def calls() -> Iterator[Calls]:
    one = Calls()
    yield one
    one.close()


def job(trial: TrialRecord | None) -> dict[str, Any]:
    return {"job": trial.id if trial else None}


def test_a_trial_that_found_no_room_goes_to_the_slot_that_waits_and_not_to_a_new_one(
    tmp_path: Path, calls: Calls
) -> None:
    slots = Slots(tmp_path, "search.trials=1")
    searcher = SweepSearcher(slots.ledger, slots.agenda, job, lambda: 2, calls)
    assert searcher.suggest("a") == {"job": "t000"}
    slots.ledger.append("started", trial="t000")
    assert searcher.suggest("b") == {"job": None}, "it waits for what the first one shows"
    slots.agenda.failures.found_no_room("t000", "no worker has taken the trial within 300 s")
    searcher.on_trial_complete("a", error=True)
    assert searcher.suggest("c") is None, "a new slot may find no room beside the one that waits"
    searcher.on_trial_complete("b")
    assert searcher.suggest("d") == {"job": "t000"}


def test_nobody_waits_in_the_way_of_a_trial_that_has_no_room(tmp_path: Path, calls: Calls) -> None:
    slots, has_room = Slots(tmp_path, "search.trials=1"), False
    searcher = SweepSearcher(slots.ledger, slots.agenda, job, lambda: 2, calls, lambda out: has_room)
    assert searcher.suggest("a") == {"job": "t000"}, "who has a trial does not wait"
    slots.ledger.append("started", trial="t000")
    assert searcher.suggest("b") is None
    has_room = True
    assert searcher.suggest("b") == {"job": None}


def test_no_more_orders_are_out_than_there_is_room_for(tmp_path: Path, calls: Calls) -> None:
    room = 1
    slots = Slots(tmp_path, "search.trials=4")
    searcher = SweepSearcher(slots.ledger, slots.agenda, job, lambda: room, calls)
    assert searcher.suggest("a") and searcher.suggest("b") is None
    room = 2
    assert searcher.suggest("b") == {"job": "t001"}, "a node has come"


def test_a_slot_that_is_free_takes_work_though_others_still_wait_for_their_next_step(
    tmp_path: Path, calls: Calls
) -> None:
    slots = Slots(tmp_path, "search.trials=2")
    searcher = SweepSearcher(slots.ledger, slots.agenda, job, lambda: 4, calls)
    for name in "ab":
        assert searcher.suggest(name)
        slots.ledger.append("started", trial=searcher.trial_of[name])
    assert searcher.suggest("c") == searcher.suggest("d") == {"job": None} and searcher.waiting == 2
    slots.agenda.failures.found_no_room("t000", "no worker has taken the trial within 300 s")
    searcher.on_trial_complete("a", error=True)
    assert searcher.suggest("e") is None, "no slot is free"
    searcher.on_trial_complete("c")
    assert searcher.suggest("e") == {"job": "t000"}, "before the other one that waits has ended its step"
    assert searcher.waiting == 1


def test_who_waits_is_called_when_there_is_work_and_not_before(
    tmp_path: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots, is_short = Slots(tmp_path, "search.trials=2"), False
    searcher = SweepSearcher(slots.ledger, slots.agenda, job, lambda: 20, calls, is_short=lambda: is_short)
    for name in "ab":
        assert searcher.suggest(name)
        slots.ledger.append("started", trial=searcher.trial_of[name])
    for number in range(8):
        assert searcher.suggest(f"w{number}") == {"job": None}
        if number:  # the first one's actor still starts
            searcher.on_trial_result(f"w{number}", {})
    searcher.call_waiting()
    assert not calls.called, "there is nothing for them"
    slots.agenda.failures.found_no_room("t000", "no worker has taken the trial within 300 s")
    searcher.on_trial_complete("a", error=True)
    searcher.call_waiting()
    assert calls.called == {"w1", "w2"}, "not all for one trial, and those first that look most often"
    searcher.call_waiting()
    assert len(calls.called) == 2, "they are given a second to answer"
    monkeypatch.setattr("sweeps.on_ray.searcher._CALL_EVERY_S", 0)
    searcher.call_waiting()
    assert calls.called == {"w1", "w2", "w3", "w4"}, "slots that do not answer hold up no others"
    searcher.on_trial_complete("w1")
    assert searcher.suggest("c") == {"job": "t000"}
    for number in range(2, 5):
        searcher.on_trial_result(f"w{number}", {})
    searcher.call_waiting()
    assert not calls.called, "there is nothing left to do"
    is_short = True
    searcher.call_waiting()
    assert len(calls.called) == searcher.waiting == 7, "all make way where a trial waits for room"


def test_at_the_end_all_are_called(tmp_path: Path, calls: Calls) -> None:
    slots = Slots(tmp_path, "search.trials=1")
    searcher = SweepSearcher(slots.ledger, slots.agenda, job, lambda: 20, calls)
    assert searcher.suggest("a")
    trial = slots.ledger.state.trials["t000"]
    slots.ledger.append("started", trial="t000")
    for number in range(5):
        assert searcher.suggest(f"w{number}") == {"job": None}
    slots.ledger.append("reported", trial="t000", **report(100, 0.3, 0.3))
    slots.ledger.append("ended", trial="t000", state="finished", reason="")
    searcher.on_trial_complete("a")
    assert searcher.suggest("b") == SweepSearcher.FINISHED and not trial.is_open
    searcher.call_waiting()
    assert len(calls.called) == 5
