"""Warm slots without a trial make way where a trial waits for the room that they hold."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.execution.tune_controller import TrialRunnerWrapper, TuneController
from ray.tune.schedulers import TrialScheduler
from ray.tune.utils.object_cache import _ObjectCache

from helpers.slots import Slots
from sweeps.on_ray.scheduler import SweepScheduler
from sweeps.record.checkpoints import WRITING_S


class Controller:
    """Tune's controller as far as the scheduler knows it: trials by status, and Tune's own cache of idle actors."""

    def __init__(self, *statuses: str) -> None:
        self._tune_controller, self._actor_cache = self, _ObjectCache(may_keep_one=True)
        self._actor_cache.increase_max("a slot", 2)
        for actor in ("one", "other"):
            assert self._actor_cache.cache_object("a slot", actor)
        self.trials = [
            SimpleNamespace(status=status, PENDING="PENDING", trial_id=f"t{number}", placement_group_factory="a slot")
            for number, status in enumerate(statuses)
        ]

    def get_live_trials(self) -> list[Any]:
        return self.trials

    def _cleanup_cached_actors(self, force_all: bool = False) -> None:
        list(self._actor_cache.flush_cached_objects(force_all=force_all))


def scheduler_of(slots: Slots, is_short: bool) -> SweepScheduler:
    return SweepScheduler(
        slots.config, slots.ledger, slots.rule, slots.agenda, lambda name: name, is_short=lambda: is_short
    )


@pytest.mark.parametrize(
    ("statuses", "is_short", "left"),
    [(["RUNNING"], True, 0), (["RUNNING"], False, 2), (["RUNNING", "PENDING"], True, 2), ([], True, 0)],
)
def test_idle_slots_end_where_a_trial_waits_for_their_room(
    tmp_path: Path, statuses: list[str], is_short: bool, left: int
) -> None:
    controller = Controller(*statuses)
    chosen = scheduler_of(Slots(tmp_path), is_short).choose_trial_to_run(controller)
    assert controller._actor_cache.num_cached_objects == left
    assert (chosen is not None) is ("PENDING" in statuses), "that one takes a warm slot"
    assert "force_all" in signature(TuneController._cleanup_cached_actors).parameters, "Ray's own has it"


def test_slots_that_end_have_the_time_that_writing_takes(tmp_path: Path) -> None:
    controller = Controller("RUNNING")
    wrapped = TrialRunnerWrapper(controller, None, {"get_live_trials"}, set())  # as Tune gives it to schedulers
    scheduler_of(Slots(tmp_path), False).choose_trial_to_run(wrapped)
    assert vars(controller)["_actor_force_cleanup_timeout"] == WRITING_S, "Tune's own is 10 s"


@pytest.mark.parametrize(("is_short", "answer"), [(True, TrialScheduler.STOP), (False, TrialScheduler.CONTINUE)])
def test_a_slot_that_waits_ends_where_a_trial_waits_for_its_room(tmp_path: Path, is_short: bool, answer: str) -> None:
    slots = Slots(tmp_path, "search.trials=1")
    slots.take()
    assert not slots.agenda.has_work()
    waits = SimpleNamespace(trial_id="")
    assert scheduler_of(slots, is_short).on_trial_result(None, waits, {}) == answer
