"""A sweep's folder in an object store: the driver works on its twin, and a thread puts there what is new.

In: a sweep's folder. Out: with an address, the ledger's new lines as parts: before anything acts on an event that must
not be lost, soon after one that others wait for, and else every ten seconds; the other files once a minute and at the
end. Now and then one part replaces all before it, so that their number stays small. Checkpoints are put by the workers.
On a disk the folder itself is what counts, and there is nothing to do. Called by `run`.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hausa_asr.errors import UserError
from hausa_asr.storage import objects
from hausa_asr.storage.address import is_remote, join, name, portable
from hausa_asr.storage.folders import put_file
from hausa_asr.storage.lease import Lease
from sweeps.driver.storage_outage import outages_said
from sweeps.driver.sweep_folder import only_driver
from sweeps.record.folders import AT_THE_END, LEASE_FILE, OF_OTHERS
from sweeps.record.ledger_parts import drop_older, part, refresh
from sweeps.record.names import LEDGER_FILE

log = logging.getLogger("sweeps")

LOOK_S, LEDGER_S, FILES_S = 2.0, 10.0, 60.0
"""How often the ledger is looked at for what others wait for, and how often all its new lines and the files are put."""
MAY_WAIT = ("started", "reported", "repeated", "ranked", "waits", "waited")
"""Events of a trial's ordinary life: whoever goes on without the last of them finds the same checkpoints."""
MOST_PARTS = 200
"""The most parts of a ledger. When there are as many, they are replaced by one, so that a full read stays short."""


class Publisher:
    """Put a sweep's files where its address says.

    Args:
        folder: the twin that the driver works in.
        place: the sweep's address.
        lease: the right to write there.
    """

    def __init__(self, folder: Path, place: str, lease: Lease) -> None:
        self._folder, self._place, self._lease = folder, place, lease
        self._lock, self._over = threading.Lock(), threading.Event()
        self._number, self._sent = 0, 0
        self._all_in = self._dropped = 0
        self._unsure: tuple[bytes, bool] | None = None
        self._files: dict[str, tuple[int, int]] = {}
        self._thread = threading.Thread(target=self._work, name="publisher", daemon=True)

    def start(self) -> None:
        """Begin, once the folder has settings and a ledger."""
        self._thread.start()

    def ledger(self) -> None:
        """Put the ledger's new lines into the store now.

        Raises:
            StorageAway: the store does not answer, for long.
            LeaseLost: another driver has taken over.
        """
        with self._lock:
            self._lease.check()
            self._settle()
            if new := self._lines(self._sent):
                self._put(new)
        self._drop_replaced()

    def gather(self) -> None:
        """Once there are many parts, put all of the ledger as one, and delete those that it replaces."""
        if self._number - self._all_in < MOST_PARTS:
            return
        with self._lock:
            self._lease.check()
            self._settle()
            if self._number != self._all_in:
                self._put(self._lines(0), has_all=True)
        self._drop_replaced()

    def _drop_replaced(self) -> None:
        if self._dropped != self._all_in:
            drop_older(self._place, self._lease.number, self._all_in)
            self._dropped = self._all_in

    def _put(self, lines: bytes, *, has_all: bool = False) -> None:
        place = part(self._place, self._lease.number, self._number + 1, has_all=has_all)
        self._unsure = lines, has_all
        if not objects.create(place, lines):
            raise UserError(
                "A part of the sweep's ledger is there already.", where=place, fix="Start the driver again."
            )
        self._number, self._unsure = self._number + 1, None
        self._sent = len(lines) if has_all else self._sent + len(lines)
        if has_all or self._number == 1:
            self._all_in = self._number

    def _settle(self) -> None:
        """Put the part again whose writing failed: it may be there after all, or still come, and none may differ."""
        if self._unsure is not None:
            lines, has_all = self._unsure
            self._put(lines, has_all=has_all)

    def _lines(self, start: int) -> bytes:
        """The ledger's whole lines from a byte on."""
        with (self._folder / LEDGER_FILE).open("rb") as file:
            file.seek(start)
            new = file.read()
        return new[: new.rfind(b"\n") + 1]

    def _is_urgent(self) -> bool:
        """Whether the new lines have an event that others wait for."""
        return any(json.loads(line)["event"] not in MAY_WAIT for line in self._lines(self._sent).splitlines())

    def files(self, at_end: bool = False) -> None:
        """Put the files that have changed into the store."""
        self._lease.check()
        for file in sorted(self._folder.rglob("*")):
            named = str(file.relative_to(self._folder))
            top = named.split("/")[0]
            if top.startswith(".") or top in OF_OTHERS or (top in AT_THE_END and not at_end) or ".partial" in named:
                continue
            with suppress(FileNotFoundError):
                if file.is_file() and not file.is_symlink():
                    status = file.stat()
                    stamp = status.st_size, status.st_mtime_ns
                    if self._files.get(named) != stamp:
                        put_file(file, join(self._place, named))
                        self._files[named] = stamp

    def drop(self, named: str) -> None:
        """Delete one of the files from the store."""
        self._lease.check()
        objects.delete([join(self._place, named)])
        self._files.pop(named, None)

    def close(self) -> None:
        """Put all that is new, and stop."""
        self._over.set()
        if self._thread.ident is None:  # the sweep was refused before it was opened
            return
        self._thread.join()
        if not self._lease.is_lost:
            self.ledger()
            self.files(at_end=True)

    def _work(self) -> None:
        ledger_s, files_s = LEDGER_S, FILES_S  # since they were put
        while not self._over.wait(LOOK_S) and not self._lease.is_lost:
            ledger_s, files_s = ledger_s + LOOK_S, files_s + LOOK_S
            try:
                if ledger_s >= LEDGER_S or self._is_urgent():
                    ledger_s = 0.0
                    self.ledger()
                self.gather()
                if files_s >= FILES_S:
                    files_s = 0.0
                    self.files()
            except Exception as fault:  # what must not wait is put by `Ledger.append`, which passes it on
                log.warning("the sweep's files could not be put into the storage: %s", fault)


@contextmanager
def published(folder: Path, lost: Callable[[], None], say: Callable[[str], None]) -> Iterator[Publisher | None]:
    """Hold the right to drive a sweep for the block: the folder's lock and, in an object store, its lease too.

    There the ledger is brought up to date first, and all that is new is put there before the lock is given back.

    Args:
        folder: the sweep's, on this node.
        lost: called when another driver has taken over; it must end this one.
        say: is given a line for the console.

    Raises:
        UserError: another driver is at work, or this disk has no locks.
        StorageAway: the store does not answer.
    """
    with only_driver(folder):
        if is_remote(place := portable(folder)):
            with _leased(folder, place, lost, say) as publisher:
                yield publisher
        else:
            yield None


@contextmanager
def _leased(folder: Path, place: str, lost: Callable[[], None], say: Callable[[str], None]) -> Iterator[Publisher]:
    def waiting(seconds: float) -> None:
        say(f"another driver may still be at work; waiting up to {seconds:.0f} s to be sure")

    lease = Lease(join(place, LEASE_FILE), f"the sweep {name(place)}", lost, waiting)
    try:
        refresh(folder / LEDGER_FILE, place)  # it may have gone on since its settings were read
        publisher = Publisher(folder, place, lease)
        with outages_said(lease, place, say):
            try:
                yield publisher
            finally:
                publisher.close()
    finally:
        lease.close()
