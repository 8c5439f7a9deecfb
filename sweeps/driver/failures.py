"""What follows when something breaks under a trial: it is tried again, the node is avoided, or the sweep pauses itself.

In: the ledger's crashes. Out: a `paused` or `ended` event, and what the agenda asks: whether to rest, which nodes to
avoid, whether to give up for now. What the settings cause (a divergence, too little memory for one utterance) is not
decided here: that ends the trial at once.

The world breaks more often than a recipe does: a full disk, a lost node, a file that one machine lacks. So a crashed
trial waits with its checkpoint and is tried again, on another node if there is one, once another trial has reported
or nothing else is left to do. Only if it breaks again and again, wherever it is, while others report is it the trial's
own fault.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from hausa_asr.settings.sweep import ClusterSettings
from sweeps.record.crashes import CRASH, NO_ROOM, Crash
from sweeps.record.ledger import Ledger
from sweeps.record.state import State
from sweeps.wording import many

_FIRST_REST_S, _LONGEST_REST_S = 2.0, 60.0
"""After two crashes in a row slots rest, twice as long after each further one: an outage of a minute costs no trial."""
_ELSEWHERE_S = 60.0
"""After this time a trial goes on though the node where it broke, which may be gone, has reported nothing since."""


class Failures:
    """Decide by the crashes of a sweep.

    Args:
        ledger: the sweep's ledger.
        settings: how many crashes are too many.

    Attributes:
        others: gives the ids of the nodes that trials may be on when they avoid these; none if no trial fits there.
            By default of those that trials of this driver's were on.
    """

    def __init__(self, ledger: Ledger, settings: ClusterSettings) -> None:
        self._ledger, self._settings = ledger, settings
        self.others: Callable[[Collection[str]], Collection[str]] = lambda these: self._state.crashes.nodes - {*these}

    @property
    def _state(self) -> State:
        return self._ledger.state

    def crashed(self, trial: str, reason: str, node: str = "", host: str = "") -> None:
        """Write down that something broke under a trial: it is paused, or ended if it alone breaks too often."""
        reason = f"on node {host}: {reason}" if host else reason
        self._ledger.append("paused", trial=trial, cause=CRASH, reason=reason, node=node, host=host)
        own, most = self._own(trial), self._settings.crashes_per_trial
        # Where two trials are left that break wherever they are, each would excuse the other for ever.
        others = {crash.trial for crash in self._state.crashes.in_a_row if len(self._own(crash.trial)) < most} - {trial}
        if len(own) >= most and self._is_anywhere({crash.node for crash in own}) and not others:
            record = self._state.trials[trial]
            best = self._ledger.best_there(record)  # a better one may have been in the memory of the workers
            why = f"it broke {many(len(own), 'time')}, while others went on; at last: {reason}"
            self._ledger.append("ended", trial=trial, state="failed", cause=CRASH, reason=why, best=best)

    def _own(self, trial: str) -> list[Crash]:
        """A trial's crashes since its last report that count against it.

        Crashes on bad nodes do not count. Nor do crashes on an unknown node, if there are several nodes: the workers
        broke before they started the trial, so the fault is a node's. If all trials crash so, the sweep pauses itself.
        """
        bad, alone = self.avoided(), len(self.others(())) < 2
        crashes = self._state.crashes.of_trial.get(trial, [])
        return [crash for crash in crashes if crash.node not in bad and (alone or crash.node or crash.host)]

    def _is_anywhere(self, nodes: set[str]) -> bool:
        """Whether a trial that broke on these nodes would break on any that there is."""
        return len(nodes) > 1 or "" in nodes or not self.others(nodes)

    def found_no_room(self, trial: str, reason: str) -> None:
        """Write down that no worker came for a trial. That is no crash, and its time costs nothing."""
        self._ledger.append("paused", trial=trial, cause=NO_ROOM, reason=reason)

    def avoided(self) -> list[str]:
        """The ids of the nodes on which trials broke in a row, and not only one of them; none if there is no other."""
        bad = {node for node, crashes in self._state.crashes.of_node.items() if self._is_bad(crashes)}
        return sorted(bad) if bad and self.others(bad) else []

    def avoided_by(self, trial: str) -> list[str]:
        """The ids of the nodes that a trial had better not go to: the bad ones, and where it broke itself."""
        crashes = self._state.crashes
        own = {crash.node for crash in self._own(trial) if crash in crashes.of_node.get(crash.node, [])}
        if self._state.trials[trial].cause == NO_ROOM:
            own = set()  # it has found no room elsewhere
        return sorted({*self.avoided(), *own})

    def _is_bad(self, crashes: list[Crash]) -> bool:
        return len(crashes) >= self._settings.crashes_per_node and len({crash.trial for crash in crashes}) > 1

    def may_try_again(self, trial: str) -> bool:
        """Whether a trial that broke may go on: all is well again, as far as others have shown.

        On the node where it broke another trial goes first. Else a bad node, whose slot is free again and again, would
        break one trial after another for good.
        """
        crash, crashes = self._state.crashes.last_of(trial), self._state.crashes
        if crash is None:
            return True
        if crash in crashes.in_a_row:
            return False
        there = crashes.of_node.get(crash.node, [])
        return crash not in there or self._is_bad(there) or time.time() > crash.time + _ELSEWHERE_S

    def rests(self, at_work: bool) -> bool:
        """Whether slots wait before the next trial, since two or more broke in a row.

        Args:
            at_work: a slot has a trial, whose report would show that the world is well again.
        """
        in_a_row = self._state.crashes.in_a_row
        if len(in_a_row) < 2:
            return False
        rest_s = min(_LONGEST_REST_S, _FIRST_REST_S * 2 ** (len(in_a_row) - 2))
        return at_work or time.time() < in_a_row[-1].time + rest_s

    def too_many(self) -> str:
        """Why the sweep pauses itself, in words; "" while it does not."""
        in_a_row = self._state.crashes.in_a_row
        if len(in_a_row) < max(self._settings.crashes_in_a_row, 2 * self._state.crashes.slots):
            return ""
        last = in_a_row[-1]
        return f"trials broke {len(in_a_row)} times in a row and none reported; at last {last.trial} {last.reason}"
