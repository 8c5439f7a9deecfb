"""Say on the console that a node of the cluster has gone or come, and how many slots there are then.

In: a connected Ray, and the sweep's ledger. Out: one line for each node on which trials may run. What Ray itself prints
of a lost node, page-long, `cluster` sends to the sweep's log.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray

from hausa_asr.settings.sweep import ResourceSettings
from sweeps.planning.slots import has_labels
from sweeps.record.ledger import Ledger
from sweeps.wording import many

log = logging.getLogger("sweeps")

_LOOK_S = 2.0
_COUNTED_S = 20.0
"""The slots are counted again within this time of a node's end; a line waits for that."""


@contextmanager
def node_changes_said(ledger: Ledger, wanted: ResourceSettings, say: Callable[[str], None]) -> Iterator[None]:
    """Say what becomes of the cluster's nodes, for the length of the block.

    Args:
        ledger: the sweep's, which has the number of slots.
        wanted: the resources of one trial; nodes that have none of them are passed over.
        say: is given a line for the console.
    """
    over = threading.Event()
    changes = NodeChanges(lambda: ledger.state.slots, say)

    def look() -> None:
        while not over.wait(_LOOK_S):
            try:
                changes.look(_usable(wanted))
            except Exception as error:  # asked again in a moment
                log.warning("Ray was asked for its nodes and did not answer: %s", error)

    threading.Thread(target=look, name="node-changes", daemon=True).start()
    try:
        yield
    finally:
        over.set()


class NodeChanges:
    """Compare a cluster's nodes with those of the last look.

    Args:
        slots: how many there are now, by the ledger.
        say: is given a line for each node that has gone or come.
    """

    def __init__(self, slots: Callable[[], int], say: Callable[[str], None]) -> None:
        self._slots, self._say = slots, say
        self._nodes: dict[str, str] | None = None
        self._due: list[tuple[str, float, int]] = []

    def look(self, nodes: dict[str, str]) -> None:
        """Take in the living nodes, addresses by id, and say what has changed once the slots are counted again."""
        now = time.monotonic()
        if self._nodes is not None:
            gone = [f"a node has gone: {self._nodes[node]}" for node in self._nodes if node not in nodes]
            come = [f"a node has come: {nodes[node]}" for node in nodes if node not in self._nodes]
            self._due += [(line, now, self._slots()) for line in (*gone, *come)]
        self._nodes = nodes
        ready = [one for one in self._due if self._slots() != one[2] or now > one[1] + _COUNTED_S]
        for line, _, _ in ready:
            said = f"{line}, {many(self._slots(), 'slot')} now"
            log.warning("%s", said)
            self._say(said)
        self._due = [one for one in self._due if one not in ready]


def _usable(wanted: ResourceSettings) -> dict[str, str]:
    """The living nodes that have what a worker takes, addresses by id."""
    kind = "GPU" if wanted.gpus_per_worker else "CPU"
    return {
        node["NodeID"]: node["NodeManagerAddress"]
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get(kind, 0) and has_labels(node.get("Labels", {}), wanted.labels)
    }
