"""The checkpoints of a sweep's trials, wherever they are: which are there, how large they are, and dropping them.

In: the folder of all trials. Its address, where it has one, counts: workers of other nodes put their checkpoints there
(`on_ray.trial_storage`), and this node need not have them. On a disk these are plain file operations.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from hausa_asr.recipe import CHECKPOINT, STEP_PREFIX, TRAINING, step_folder
from hausa_asr.storage import objects
from hausa_asr.storage.address import is_remote, join, portable
from hausa_asr.storage.fetched import forget
from hausa_asr.storage.folders import MANIFEST, drop_file

WRITING_S = 600.0
"""How long workers may write the checkpoints of a trial that was stopped: gigabytes, perhaps to a slow disk or to an
object store that is away."""


class Checkpoints:
    """The checkpoints below the folder of all trials.

    Args:
        folder: it, perhaps an address's twin.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._is_remote = is_remote(portable(folder))

    def steps(self, trial: str) -> list[int]:
        """The steps of a trial's complete checkpoints, rising."""
        if self._is_remote:
            names = objects.listing(self._place(trial))
            found = {name.split("/")[0] for name in names if name.endswith(f"/{MANIFEST}")}
        else:
            folder = self._folder / trial
            found = {one.name for one in folder.glob(f"{STEP_PREFIX}*") if (one / CHECKPOINT).is_file()}
        return sorted(int(name.removeprefix(STEP_PREFIX)) for name in found if name.startswith(STEP_PREFIX))

    def has(self, trial: str, step: int) -> bool:
        """Whether a trial's checkpoint of this step is there, complete."""
        place = self._step(trial, step)
        if self._is_remote:
            return objects.entry(join(place, MANIFEST)) is not None
        return os.path.isfile(join(place, CHECKPOINT))

    def read(self, trial: str, step: int, name: str) -> bytes | None:
        """The content of a small file of a checkpoint; None if it is gone."""
        try:
            return objects.read(join(self._step(trial, step), name))
        except FileNotFoundError:
            return None

    def size(self, trial: str) -> int:
        """Bytes of all that a trial has. A slot may be at work in it: what goes while it is counted counts nothing."""
        if self._is_remote:
            return sum(one.size for one in objects.listing(self._place(trial)).values())
        return size(self._folder / trial)

    def drop_half_written(self, trial: str = "*") -> None:
        """Remove what killed workers of a trial, or of all, have left half-written on this node."""
        for partial in self._folder.glob(f"{trial}/.{STEP_PREFIX}*.partial"):
            shutil.rmtree(partial, ignore_errors=True)

    def keep_only(self, trial: str, best: int | None) -> None:
        """Drop all checkpoints but one, and of that one what only training needs."""
        if not self._is_remote:
            for one in (self._folder / trial).glob(f"{STEP_PREFIX}*"):
                if best is not None and one == step_folder(self._folder / trial, best):
                    (one / TRAINING).unlink(missing_ok=True)
                else:
                    shutil.rmtree(one, ignore_errors=True)
            return
        for step in self.steps(trial):
            place = self._step(trial, step)
            if step == best:
                drop_file(place, TRAINING)
                with suppress(FileNotFoundError):
                    (step_folder(self._folder / trial, step) / TRAINING).unlink()
            else:
                objects.delete_all(place, last=MANIFEST)
                forget(place)

    def drop(self, trial: str) -> None:
        """Drop all that a trial has."""
        if self._is_remote:
            for step in self.steps(trial):
                forget(self._step(trial, step))
            objects.delete_all(self._place(trial), last=MANIFEST)
        shutil.rmtree(self._folder / trial, ignore_errors=True)

    def _place(self, trial: str) -> str:
        return join(portable(self._folder), trial)

    def _step(self, trial: str, step: int) -> str:
        return join(self._place(trial), step_folder(Path(), step).name)


def size(folder: Path) -> int:
    """Bytes below a folder of a disk."""
    found = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                found += os.stat(os.path.join(place, name)).st_size
    return found
