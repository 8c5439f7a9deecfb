"""What broke under trials: the crashes since the last success, of each trial, of each node and in a row.

In: a ledger's events. Out: counts that `driver.failures` decides by. A report is a success, and whoever brings one
starts at zero again; so does everybody under a new driver, since something may have been mended.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

CRASH, NO_ROOM, NOTICE = "crash", "no room", "notice"
"""Causes of a pause: the world broke under a trial, no worker came for it, or its node is about to go."""


@dataclass(frozen=True)
class Crash:
    """One crash of a trial.

    Attributes:
        trial: its id.
        node: the id of the node where it broke, in Ray's words; "" if it may be any of several, or is not known.
        host: the address of that node or of these, for people; "" if no worker had come to any.
        reason: what broke, in words.
        time: when, in seconds since the epoch.
    """

    trial: str
    node: str
    host: str
    reason: str
    time: float

    @classmethod
    def of(cls, event: dict[str, Any]) -> Crash:
        """The crash of a `paused` event."""
        return cls(event["trial"], event.get("node", ""), event.get("host", ""), event["reason"], event["time"])


@dataclass
class Crashes:
    """All crashes since the last success.

    Attributes:
        in_a_row: those of the sweep, with no report of any trial between them.
        of_trial: by trial, those since its own last report.
        of_node: by node, those since the last report from there.
        nodes: all that a trial of this driver's was on.
        slots: the most that there were since the last report.
    """

    in_a_row: list[Crash] = field(default_factory=list)
    of_trial: dict[str, list[Crash]] = field(default_factory=dict)
    of_node: dict[str, list[Crash]] = field(default_factory=dict)
    nodes: set[str] = field(default_factory=set)
    slots: int = 0
    _slots_now: int = 0

    def take(self, event: dict[str, Any]) -> None:
        """Take in one event of the ledger."""
        kind = event["event"]
        if kind == "opened":
            self.in_a_row, self.of_trial, self.of_node, self.nodes = [], {}, {}, set()
            self.slots = self._slots_now = event.get("slots", 0)
        elif kind == "slots":
            self._slots_now = event["slots"]
            self.slots = max(self.slots, self._slots_now)
        elif kind in ("reported", "repeated"):
            self.in_a_row, self.slots = [], self._slots_now
            self.nodes |= {*event.get("nodes", [])}
            self.of_trial.pop(event["trial"], None)
            for node in event.get("nodes", []):
                self.of_node.pop(node, None)
        elif kind == "paused" and event.get("cause") == CRASH:
            crash = Crash.of(event)
            self.in_a_row.append(crash)
            self.of_trial.setdefault(crash.trial, []).append(crash)
            if crash.node:
                self.nodes.add(crash.node)
                self.of_node.setdefault(crash.node, []).append(crash)

    def last_of(self, trial: str) -> Crash | None:
        """A trial's newest crash since its last report."""
        return next(iter(reversed(self.of_trial.get(trial, []))), None)
