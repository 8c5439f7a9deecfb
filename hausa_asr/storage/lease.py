"""Hold the right to write to a place in a store: one holder at a time, known by a rising number.

`flock` does that on a disk. In a store it is an object, `lease.json`, which its holder writes again every
`RENEW_S`. Whoever finds one that does not change for `LEASE_S` takes it over, with the next number: the holder has
crashed, or is cut off. A holder that comes back then finds a number that is not its own, and must stop writing. What it
still writes is known by its old number, and readers pass it over (`sweeps.record.ledger_parts`).

On S3 all this is safe, by conditional writes. On stores without them two that begin within the same second may both
think that they hold the lease, until the next renewal shows one of them that it does not.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from hausa_asr.errors import UserError
from hausa_asr.storage import objects

log = logging.getLogger("sweeps")

LEASE_S, RENEW_S = 60.0, 5.0
_POLL_S = 1.0
_SETTLE_S = 2.0
"""On a store without conditional writes: how long to wait before looking whose lease it is."""
_LONG_AGO_S, _GLANCE_S = 600.0, 3 * RENEW_S
"""A lease that was renewed so long ago, by its holder's clock and ours, is watched only so long: whichever clock is
wrong, who lives renews it meanwhile."""


def is_held(place: str) -> bool:
    """Whether somebody holds a lease, as far as its clock and ours agree: a crashed holder counts for a minute."""
    try:
        holder = json.loads(objects.read(place))
    except (FileNotFoundError, ValueError):
        return False
    return not holder.get("released") and abs(time.time() - float(holder.get("renewed", 0.0))) < LEASE_S


class LeaseLost(RuntimeError):
    """Somebody else has taken the lease over."""


class Lease:
    """The lease of a place; take it, and close it.

    Args:
        place: its address.
        what: what it is the lease of, for the message to whoever is refused.
        lost: called once by the renewing thread, when somebody else has taken it over.
        waiting: called once when a lease is found whose holder may have crashed, with the seconds until that is known.

    Attributes:
        number: of this holder, one more than the last one's.
        is_lost: somebody else has taken it over.
        answered_s: when the store answered last, by the monotonic clock.

    Raises:
        UserError: somebody else holds it.
        StorageAway: the store does not answer.
    """

    def __init__(
        self,
        place: str,
        what: str,
        lost: Callable[[], None],
        waiting: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._place, self._what, self._lost, self._waiting = place, what, lost, waiting
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self.number = 0
        self.is_lost = False
        self._over, self._once = threading.Event(), threading.Lock()
        self._tag = self._take()
        self.answered_s = time.monotonic()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise `LeaseLost` if it is known that somebody else has taken it over."""
        if self.is_lost:
            raise LeaseLost(self._place)

    def close(self) -> None:
        """Give it back, so that the next holder need not wait."""
        self._over.set()
        self._thread.join(timeout=RENEW_S)
        if not self.is_lost and objects.replace(self._place, self._content(released=True), self._tag) is None:
            objects.write(self._place, self._content(released=True))

    def _take(self) -> str:
        found = objects.entry(self._place)
        if found is None:
            self.number = 1
            if objects.create(self._place, self._content()):
                return self._mine()
            found = objects.entry(self._place)
        while found is not None:
            holder = self._read()
            if not holder.get("released"):
                found = self._unless_alive(found, holder)
            self.number = int(holder.get("number", 0)) + 1
            done = objects.replace(self._place, self._content(), found.tag)
            if done is None:
                objects.write(self._place, self._content())
                time.sleep(_SETTLE_S)
                done = self._read().get("owner") == self._owner
            if done:
                return self._mine()
            found = objects.entry(self._place)
        raise self._refused(self._read())

    def _unless_alive(self, found: objects.Entry, holder: dict[str, Any]) -> objects.Entry:
        """Wait until a lease that is not renewed has run out; raise if it is renewed."""
        was_long_ago = abs(time.time() - float(holder.get("renewed", 0.0))) > _LONG_AGO_S
        watched_s = min(LEASE_S, _GLANCE_S) if was_long_ago else LEASE_S
        self._waiting(watched_s)
        began_s = time.monotonic()
        while time.monotonic() - began_s < watched_s:
            time.sleep(_POLL_S)
            now = objects.entry(self._place)
            if now is None or now.tag != found.tag:
                if now is not None and self._read().get("released"):
                    return now
                raise self._refused(self._read())
        return found

    def _mine(self) -> str:
        found = objects.entry(self._place)
        if found is None or self._read().get("owner") != self._owner:
            raise self._refused(self._read())
        return found.tag

    def _renew(self) -> None:
        while not self._over.wait(RENEW_S):
            try:
                done = objects.replace(self._place, self._content(), self._tag)
                if done is None:
                    done = self._read().get("owner") == self._owner
                    if done:
                        objects.write(self._place, self._content())
                if done:
                    self._tag = self._mine()
                    self.answered_s = time.monotonic()
            except UserError as fault:  # away for long: tried again, and until then nobody can take it over either
                if not isinstance(fault, OSError):
                    done = False
                else:
                    log.warning("the lease could not be renewed: %s", fault.what)
                    continue
            if self._over.is_set():  # `close` did not wait for this answer, and has released the lease meanwhile
                return
            if not done:
                self.is_lost = True
                self._lost()
                return

    def _read(self) -> dict[str, Any]:
        try:
            return dict(json.loads(objects.read(self._place)))
        except (FileNotFoundError, ValueError):
            return {}

    def _content(self, released: bool = False) -> bytes:
        about = {"owner": self._owner, "number": self.number, "renewed": time.time(), "released": released}
        return json.dumps(about).encode()

    def _refused(self, holder: dict[str, Any]) -> UserError:
        who = ":".join(str(holder.get("owner", "an unknown machine")).split(":")[:2])
        return UserError(
            f"Another driver is at work on {self._what}: process {who}.",
            where=self._place,
            fix="Let it finish, or stop it (Ctrl-C, or `ray job stop`), before you resume the sweep.",
        )
