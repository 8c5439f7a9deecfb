"""Ask the workers of a sweep to leave: an interrupt's word to those that train, which may be far from a report.

In: the driver's word. Out: whether it was given, as workers ask while they train; each then writes a checkpoint to
resume from, without another evaluation, and leaves. It is a key in the store of Ray's head, which a busy slot need not
pass on. A head that does not answer holds up neither side.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_EVERY_S = 1.0
"""How often a worker asks the head, and how long the driver waits for it at the end."""


class Leaving:
    """The driver's side.

    Attributes:
        key: where workers look.
    """

    def __init__(self) -> None:
        self.key = f"hausa-asr-leave-{uuid.uuid4().hex}"

    def ask(self) -> None:
        """Ask all workers to leave, and wait for nothing."""
        _beside(lambda: store()._internal_kv_put(self.key, b"1"))

    def close(self) -> None:
        """Remove the key from the head's store."""
        _beside(lambda: store()._internal_kv_del(self.key)).join(timeout=_EVERY_S)


class Asked:
    """The workers' side: look from a thread, so that an update never waits for the head.

    Args:
        key: that of the driver.
        rank: only the first one looks; the others of a trial go by its answer.
    """

    def __init__(self, key: str, rank: int) -> None:
        self._key, self._asked, self._closed = key, threading.Event(), threading.Event()
        if rank == 0:
            _beside(self._look)

    def __call__(self) -> bool:
        """Whether the driver has asked."""
        return self._asked.is_set()

    def close(self) -> None:
        """Look no more."""
        self._closed.set()

    def _look(self) -> None:
        while not self._closed.wait(_EVERY_S):
            with suppress(Exception):  # a head that restarts
                if store()._internal_kv_exists(self._key):
                    self._asked.set()
                    return


def _beside(do: Callable[[], object]) -> threading.Thread:
    """Do something in a thread; a head that has gone is no fault."""

    def run() -> None:
        with suppress(Exception):
            do()

    thread = threading.Thread(target=run, name="leaving", daemon=True)
    thread.start()
    return thread


def store() -> Any:
    """The store of Ray's head, imported when it is needed, since Ray reads the environment at its import."""
    from ray.experimental import internal_kv

    return internal_kv
