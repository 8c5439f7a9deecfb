"""Say on the console that the sweep's object store does not answer, and when it does again.

In: the sweep's lease, which is renewed every few seconds and so shows at once whether the store answers. Out: one line
at an outage's beginning and one at its end, from a thread of its own: the driver may be waiting for the store.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from hausa_asr.storage.lease import RENEW_S, Lease
from hausa_asr.storage.retry import trouble
from sweeps.wording import duration

log = logging.getLogger("sweeps")

AWAY_S = RENEW_S + 10.0
"""A store that has not answered for so long is away."""
_LOOK_S = 1.0
_LOOKS = 3
"""Looks in a row that must find it away: after one, this process itself may have been suspended."""


@contextmanager
def outages_said(lease: Lease, place: str, say: Callable[[str], None]) -> Iterator[None]:
    """Say each outage of a sweep's store, for the length of the block.

    Args:
        lease: the sweep's.
        place: its address.
        say: is given a line for the console.
    """
    over = threading.Event()
    thread = threading.Thread(target=_look, args=(lease, place, say, over), name="storage-outage", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=_LOOK_S)


def _look(lease: Lease, place: str, say: Callable[[str], None], over: threading.Event) -> None:
    looks, since_s = 0, 0.0
    while not over.wait(_LOOK_S) and not lease.is_lost:
        answered_s = lease.answered_s
        looks = looks + 1 if time.monotonic() - answered_s > AWAY_S else 0
        if looks >= _LOOKS and not since_s:
            since_s = answered_s
            why = f" ({trouble()})" if trouble() else ""
            _announce(
                say,
                f"storage does not answer since {_at(since_s)}: {place}{why}; what is new waits on this disk, and "
                "trials go on until they pause or end",
            )
        elif since_s and answered_s > since_s:
            away = duration(answered_s - since_s)
            _announce(say, f"storage answers again since {_at(answered_s)}, after {away}: {place}")
            since_s = 0.0


def _announce(say: Callable[[str], None], line: str) -> None:
    log.warning("%s", line)
    say(line)


def _at(monotonic_s: float) -> str:
    return datetime.fromtimestamp(time.time() - time.monotonic() + monotonic_s).astimezone().strftime("%H:%M:%S")
