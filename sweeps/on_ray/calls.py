"""Call slots that wait without a trial: there is work for them, or they are to make way, or to end.

In: the driver's calls. Out: the end of a slot's wait. Until it is called such a slot answers Ray Tune nothing: each
answer would cost the driver a step over all its trials, and hundreds of slots leave it no time for those that train.
The calls are one key in the store of Ray's head, at which each slot looks the more rarely the more of them wait.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress

from sweeps.on_ray.leaving import store

_ALL = "*"
_AGAIN_S = 5.0
"""After how long calls without an answer are written again: a head that was away may have lost them."""
_AT_MOST_S = 60.0
"""After how long a slot answers without having been called: a driver that has met an error of its own calls nobody."""
_IDLE_S, _LONGEST_IDLE_S, _LOOKS_PER_S = 0.2, 10.0, 25.0


class Calls:
    """The driver's side. No call waits for the head: a thread writes them.

    Attributes:
        key: where slots look.
    """

    def __init__(self) -> None:
        self.key = f"hausa-asr-calls-{uuid.uuid4().hex}"
        self._called: set[str] = set()
        self._lock, self._changed, self._closed = threading.Lock(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._write, name="calls", daemon=True)
        self._thread.start()

    @property
    def called(self) -> frozenset[str]:
        """Who has not answered yet."""
        with self._lock:
            return frozenset(self._called)

    def call(self, slots: Iterable[str]) -> None:
        """Call some slots, by Tune's ids of their trials."""
        with self._lock:
            before = len(self._called)
            self._called.update(slots)
            if len(self._called) > before:
                self._changed.set()

    def call_all(self) -> None:
        """Call all slots for good, at an interrupt."""
        self.call([_ALL])

    def answered(self, slot: str) -> None:
        """Take a call back: its slot has answered, or is no more."""
        with self._lock:
            if slot in self._called:
                self._called.discard(slot)
                self._changed.set()

    def close(self) -> None:
        """Write no more, and remove the key from the head's store."""
        self._closed.set()
        self._changed.set()
        self._thread.join(timeout=1.0)

    def _write(self) -> None:
        is_written = True
        while not self._closed.is_set():
            self._changed.wait(_AGAIN_S if self.called or not is_written else None)
            self._changed.clear()
            is_written = False
            with suppress(Exception):  # a head that restarts or has gone
                store()._internal_kv_put(self.key, " ".join(self.called).encode(), overwrite=True)
                is_written = True
        with suppress(Exception):
            store()._internal_kv_del(self.key)


def wait_for_call(key: str, slot: str, every_s: float) -> None:
    """Wait until a slot is called, or for a minute.

    Args:
        key: that of the driver's calls.
        slot: Tune's id of its trial.
        every_s: how often to look.
    """
    until_s = time.monotonic() + _AT_MOST_S
    while time.monotonic() < until_s:
        time.sleep(every_s)
        with suppress(Exception):  # a head that restarts
            called = (store()._internal_kv_get(key) or b"").decode().split()
            if slot in called or _ALL in called:
                return


def idle_s(waiting: int) -> float:
    """Seconds between two looks of a slot, by how many wait: few take a promoted trial at once, many spare the head."""
    return min(max(_IDLE_S, waiting / _LOOKS_PER_S), _LONGEST_IDLE_S)
