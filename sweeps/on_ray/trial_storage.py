"""A trial's folder on a worker: brought from the object store before it trains, and put there before it reports.

In: a trial's folder, by the name that every node understands. Out: its twin on this node, with the checkpoints that the
store has. A report is sent only when the checkpoints that it relies on are in the store, so a trial can go on from
there on any node. On a disk the folder is the same for all nodes, and nothing is done.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from hausa_asr.recipe import STEP_PREFIX
from hausa_asr.storage import objects
from hausa_asr.storage.address import here, is_remote, join, portable
from hausa_asr.storage.fetched import at_hand, forget, kept, release
from hausa_asr.storage.folders import MANIFEST, Digests, put

_PROGRESS = "progress.json"
"""In a checkpoint, written last (`training.checkpoint`)."""


class TrialStorage:
    """The checkpoints of one trial, here and in the store.

    Args:
        place: the trial's folder, a path or an address.

    Attributes:
        folder: where it is on this node.
    """

    def __init__(self, place: str) -> None:
        self.folder = here(place)
        self._place = portable(place)
        self._is_remote = is_remote(self._place)
        self._digests = Digests()
        self._put: dict[str, tuple[tuple[str, int, int], ...]] = {}

    def bring(self) -> None:
        """Fetch the checkpoints that this node lacks, and drop those that the store has not: they are of another time.

        Raises:
            StorageAway: the store does not answer.
        """
        if not self._is_remote:
            return
        there = self._there()
        for folder in self.folder.glob(f"{STEP_PREFIX}*"):
            if folder.name not in there:
                shutil.rmtree(folder, ignore_errors=True)
        for step in there:
            with suppress(FileNotFoundError):  # dropped just now
                at_hand(join(self._place, step), foreign=False)
                self._put[step] = _content(self.folder / step)

    def put(self) -> None:
        """Put what is new into the store, then delete there what is gone here.

        Raises:
            StorageAway: the store does not answer.
        """
        if not self._is_remote:
            return
        mine = {one.name: one for one in self.folder.glob(f"{STEP_PREFIX}*") if (one / _PROGRESS).is_file()}
        for step, folder in mine.items():
            content = _content(folder)
            if self._put.get(step) != content:
                place = join(self._place, step)
                kept(place, put(folder, place, self._digests))
                self._put[step] = content
        for step in [step for step in self._put if step not in mine]:
            objects.delete_all(join(self._place, step), last=MANIFEST)
            forget(join(self._place, step))
            del self._put[step]

    def close(self) -> None:
        """The trial has left this worker: put what it wrote last, its log too, and let this node clear it away."""
        if not self._is_remote:
            return
        self.put()
        for log in self.folder.glob("*.log"):
            objects.write(join(self._place, log.name), log.read_bytes())
        self.release()

    def release(self) -> None:
        """Let this node clear the trial's checkpoints away."""
        for step in self._put:
            release(join(self._place, step))

    def _there(self) -> list[str]:
        names = objects.listing(self._place)
        return sorted(name.split("/")[0] for name in names if name.endswith(f"/{MANIFEST}"))


def _content(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """What a checkpoint's files are, without reading them."""
    found = []
    for entry in os.scandir(folder):
        status = entry.stat()
        found.append((entry.name, status.st_size, status.st_mtime_ns))
    return tuple(sorted(found))
