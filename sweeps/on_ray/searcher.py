"""The agenda as a Ray Tune Searcher: every Tune trial is one order of the agenda, our trial ids are our own.

A trial that was paused is handed out again as a new Tune trial; it goes on from its checkpoint. Where there is nothing
to do but to wait for others, the order is to wait, so that the slot stays warm; it is called when there is more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from ray.tune.search import Searcher

from sweeps.driver.agenda import Agenda
from sweeps.on_ray.calls import Calls
from sweeps.record.ledger import Ledger
from sweeps.record.trial import TrialRecord

_PART_CALLED, _CALL_EVERY_S = 8, 1.0
"""How much work there is nobody knows: while there is some, an eighth of the slots that wait is called each second."""


class SweepSearcher(Searcher):
    """Hand the agenda's orders to Ray Tune.

    Args:
        ledger: the sweep's ledger.
        agenda: what comes next.
        job: makes a Tune configuration, of a trial, or of None to wait.
        slots: how many the cluster has room for at the moment.
        calls: how slots without a trial are called.
        has_room: whether there is room for one more slot without a trial, given the number of slots with orders.
        is_short: whether a slot waits for room that one without a trial may hold.

    Attributes:
        trial_of: our trial id by Tune's; "" for one that only waits.
        why: by Tune's id, `recall` for a paused trial that goes on to its end.
    """

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune would write it into snapshots of its own, and the ledger is what lasts."""
        return {}

    def __init__(
        self,
        ledger: Ledger,
        agenda: Agenda,
        job: Callable[[TrialRecord | None], dict[str, Any]],
        slots: Callable[[], int],
        calls: Calls,
        has_room: Callable[[int], bool] = lambda out: True,
        is_short: Callable[[], bool] = bool,
    ) -> None:
        super().__init__(metric="loss", mode="min")
        self._ledger, self._agenda, self._job, self._slots = ledger, agenda, job, slots
        self._calls, self._has_room, self._is_short = calls, has_room, is_short
        self.trial_of: dict[str, str] = {}
        self.why: dict[str, str] = {}
        self._out: set[str] = set()
        self._waiting: dict[str, bool] = {}
        """The slots without a trial, in order, and whether each has answered before."""
        self._free, self._has_ended, self._called_s = 0, False, -math.inf

    @property
    def out(self) -> int:
        """How many slots have an order, the one that is just being given out among them."""
        return len(self._out)

    @property
    def waiting(self) -> int:
        """How many of them have none but to wait."""
        return len(self._waiting)

    def suggest(self, trial_id: str) -> Any:
        """The next order's Tune configuration, FINISHED, or None while every slot has one. Called by Tune.

        So none is given out ahead: each is made with all that is known when its slot is free.
        """
        if len(self._out) >= self._slots():
            return None
        if self.waiting and not self._is_free() and self._agenda.has_work():
            return None  # a slot that waits comes first, when it answers: a new one may find no room beside it
        if not self._has_room(len(self._out)) and not self._agenda.has_work():
            return None
        order = self._agenda.next()
        if order.do == "end":
            self._has_ended = True
            return Searcher.FINISHED
        self._free = max(0, self._free - 1)
        self._out.add(trial_id)
        self.trial_of[trial_id] = order.trial.id if order.trial else ""
        if order.trial is None:
            self._waiting[trial_id] = False
        if order.why:
            self.why[trial_id] = order.why
        return self._job(order.trial)

    def _is_free(self) -> bool:
        """Whether a warm slot has no order, and may have one."""
        return self._free > 0 and self._has_room(len(self._out))

    def call_waiting(self) -> None:
        """Call waiting slots for work, to make room for a trial, or to end. Runs before each Tune step."""
        if not self._waiting:
            return
        if self._is_short() or self._has_ended:
            self._calls.call(self._waiting)
        elif time.monotonic() - self._called_s >= _CALL_EVERY_S and not self._is_free() and self._agenda.has_work():
            self._called_s, called = time.monotonic(), self._calls.called
            # Those first that have waited longest. Who has not answered yet still starts, and will by itself.
            uncalled = (slot for slot, is_there in self._waiting.items() if is_there and slot not in called)
            self._calls.call(islice(uncalled, 1 + self.waiting // _PART_CALLED))

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Note that a slot has answered. Called by Tune."""
        if trial_id in self._waiting:
            self._waiting[trial_id] = True
            self._calls.answered(trial_id)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Take a trial back from its slot; the ledger has what became of it. Called by Tune."""
        self._out.discard(trial_id)
        if trial_id in self._waiting:
            del self._waiting[trial_id]
            self._calls.answered(trial_id)
        self._free += not error  # it is warm, and Tune takes it for the next order
        name = self.trial_of.get(trial_id, "")
        if not name:
            return
        self._agenda.back(self._ledger.state.trials[name])

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is what lasts."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, for the same reason."""
