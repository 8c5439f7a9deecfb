"""A trial's folder on a worker: brought from the object store before it trains, and put there while it does.

In: a trial's folder, by the name that every node understands. Out: its twin on this node, with the checkpoints that the
store has. A report names only checkpoints that are in the store, so a trial can go on from there on any node. On a disk
the folder is the same for all nodes, and nothing is copied.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from hausa_asr.recipe import STEP_PREFIX, TRAINING, step_folder
from hausa_asr.storage import objects
from hausa_asr.storage.address import here, is_remote, join, portable
from hausa_asr.storage.fetched import at_hand, forget, kept, release
from hausa_asr.storage.folders import MANIFEST, Digests, manifest, put

_REPORTS = ("progress.json", "unscored.json")
"""One of them is in a checkpoint that is complete (`training.checkpoint`)."""
_LOOK_S = 0.5


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

    def bring(self, step: int = 0, within_s: float = 0.0) -> None:
        """Fetch the checkpoints that this node lacks, and drop those that the store has not: they are of another time.

        Args:
            step: where the trial was paused. The workers that it left may still be writing that checkpoint.
            within_s: how long to wait for it; then the trial goes on from an earlier one.

        Raises:
            StorageAway: the store does not answer.
        """
        until_s = time.monotonic() + within_s
        while time.monotonic() < until_s and not self._can_go_on_from(step):
            time.sleep(_LOOK_S)
        if not self._is_remote:
            return
        there = self._there()
        for folder in self.folder.glob(f"{STEP_PREFIX}*"):
            if folder.name not in there:
                shutil.rmtree(folder, ignore_errors=True)
        for name in there:
            with suppress(FileNotFoundError):  # dropped just now
                at_hand(join(self._place, name), foreign=False)
                self._put[name] = _content(self.folder / name)

    def put(self) -> None:
        """Put what is new into the store, then delete there what is gone here.

        Raises:
            StorageAway: the store does not answer.
        """
        if not self._is_remote:
            return
        found = [one for one in self.folder.glob(f"{STEP_PREFIX}*") if _is_complete(one)]
        # The best model first: whoever goes on from a state needs it.
        mine = {one.name: one for one in sorted(found, key=lambda one: ((one / TRAINING).is_file(), one.name))}
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

    def _can_go_on_from(self, step: int) -> bool:
        """Whether the checkpoint of a step is there, with the optimizer's state."""
        folder = step_folder(self.folder, step)
        if not self._is_remote:
            return _is_complete(folder) and (folder / TRAINING).is_file()
        found = manifest(join(self._place, folder.name))
        return found is not None and TRAINING in found.files

    def _there(self) -> list[str]:
        names = objects.listing(self._place)
        return sorted(name.split("/")[0] for name in names if name.endswith(f"/{MANIFEST}"))


def _is_complete(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _REPORTS)


def _content(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """What a checkpoint's files are, without reading them."""
    found = []
    for entry in os.scandir(folder):
        status = entry.stat()
        found.append((entry.name, status.st_size, status.st_mtime_ns))
    return tuple(sorted(found))
